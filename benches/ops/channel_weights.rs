//! Channel weights: the gradient is read once. On CUDA the mean magnitudes come with them.

use std::hint::black_box;

use medcam::ops::channel_weights;
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Scalar, Values, own_arm, view};
use super::cuda;

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "channel_weights",
        layer,
        inputs: vec![layer.tensor(Values::Signed)],
        written: layer.weights().bytes(),
        medcam: own_arm!(layer, on_cpu, on_cuda),
        libtorch: Box::new(|inputs| drop(composed(&inputs[0]))),
    }]
}

fn on_cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        black_box(channel_weights(&view::<T>(&inputs[0], &layer)).unwrap());
    })
}

fn on_cuda<T: Scalar>(layer: Layer) -> Arm {
    let length = layer.weights().shape.elements();
    cuda::arm(
        move |stream| [(); 2].map(|()| stream.allocate(length).unwrap()),
        move |stream, [weights, magnitudes], inputs| {
            let (gradient, weights) = (cuda::view::<T>(&inputs[0], &layer), weights.slice_mut());
            channel_weights::cuda::channel_weights(
                stream,
                &gradient,
                weights,
                magnitudes.slice_mut(),
            )
            .unwrap();
        },
    )
}

/// `(B, C, 1...)`, as M3d-CAM, pytorch-grad-cam and MONAI write it.
pub fn composed(gradient: &Tensor) -> Tensor {
    gradient.mean_dim(&spatial(gradient)[..], true, None::<Kind>)
}

/// The spatial axes of a tensor.
pub fn spatial(tensor: &Tensor) -> Vec<i64> {
    (2..tensor.size().len() as i64).collect()
}
