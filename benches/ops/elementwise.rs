//! LayerCAM's map on the layer's grid: activation and gradient are read once, the map written once.
//! HiResCAM's lacks one step and is measured as a chain alone.

use std::hint::black_box;

use medcam::ops::{Elementwise, elementwise};
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Scalar, Values, own_arm, view};
use super::{cuda, project};

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "elementwise",
        layer,
        inputs: vec![layer.tensor(Values::Rectified), layer.tensor(Values::Signed)],
        written: layer.map_bytes(layer.shape.spatial),
        medcam: own_arm!(layer, on_cpu, on_cuda),
        libtorch: Box::new(|inputs| {
            let [activation, gradient] = inputs else { unreachable!("two inputs") };
            drop(composed(activation, &gradient.relu()));
        }),
    }]
}

fn on_cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        let [activation, gradient] = inputs else { unreachable!("two inputs") };
        let (activation, gradient) = (view::<T>(activation, &layer), view(gradient, &layer));
        black_box(elementwise(&activation, &gradient, Elementwise::LayerCam).unwrap());
    })
}

fn on_cuda<T: Scalar>(layer: Layer) -> Arm {
    cuda::arm(
        move |stream| project::map(stream, layer),
        move |stream, (map, extremes), inputs| {
            let [a, g] = inputs else { unreachable!("two inputs") };
            let (a, g) = (cuda::view::<T>(a, &layer), cuda::view(g, &layer));
            let (map, extremes) = (map.slice_mut(), extremes.slice_mut());
            let method = Elementwise::LayerCam;
            elementwise::cuda::elementwise(stream, &a, &g, method, map, extremes).unwrap();
        },
    )
}

/// `(B, 1, ...)`, as pytorch-grad-cam and TorchCAM write it: LayerCAM's with a gradient that is
/// rectified already, HiResCAM's with one that is not.
pub fn composed(activation: &Tensor, gradient: &Tensor) -> Tensor {
    (gradient * activation).sum_dim_intlist(&[1_i64][..], true, None::<Kind>).relu()
}
