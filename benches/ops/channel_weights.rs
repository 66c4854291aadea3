//! Channel weights: the gradient is read once.

use std::hint::black_box;

use medcam::ops::channel_weights;
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Scalar, Values, for_kind, view};

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "channel_weights",
        layer,
        inputs: vec![layer.tensor(Values::Signed)],
        written: layer.shape.batch * layer.shape.channels * 4,
        medcam: for_kind!(layer.kind, cpu)(layer),
        libtorch: Box::new(|inputs| drop(composed(&inputs[0]))),
    }]
}

fn cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        black_box(channel_weights(&view::<T>(&inputs[0], &layer)).unwrap());
    })
}

/// `(B, C, 1...)`, as M3d-CAM, pytorch-grad-cam and MONAI write it.
pub fn composed(gradient: &Tensor) -> Tensor {
    gradient.mean_dim(&spatial(gradient)[..], true, None::<Kind>)
}

/// The spatial axes of a tensor.
pub fn spatial(tensor: &Tensor) -> Vec<i64> {
    (2..tensor.size().len() as i64).collect()
}
