//! Min-max normalisation: in place here, out of place as the others write it.

use std::hint::black_box;

use medcam::ops::normalize;
use medcam::tch::Tensor;

use super::case::{Arm, Case, Layer, Values, values_mut};
use super::channel_weights::spatial;

pub fn cases(layer: Layer) -> Vec<Case> {
    let Layer { shape, input, .. } = layer;
    if !layer.stands_for_its_map() || shape.spatial != input {
        return Vec::new();
    }
    vec![Case {
        op: "normalize",
        layer: layer.as_map(),
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
