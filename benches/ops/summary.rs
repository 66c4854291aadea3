//! What a chain tells of its maps: on CUDA alone, where it is a launch of its own.

use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::summary::SampleSummary;
use medcam::ops::summary::cuda::summary;
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Place, Scalar, own_arm};
use super::cuda;

pub fn cases(layer: Layer) -> Vec<Case> {
    if layer.place != Place::Cuda {
        return Vec::new();
    }
    let batch = layer.shape.batch;
    vec![Case {
        op: "summary",
        layer,
        inputs: vec![layer.weights(), layer.weights()],
        written: batch * size_of::<SampleSummary>(),
        medcam: own_arm!(layer, on_cuda, on_cuda),
        libtorch: Box::new(|inputs| drop(composed(&inputs[0], &inputs[1]))),
    }]
}

/// Of a map that is not 0, so that the gradient is not looked at.
fn on_cuda<T: Scalar>(layer: Layer) -> Arm {
    let shape = layer.shape;
    cuda::arm(
        move |stream| {
            let range = DeviceExtremes { maximum: 1.0, ..DeviceExtremes::default() };
            let extremes = stream.upload(&vec![range; shape.batch]).unwrap();
            (extremes, stream.allocate::<SampleSummary>(shape.batch).unwrap())
        },
        move |stream, (extremes, summaries), inputs| {
            let known = Some((cuda::slice(&inputs[0]), Some(cuda::slice(&inputs[1]))));
            let both = (extremes.slice(), extremes.slice());
            summary::<T>(stream, shape, None, known, T::EPSILON, both, summaries.slice_mut())
                .unwrap();
        },
    )
}

/// Whether the weights are finite, and whether the greatest is noise.
fn composed(weights: &Tensor, magnitudes: &Tensor) -> Tensor {
    let weights = weights.flatten(1, -1);
    let finite = weights.isfinite().all_dim(1, false);
    let (greatest, channel) = weights.abs().max_dim(1, true);
    let noise = magnitudes.flatten(1, -1).gather(1, &channel, false) * 1e-4;
    finite.to_kind(Kind::Float) + greatest.lt_tensor(&noise).flatten(0, -1)
}
