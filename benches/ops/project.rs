//! The projection: the activation is read once, the map written once.

use std::hint::black_box;

use medcam::ops::project;
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Scalar, Values, for_kind, values, view};

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "project",
        layer,
        inputs: vec![layer.tensor(Values::Rectified), layer.weights()],
        written: layer.map_bytes(layer.shape.spatial),
        medcam: for_kind!(layer.kind, cpu)(layer),
        libtorch: Box::new(|inputs| {
            let [activation, weights] = inputs else { unreachable!("two inputs") };
            drop(composed(activation, &weights.to_kind(activation.kind())));
        }),
    }]
}

fn cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        let [activation, weights] = inputs else { unreachable!("two inputs") };
        black_box(project(values(weights), &view::<T>(activation, &layer)).unwrap());
    })
}

/// `(B, 1, ...)`, as M3d-CAM, pytorch-grad-cam and MONAI write it.
pub fn composed(activation: &Tensor, weights: &Tensor) -> Tensor {
    (activation * weights).sum_dim_intlist(&[1_i64][..], true, None::<Kind>).relu()
}
