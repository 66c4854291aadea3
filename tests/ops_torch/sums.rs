//! Sums over voxels and over channels.

use super::*;

fn weights_are_means<T: Element>(shape: Shape, magnitude: f32, seed: u64) {
    let gradient = Both::<T>::new(shape, magnitude, seed);
    let scale = numbers(&gradient.in_precision(Kind::Double).abs().mean_dim(
        &SPACE[..],
        false,
        Kind::Double,
    ));
    for (kind, theirs) in PRECISIONS {
        let expected = numbers(&gradient.in_precision(kind).mean_dim(&SPACE[..], false, kind));
        let bound = |i: usize| (channel_weights::TOLERANCE + theirs * LIBTORCH_MEAN) * scale[i];
        for view in gradient.views() {
            assert_close(&channel_weights(&view).unwrap(), &expected, bound);
        }
    }
}

/// A map that sums over the channels: the same from `ours` as from libtorch's `terms`, rectified or
/// not. `ours` takes the number of a layout.
fn maps_are_sums<T: Element>(
    tensor: &Both<T>,
    tolerance: f64,
    terms: impl Fn(Kind) -> Tensor,
    rectified: bool,
    ours: impl Fn(usize) -> Vec<f32>,
) {
    let sum = |terms: Tensor, kind| terms.sum_dim_intlist(&CHANNELS[..], false, kind);
    let scale = numbers(&sum(terms(Kind::Double).abs(), Kind::Double));
    for (kind, theirs) in PRECISIONS {
        let sums = sum(terms(kind), kind);
        let expected = numbers(&if rectified { sums.relu() } else { sums });
        let tolerance = tolerance + theirs * libtorch_sum(tensor.shape.channels);
        for layout in 0..LAYOUTS.len() {
            assert_close(&ours(layout), &expected, |i| tolerance * scale[i]);
        }
    }
}

fn projections_are_sums<T: Element>(shape: Shape, magnitude: f32, seed: u64) {
    let activation = Both::<T>::new(shape, magnitude, seed);
    let weights = values::<f32>(shape.batch * shape.channels, 1.0, seed.wrapping_add(1));
    let weighted = |kind| {
        let weights = tensor(&weights, shape.batch, shape.channels, [1, 1, 1]);
        activation.in_precision(kind) * weights.to_kind(kind)
    };
    let tolerance = project::TOLERANCE;
    let views = activation.views();
    let map = |layout: usize| project(&weights, &views[layout]).unwrap();
    maps_are_sums(&activation, tolerance, weighted, true, map);
    let shared = |kind| activation.in_precision(kind) / shape.channels as f64;
    let mean = |layout: usize| channel_mean(&views[layout]).unwrap();
    maps_are_sums(&activation, tolerance, shared, false, mean);
}

fn elementwise_maps_are_sums<T: Element>(shape: Shape, magnitude: f32, seed: u64) {
    let activation = Both::<T>::new(shape, magnitude, seed);
    let gradient = Both::<T>::new(shape, 1.0, seed.wrapping_add(1));
    for method in [Elementwise::HiResCam, Elementwise::LayerCam] {
        let terms = |kind| {
            let gradient = gradient.in_precision(kind);
            let gradient = if method == Elementwise::LayerCam { gradient.relu() } else { gradient };
            activation.in_precision(kind) * gradient
        };
        let map = |layout: usize| {
            elementwise(&activation.views()[layout], &gradient.views()[layout], method).unwrap()
        };
        maps_are_sums(&activation, elementwise::TOLERANCE, terms, true, map);
    }
}

/// In double alone: in single precision a denominator near 0 leaves nothing to compare.
///
/// Beside gradients of 0.1 an epsilon is small, beside the square of 1e-4 it is large.
fn alpha_weights_are_their_formula<T: Element>(shape: Shape, magnitude: f32, seed: u64) {
    let activation = Both::<T>::new(shape, 1.0, seed);
    let gradient = Both::<T>::new(shape, magnitude, seed.wrapping_add(1));
    let (a, g) = (activation.in_precision(Kind::Double), gradient.in_precision(Kind::Double));
    let positive = g.relu();
    for (denominator, epsilon) in [
        (Denominator::Paper, 0.0),
        (Denominator::M3dCam, 0.0),
        (Denominator::PaperEpsilon, 1e-6),
        (Denominator::M3dCamEpsilon, 1e-7),
    ] {
        let all = |terms: Tensor| terms.sum_dim_intlist(&SPACE[..], true, Kind::Double);
        let cubed = &g * &g * &g;
        let d = match denominator {
            Denominator::Paper | Denominator::PaperEpsilon => all(a.shallow_clone()) * cubed,
            Denominator::M3dCam | Denominator::M3dCamEpsilon => all(&a * cubed),
        };
        let d = &g * &g * 2.0 + d + epsilon;
        let d = d.where_self(&d.not_equal(0.0), &d.ones_like());
        let expected = numbers(&all(&g * &g / d * &positive));
        for (a, g) in activation.views().iter().zip(&gradient.views()) {
            let weights = alpha_weights(a, g, denominator).unwrap();
            let bound = alpha_weights::bound(a, g, denominator);
            assert_close(&weights, &expected, |i| bound[i]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn channel_weights_are_means(shape in shapes(), seed: u64) {
        weights_are_means::<f32>(shape, 1.0, seed);
        weights_are_means::<f16>(shape, 1.0, seed);
        weights_are_means::<bf16>(shape, 1e30, seed);
    }

    #[test]
    fn project_and_channel_mean_are_sums(shape in shapes(), seed: u64) {
        projections_are_sums::<f32>(shape, 1.0, seed);
        projections_are_sums::<f16>(shape, 1.0, seed);
        projections_are_sums::<bf16>(shape, 1e30, seed);
    }

    #[test]
    fn elementwise_is_a_rectified_sum(shape in shapes(), seed: u64) {
        elementwise_maps_are_sums::<f32>(shape, 1.0, seed);
        elementwise_maps_are_sums::<f16>(shape, 1.0, seed);
        elementwise_maps_are_sums::<bf16>(shape, 1e30, seed);
    }

    #[test]
    fn alpha_weights_are_their_formula_in_double(
        shape in shapes(),
        magnitude in prop::sample::select(vec![0.1_f32, 1e-4]),
        seed: u64,
    ) {
        alpha_weights_are_their_formula::<f32>(shape, magnitude, seed);
        alpha_weights_are_their_formula::<f16>(shape, magnitude, seed);
        alpha_weights_are_their_formula::<bf16>(shape, magnitude, seed);
    }
}
