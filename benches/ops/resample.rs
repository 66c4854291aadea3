//! Resampling a map to the grid of the input: read once, written once.

use std::hint::black_box;

use medcam::Shape;
use medcam::ops::{Interpolation, Resize, resample};
use medcam::tch::Tensor;

use super::case::{Arm, Case, Layer, Place, Values, values};
use super::cuda;

pub fn cases(layer: Layer) -> Vec<Case> {
    let Layer { shape, input, .. } = layer;
    if !layer.stands_for_its_map() || shape.spatial == input {
        return Vec::new();
    }
    vec![Case {
        op: "resample",
        layer: layer.as_map(),
        inputs: vec![layer.map(shape.spatial, Values::Rectified)],
        written: layer.map_bytes(input),
        medcam: if layer.place == Place::Cuda { on_cuda(layer) } else { on_cpu(layer) },
        libtorch: Box::new(move |inputs| drop(to_input(&inputs[0], layer))),
    }]
}

fn on_cpu(layer: Layer) -> Arm {
    let Layer { shape: Shape { batch, spatial, .. }, input, .. } = layer;
    Box::new(move |inputs| {
        let map = values(&inputs[0]);
        black_box(
            resample(map, Resize { batch, from: spatial, to: input }, Interpolation::Linear)
                .unwrap(),
        );
    })
}

fn on_cuda(layer: Layer) -> Arm {
    let voxels = layer.map_bytes(layer.input) / size_of::<f32>();
    cuda::arm(
        move |stream| stream.allocate::<f32>(voxels).unwrap(),
        move |stream, out, inputs| {
            let (map, resize, out) =
                (cuda::slice(&inputs[0]), cuda::resize(layer), out.slice_mut());
            resample::cuda::resample_into(stream, map, resize, Interpolation::Linear, None, out)
                .unwrap();
        },
    )
}

/// On the grid of the input, bilinear or trilinear with half-pixel centres, as M3d-CAM writes it.
pub fn to_input(map: &Tensor, layer: Layer) -> Tensor {
    let [d, h, w] = layer.input.map(|extent| extent as i64);
    if layer.shape.spatial == layer.input {
        map.shallow_clone()
    } else if map.dim() == 4 {
        map.upsample_bilinear2d([h, w], false, None, None)
    } else {
        map.upsample_trilinear3d([d, h, w], false, None, None, None)
    }
}
