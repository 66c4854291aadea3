//! Min-max normalisation: in place here, out of place as the others write it.

use std::hint::black_box;

use medcam::ops::normalize;
use medcam::tch::{Kind, Tensor};
use medcam::{Layout, Shape};

use super::case::{Arm, Case, Layer, Values, values_mut};
use super::channel_weights::spatial;

pub fn cases(layer: Layer) -> Vec<Case> {
    let Layer { shape, input, .. } = layer;
    // Maps are f32 and of the input's size, whatever the layer is.
    let same = layer.kind != Kind::Float || layer.layout != Layout::Contiguous;
    if same || shape.spatial != input {
        return Vec::new();
    }
    vec![Case {
        op: "normalize",
        layer: Layer { shape: Shape { channels: 1, ..shape }, ..layer },
        inputs: vec![layer.map(input, Values::Rectified)],
        written: layer.map_bytes(input),
        medcam: cpu(layer.shape.batch),
        libtorch: Box::new(|inputs| drop(composed(&inputs[0]))),
    }]
}

fn cpu(batch: usize) -> Arm {
    Box::new(move |inputs| {
        // From the second time on the values are normalised already: the same work.
        black_box(normalize(values_mut(&mut inputs[0]), batch).unwrap());
    })
}

/// As M3d-CAM writes it, there with NumPy.
pub fn composed(map: &Tensor) -> Tensor {
    let axes = spatial(map);
    let (minimum, maximum) = (map.amin(&axes[..], true), map.amax(&axes[..], true));
    (map - &minimum) / (maximum - minimum)
}
