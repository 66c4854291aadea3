//! Grad-CAM++'s weights, with the paper's denominator: activation and gradient are read once.

use std::hint::black_box;

use medcam::ops::{Denominator, alpha_weights};
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Scalar, Values, own_arm, view};
use super::channel_weights::spatial;
use super::cuda;

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "alpha_weights",
        layer,
        inputs: vec![layer.tensor(Values::Rectified), layer.tensor(Values::Signed)],
        written: layer.weights().bytes(),
        medcam: own_arm!(layer, on_cpu, on_cuda),
        libtorch: Box::new(|inputs| {
            let [activation, gradient] = inputs else { unreachable!("two inputs") };
            drop(composed(activation, gradient));
        }),
    }]
}

fn on_cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        let [activation, gradient] = inputs else { unreachable!("two inputs") };
        let (activation, gradient) = (view::<T>(activation, &layer), view(gradient, &layer));
        let weights = alpha_weights(&activation, &gradient, Denominator::Paper);
        black_box(weights.unwrap());
    })
}

fn on_cuda<T: Scalar>(layer: Layer) -> Arm {
    cuda::arm(
        move |stream| stream.allocate(layer.weights().shape.elements()).unwrap(),
        move |stream, weights, inputs| {
            let [a, g] = inputs else { unreachable!("two inputs") };
            let (a, g) = (cuda::view::<T>(a, &layer), cuda::view(g, &layer));
            let (paper, weights) = (Denominator::Paper, weights.slice_mut());
            alpha_weights::cuda::alpha_weights(stream, &a, &g, paper, weights).unwrap();
        },
    )
}

/// `(B, C, 1...)`, as pytorch-grad-cam writes it, there with NumPy.
pub fn composed(activation: &Tensor, gradient: &Tensor) -> Tensor {
    let axes = spatial(gradient);
    let sum = |values: &Tensor| values.sum_dim_intlist(&axes[..], true, None::<Kind>);
    let squared = gradient.pow_tensor_scalar(2);
    let cubed = &squared * gradient;
    let alpha = &squared / (&squared * 2.0 + sum(activation) * cubed + 1e-6);
    let alpha = alpha.where_self(&gradient.not_equal(0.0), &gradient.zeros_like());
    sum(&(gradient.relu() * alpha))
}
