//! Guided Grad-CAM's last step: the map, resampled, times the guided map, normalised. The floor
//! counts the guided map once; since the range must be known first, it is read twice.

use std::hint::black_box;

use medcam::Shape;
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::{Resize, guided_product};
use medcam::tch::Tensor;

use super::case::{Arm, Case, Layer, Place, Values, values};
use super::{cuda, normalize, resample};

pub fn cases(layer: Layer) -> Vec<Case> {
    let Layer { shape, input, .. } = layer;
    if !layer.stands_for_its_map() {
        return Vec::new();
    }
    let guided = layer.map(input, Values::Signed);
    vec![Case {
        op: "guided_product",
        layer: layer.as_map(),
        inputs: vec![layer.map(shape.spatial, Values::Rectified), guided],
        written: guided.bytes(),
        medcam: if layer.place == Place::Cuda { on_cuda(layer) } else { on_cpu(layer) },
        libtorch: Box::new(move |inputs| {
            let [map, guided] = inputs else { unreachable!("two inputs") };
            drop(composed(map, guided, layer));
        }),
    }]
}

fn on_cpu(layer: Layer) -> Arm {
    let Layer { shape: Shape { batch, spatial, .. }, input, .. } = layer;
    Box::new(move |inputs| {
        let (map, guided) = (values(&inputs[0]), values(&inputs[1]));
        black_box(
            guided_product::<f32>(map, guided, Resize { batch, from: spatial, to: input }).unwrap(),
        );
    })
}

fn on_cuda(layer: Layer) -> Arm {
    let (resize, voxels) = (cuda::resize(layer), layer.map_bytes(layer.input) / size_of::<f32>());
    cuda::arm(
        move |stream| {
            let extremes = stream.allocate::<DeviceExtremes>(resize.batch).unwrap();
            (extremes, stream.allocate::<f32>(voxels).unwrap())
        },
        move |stream, (extremes, out), inputs| {
            let (map, guided) = (cuda::slice(&inputs[0]), cuda::slice(&inputs[1]));
            let range = extremes.slice_mut();
            guided_product::cuda::extremes(stream, map, guided, resize, range).unwrap();
            let (range, out) = (Some(extremes.slice()), out.slice_mut());
            guided_product::cuda::guided_product_into(stream, map, guided, resize, range, out)
                .unwrap();
        },
    )
}

/// As M3d-CAM writes it, there with NumPy.
pub fn composed(map: &Tensor, guided: &Tensor, layer: Layer) -> Tensor {
    normalize::composed(&(resample::to_input(map, layer) * guided))
}
