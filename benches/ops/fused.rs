//! The chains, from the gradient to the finished map on the grid of the input: activation and
//! gradient (and the guided map) are read once, the map is written once.

use std::hint::black_box;

use medcam::ops::{Denominator, Maps, Method, Recipe, cam, fused, guided_cam};
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Scalar, Values, own_arm, values, view};
use super::{
    alpha_weights, channel_weights, cuda, elementwise, guided_product, normalize, project, resample,
};

/// The chains' names.
pub const CHAINS: [&str; 5] =
    ["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "guided_grad_cam"];

pub fn cases(layer: Layer) -> Vec<Case> {
    let plus_plus = Method::GradCamPlusPlus(Denominator::Paper);
    vec![
        case("grad_cam", layer, arm(layer, Method::GradCam), |a, g| {
            project::composed(a, &channel_weights::composed(g))
        }),
        case("grad_cam_plus_plus", layer, arm(layer, plus_plus), |a, g| {
            project::composed(a, &alpha_weights::composed(a, g))
        }),
        case("hires_cam", layer, arm(layer, Method::HiResCam), elementwise::composed),
        case("layer_cam", layer, arm(layer, Method::LayerCam), |a, g| {
            elementwise::composed(a, &g.relu())
        }),
        guided(layer),
    ]
}

/// A chain that `composed` makes the map of on the layer's grid.
fn case(
    op: &'static str,
    layer: Layer,
    medcam: Arm,
    composed: fn(&Tensor, &Tensor) -> Tensor,
) -> Case {
    let libtorch: Arm = Box::new(move |inputs| {
        let [activation, gradient] = inputs else { unreachable!("two inputs") };
        let map = composed(activation, gradient).to_kind(Kind::Float);
        drop(normalize::composed(&resample::to_input(&map, layer)));
    });
    let inputs = vec![layer.tensor(Values::Rectified), layer.tensor(Values::Signed)];
    Case { op, layer, inputs, written: layer.map_bytes(layer.input), medcam, libtorch }
}

fn guided(layer: Layer) -> Case {
    let libtorch: Arm = Box::new(move |inputs| {
        let [activation, gradient, guided] = inputs else { unreachable!("three inputs") };
        let map = project::composed(activation, &channel_weights::composed(gradient));
        drop(guided_product::composed(&map.to_kind(Kind::Float), guided, layer));
    });
    let guided = layer.map(layer.input, Values::Signed);
    Case {
        op: "guided_grad_cam",
        layer,
        inputs: vec![layer.tensor(Values::Rectified), layer.tensor(Values::Signed), guided],
        written: guided.bytes(),
        medcam: own_arm!(layer, guided_on_cpu, guided_on_cuda),
        libtorch,
    }
}

/// The arm of `method` on the layer's place.
fn arm(layer: Layer, method: Method) -> Arm {
    own_arm!(layer, on_cpu, on_cuda, method)
}

fn on_cpu<T: Scalar>(layer: Layer, method: Method) -> Arm {
    let recipe = recipe(layer, method);
    Box::new(move |inputs| {
        let [activation, gradient] = inputs else { unreachable!("two inputs") };
        let (activation, gradient) = (view::<T>(activation, &layer), view(gradient, &layer));
        let maps: Maps = cam(&activation, &gradient, &recipe).unwrap();
        black_box(maps);
    })
}

/// What [`fused::cuda::Pending::finish`] would tell is left aside, as libtorch's arm tells nothing.
fn on_cuda<T: Scalar>(layer: Layer, method: Method) -> Arm {
    let recipe = recipe(layer, method);
    cuda::arm(
        move |stream| stream.allocate::<f32>(voxels(layer)).unwrap(),
        move |stream, map, inputs| {
            let [a, g] = inputs else { unreachable!("two inputs") };
            let (a, g) = (cuda::view::<T>(a, &layer), cuda::view(g, &layer));
            drop(fused::cuda::cam(stream, &a, &g, &recipe, map.slice_mut()).unwrap());
        },
    )
}

fn guided_on_cpu<T: Scalar>(layer: Layer) -> Arm {
    let recipe = recipe(layer, Method::GradCam);
    Box::new(move |inputs| {
        let [activation, gradient, guided] = inputs else { unreachable!("three inputs") };
        let (activation, gradient) = (view::<T>(activation, &layer), view(gradient, &layer));
        let maps: Maps = guided_cam(&activation, &gradient, values(guided), &recipe).unwrap();
        black_box(maps);
    })
}

fn guided_on_cuda<T: Scalar>(layer: Layer) -> Arm {
    let recipe = recipe(layer, Method::GradCam);
    cuda::arm(
        move |stream| stream.allocate::<f32>(voxels(layer)).unwrap(),
        move |stream, map, inputs| {
            let [a, g, guided] = inputs else { unreachable!("three inputs") };
            let (a, g) = (cuda::view::<T>(a, &layer), cuda::view(g, &layer));
            let (guided, map) = (cuda::slice(guided), map.slice_mut());
            drop(fused::cuda::guided_cam(stream, &a, &g, guided, &recipe, map).unwrap());
        },
    )
}

/// Those of the finished map.
fn voxels(layer: Layer) -> usize {
    layer.map_bytes(layer.input) / size_of::<f32>()
}

fn recipe(layer: Layer, method: Method) -> Recipe {
    Recipe { to: Some(layer.input), ..Recipe::new(method) }
}
