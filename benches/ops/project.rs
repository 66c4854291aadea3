//! The projection: the activation is read once, the map written once. So does the mean over the
//! channels, which is measured on f32 alone.

use std::hint::black_box;

use medcam::device::{Buffer, Stream};
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::{channel_mean, project};
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Place, Scalar, Values, own_arm, values, view};
use super::cuda;

pub fn cases(layer: Layer) -> Vec<Case> {
    let written = layer.map_bytes(layer.shape.spatial);
    let mut cases = vec![Case {
        op: "project",
        layer,
        inputs: vec![layer.tensor(Values::Rectified), layer.weights()],
        written,
        medcam: own_arm!(layer, on_cpu, on_cuda),
        libtorch: Box::new(|inputs| {
            let [activation, weights] = inputs else { unreachable!("two inputs") };
            drop(composed(activation, &weights.to_kind(activation.kind())));
        }),
    }];
    if layer.stands_for_its_map() && layer.place != Place::CpuOneThread {
        cases.push(Case {
            op: "channel_mean",
            layer,
            inputs: vec![layer.tensor(Values::Signed)],
            written,
            medcam: own_arm!(layer, mean_on_cpu, mean_on_cuda),
            libtorch: Box::new(|inputs| drop(inputs[0].mean_dim(1, true, None::<Kind>))),
        });
    }
    cases
}

fn on_cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        let [activation, weights] = inputs else { unreachable!("two inputs") };
        black_box(project(values(weights), &view::<T>(activation, &layer)).unwrap());
    })
}

fn mean_on_cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        black_box(channel_mean(&view::<T>(&inputs[0], &layer)).unwrap());
    })
}

fn on_cuda<T: Scalar>(layer: Layer) -> Arm {
    cuda::arm(
        move |stream| map(stream, layer),
        move |stream, (map, extremes), inputs| {
            let [activation, weights] = inputs else { unreachable!("two inputs") };
            let (weights, activation) = (cuda::slice(weights), cuda::view::<T>(activation, &layer));
            let (map, extremes) = (map.slice_mut(), extremes.slice_mut());
            project::cuda::project(stream, weights, &activation, map, extremes).unwrap();
        },
    )
}

fn mean_on_cuda<T: Scalar>(layer: Layer) -> Arm {
    cuda::arm(
        move |stream| map(stream, layer),
        move |stream, (map, extremes), inputs| {
            let (tensor, map) = (cuda::view::<T>(&inputs[0], &layer), map.slice_mut());
            project::cuda::channel_mean(stream, &tensor, map, extremes.slice_mut()).unwrap();
        },
    )
}

/// Room for the map of a layer, and for its extremes.
pub fn map(stream: &Stream, layer: Layer) -> (Buffer<f32>, Buffer<DeviceExtremes>) {
    let voxels = layer.as_map().shape.elements();
    (stream.allocate(voxels).unwrap(), stream.allocate(layer.shape.batch).unwrap())
}

/// `(B, 1, ...)`, as M3d-CAM, pytorch-grad-cam and MONAI write it.
pub fn composed(activation: &Tensor, weights: &Tensor) -> Tensor {
    (activation * weights).sum_dim_intlist(&[1_i64][..], true, None::<Kind>).relu()
}
