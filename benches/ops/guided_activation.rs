//! The backward of a guided activation: input and gradient are read once, the result written once.

use medcam::ops::guided_activation;
use medcam::tch::Tensor;

use super::case::{Arm, Case, Layer, Scalar, Values, for_kind, values};

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "guided_activation",
        layer,
        inputs: vec![layer.tensor(Values::Signed), layer.tensor(Values::Signed)],
        written: layer.tensor(Values::Signed).bytes(),
        medcam: for_kind!(layer.kind, cpu)(),
        libtorch: Box::new(|inputs| {
            let [input, gradient] = inputs else { unreachable!("two inputs") };
            drop(composed(input, gradient));
        }),
    }]
}

fn cpu<T: Scalar>() -> Arm {
    let mut output = Vec::new();
    Box::new(move |inputs| {
        let (input, gradient) = (values::<T>(&inputs[0]), values(&inputs[1]));
        output.resize(input.len(), T::from_f32(0.0));
        guided_activation(input, gradient, &mut output).unwrap();
    })
}

/// The backward of ReLU, clamped, as M3d-CAM's hook does it.
pub fn composed(input: &Tensor, gradient: &Tensor) -> Tensor {
    gradient.threshold_backward(input, 0.0).clamp_min(0.0)
}
