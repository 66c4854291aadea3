//! The backward of a guided activation: input and gradient are read once, the result written once.

use medcam::ops::guided_activation;
use medcam::tch::Tensor;

use super::case::{Arm, Case, Layer, Scalar, Values, own_arm, values};
use super::cuda;

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "guided_activation",
        layer,
        inputs: vec![layer.tensor(Values::Signed), layer.tensor(Values::Signed)],
        written: layer.tensor(Values::Signed).bytes(),
        medcam: own_arm!(layer, on_cpu, on_cuda),
        libtorch: Box::new(|inputs| {
            let [input, gradient] = inputs else { unreachable!("two inputs") };
            drop(composed(input, gradient));
        }),
    }]
}

fn on_cpu<T: Scalar>(layer: Layer) -> Arm {
    let mut output = vec![T::from_f32(0.0); layer.shape.elements()];
    Box::new(move |inputs| {
        let (input, gradient) = (values::<T>(&inputs[0]), values(&inputs[1]));
        guided_activation(input, gradient, &mut output).unwrap();
    })
}

fn on_cuda<T: Scalar>(layer: Layer) -> Arm {
    cuda::arm(
        move |stream| stream.allocate::<T>(layer.shape.elements()).unwrap(),
        move |stream, output, inputs| {
            let (input, gradient) = (cuda::slice(&inputs[0]), cuda::slice(&inputs[1]));
            let output = output.slice_mut();
            guided_activation::cuda::guided_activation(stream, input, gradient, output).unwrap();
        },
    )
}

/// The backward of ReLU, clamped, as M3d-CAM's hook does it.
pub fn composed(input: &Tensor, gradient: &Tensor) -> Tensor {
    gradient.threshold_backward(input, 0.0).clamp_min(0.0)
}
