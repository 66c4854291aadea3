//! Min-max normalisation: in place here, out of place as the others write it.

use std::hint::black_box;

use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::{Interpolation, normalize, resample};
use medcam::tch::Tensor;

use super::case::{Arm, Case, Layer, Place, Values, values_mut};
use super::channel_weights::spatial;
use super::cuda;

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
        medcam: if layer.place == Place::Cuda { on_cuda(layer) } else { on_cpu(layer) },
        libtorch: Box::new(|inputs| drop(composed(&inputs[0]))),
    }]
}

fn on_cpu(layer: Layer) -> Arm {
    let batch = layer.shape.batch;
    Box::new(move |inputs| {
        // From the second time on the values are normalised already: the same work.
        black_box(normalize(values_mut(&mut inputs[0]), batch).unwrap());
    })
}

/// With the range, which in a chain comes from the launch before.
fn on_cuda(layer: Layer) -> Arm {
    let resize = cuda::resize(layer);
    cuda::arm(
        move |stream| stream.allocate::<DeviceExtremes>(resize.batch).unwrap(),
        move |stream, extremes, inputs| {
            let (map, out) = (cuda::slice(&inputs[0]), extremes.slice_mut());
            resample::cuda::extremes(stream, map, resize, Interpolation::Linear, out).unwrap();
            let map = cuda::slice_mut(&mut inputs[0]);
            normalize::cuda::normalize(stream, map, extremes.slice()).unwrap();
        },
    )
}

/// As M3d-CAM writes it, there with NumPy.
pub fn composed(map: &Tensor) -> Tensor {
    let axes = spatial(map);
    let (minimum, maximum) = (map.amin(&axes[..], true), map.amax(&axes[..], true));
    (map - &minimum) / (maximum - minimum)
}
