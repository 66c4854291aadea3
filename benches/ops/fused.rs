//! The chains, from the gradient to the finished map on the grid of the input: activation and
//! gradient (and the guided map) are read once, the map is written once.

use std::hint::black_box;

use medcam::ops::{Denominator, Maps, Method, Recipe, cam, guided_cam};
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Place, Scalar, Values, own_arm, values, view};
use super::{
    alpha_weights, channel_weights, elementwise, guided_product, normalize, project, resample,
};

pub fn cases(layer: Layer) -> Vec<Case> {
    if layer.place == Place::Cuda {
        return Vec::new();
    }
    vec![
        case("grad_cam", layer, own_arm!(layer, grad_cam, grad_cam), |a, g| {
            project::composed(a, &channel_weights::composed(g))
        }),
        case("grad_cam_plus_plus", layer, own_arm!(layer, plus_plus, plus_plus), |a, g| {
            project::composed(a, &alpha_weights::composed(a, g))
        }),
        case("hires_cam", layer, own_arm!(layer, hires_cam, hires_cam), elementwise::composed),
        case("layer_cam", layer, own_arm!(layer, layer_cam, layer_cam), |a, g| {
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
        medcam: own_arm!(layer, guided_on_cpu, guided_on_cpu),
        libtorch,
    }
}

fn grad_cam<T: Scalar>(layer: Layer) -> Arm {
    on_cpu::<T>(layer, Method::GradCam)
}

fn plus_plus<T: Scalar>(layer: Layer) -> Arm {
    on_cpu::<T>(layer, Method::GradCamPlusPlus(Denominator::Paper))
}

fn hires_cam<T: Scalar>(layer: Layer) -> Arm {
    on_cpu::<T>(layer, Method::HiResCam)
}

fn layer_cam<T: Scalar>(layer: Layer) -> Arm {
    on_cpu::<T>(layer, Method::LayerCam)
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

fn guided_on_cpu<T: Scalar>(layer: Layer) -> Arm {
    let recipe = recipe(layer, Method::GradCam);
    Box::new(move |inputs| {
        let [activation, gradient, guided] = inputs else { unreachable!("three inputs") };
        let (activation, gradient) = (view::<T>(activation, &layer), view(gradient, &layer));
        let maps: Maps = guided_cam(&activation, &gradient, values(guided), &recipe).unwrap();
        black_box(maps);
    })
}

fn recipe(layer: Layer, method: Method) -> Recipe {
    Recipe { to: Some(layer.input), ..Recipe::new(method) }
}
