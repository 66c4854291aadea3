//! The chains, from the gradient to the finished map on the grid of the input: activation and
//! gradient are read once, the map is written once.

use std::hint::black_box;

use medcam::ops::{Maps, Method, Recipe, cam};
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Scalar, Values, for_kind, view};
use super::{channel_weights, normalize, project, resample};

pub fn cases(layer: Layer) -> Vec<Case> {
    vec![Case {
        op: "grad_cam",
        layer,
        inputs: vec![layer.tensor(Values::Rectified), layer.tensor(Values::Signed)],
        written: layer.map_bytes(layer.input),
        medcam: for_kind!(layer.kind, cpu)(layer),
        libtorch: Box::new(move |inputs| {
            let [activation, gradient] = inputs else { unreachable!("two inputs") };
            let weights = channel_weights::composed(gradient);
            drop(finished(&project::composed(activation, &weights), layer));
        }),
    }]
}

fn cpu<T: Scalar>(layer: Layer) -> Arm {
    Box::new(move |inputs| {
        let [activation, gradient] = inputs else { unreachable!("two inputs") };
        let (activation, gradient) = (view::<T>(activation, &layer), view(gradient, &layer));
        let recipe = Recipe { to: Some(layer.input), ..Recipe::new(Method::GradCam) };
        let maps: Maps = cam(&activation, &gradient, &recipe).unwrap();
        black_box(maps);
    })
}

/// The map on the grid of the input, in f32, normalised.
fn finished(map: &Tensor, layer: Layer) -> Tensor {
    let map = map.to_kind(Kind::Float);
    let same = layer.shape.spatial == layer.input;
    normalize::composed(&if same { map } else { resample::composed(&map, layer.input) })
}
