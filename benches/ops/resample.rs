//! Resampling a map to the grid of the input: read once, written once.

use std::hint::black_box;

use medcam::Shape;
use medcam::ops::{Interpolation, resample};
use medcam::tch::Tensor;

use super::case::{Arm, Case, Layer, Values, values};

pub fn cases(layer: Layer) -> Vec<Case> {
    let Layer { shape, input, .. } = layer;
    if !layer.stands_for_its_map() || shape.spatial == input {
        return Vec::new();
    }
    vec![Case {
        op: "resample",
        layer: layer.as_map(),
        inputs: vec![layer.map(shape.spatial, Values::Rectified)],
        written: layer.map_bytes(input),
        medcam: cpu(layer),
        libtorch: Box::new(move |inputs| drop(composed(&inputs[0], input))),
    }]
}

fn cpu(layer: Layer) -> Arm {
    let Layer { shape: Shape { batch, spatial, .. }, input, .. } = layer;
    Box::new(move |inputs| {
        let map = values(&inputs[0]);
        black_box(resample(map, batch, spatial, input, Interpolation::Linear).unwrap());
    })
}

/// Bilinear or trilinear with half-pixel centres, as M3d-CAM writes it.
pub fn composed(map: &Tensor, to: [usize; 3]) -> Tensor {
    let [d, h, w] = to.map(|extent| extent as i64);
    if map.dim() == 4 {
        map.upsample_bilinear2d([h, w], false, None, None)
    } else {
        map.upsample_trilinear3d([d, h, w], false, None, None, None)
    }
}
