//! The ops on the CPU against libtorch's own, on odd sizes, both layouts and all element types.
//!
//! libtorch gets the same values, widened, in double and in single precision. In double its own
//! error is nothing beside ours, and the tolerance is that of the op. In single precision its error
//! adds to it: `LIBTORCH_*` say how much.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "ops/common.rs"]
#[allow(dead_code, reason = "shared with the tests of the ops")]
mod common;

use common::*;
use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::{
    Denominator, Elementwise, Interpolation, Resize, View, alpha_weights, channel_mean,
    channel_weights, elementwise, guided_activation, guided_product, normalize, project, resample,
};
use medcam::tch::{Kind, Tensor};
use medcam::{Layout, Shape};
use proptest::prelude::*;

/// A unit in the last place of f32, at 1.
const ROUNDING: f64 = 1.0 / (1_u64 << 24) as f64;

/// A mean of up to 2^20 values, relative to the mean of their magnitudes: libtorch adds in four
/// levels of at most 32 values each, and lanes and the quotient come on top.
const LIBTORCH_MEAN: f64 = 160.0 * ROUNDING;

/// A weighted sum of `channels`, relative to the sum of the magnitudes, in any order of additions.
fn libtorch_sum(channels: usize) -> f64 {
    (channels + 1) as f64 * ROUNDING
}

/// Interpolation along an axis of `from` voxels, relative to the greatest magnitude. libtorch works
/// out the position in f32, three roundings of a number of up to `from`, of which the weight of
/// either neighbour is the fraction; two products and a sum follow.
fn libtorch_linear(from: [usize; 3]) -> f64 {
    from.iter().map(|&from| (2 * 3 * from + 3) as f64 * ROUNDING).sum()
}

/// Two differences and a quotient.
const LIBTORCH_NORMALIZE: f64 = 3.0 * ROUNDING;

/// The precisions that libtorch computes in, and how much of its own error counts.
const PRECISIONS: [(Kind, f64); 2] = [(Kind::Double, 0.0), (Kind::Float, 1.0)];

/// A tensor `(B, C, D, H, W)` as medcam has it, in both layouts, and as libtorch has it.
struct Both<T> {
    shape: Shape,
    data: [Vec<T>; 2],
    tensor: Tensor,
}

impl<T: Element> Both<T> {
    fn new(shape: Shape, magnitude: f32, seed: u64) -> Self {
        let rows = values::<T>(shape.elements(), magnitude, seed);
        let wide: Vec<f32> = rows.iter().map(|value| value.to_f32()).collect();
        let tensor = tensor(&wide, shape.batch, shape.channels, shape.spatial);
        let columns = numbers(&tensor.permute([0, 2, 3, 4, 1]));
        #[expect(clippy::cast_possible_truncation, reason = "widened before")]
        let columns = columns.into_iter().map(|value| T::from_f32(value as f32)).collect();
        Self { shape, data: [rows, columns], tensor }
    }

    fn views(&self) -> [View<'_, T>; 2] {
        let [rows, columns] = &self.data;
        [(rows, Layout::Contiguous), (columns, Layout::ChannelsLast)]
            .map(|(data, layout)| View::new(data, self.shape, layout).unwrap())
    }

    fn in_precision(&self, kind: Kind) -> Tensor {
        self.tensor.to_kind(kind)
    }
}

fn extents(numbers: &[usize]) -> Vec<i64> {
    numbers.iter().map(|&extent| i64::try_from(extent).unwrap()).collect()
}

fn tensor(values: &[f32], batch: usize, channels: usize, [d, h, w]: [usize; 3]) -> Tensor {
    Tensor::from_slice(values).reshape(extents(&[batch, channels, d, h, w]))
}

/// All values in order; f32 is widened exactly.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

const CHANNELS: [i64; 1] = [1];
const SPACE: [i64; 3] = [2, 3, 4];

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
fn alpha_weights_are_their_formula<T: Element>(shape: Shape, seed: u64) {
    let activation = Both::<T>::new(shape, 1.0, seed);
    let gradient = Both::<T>::new(shape, 0.1, seed.wrapping_add(1));
    let (a, g) = (activation.in_precision(Kind::Double), gradient.in_precision(Kind::Double));
    let positive = g.relu();
    for denominator in [Denominator::Paper, Denominator::M3dCam] {
        let all = |terms: Tensor| terms.sum_dim_intlist(&SPACE[..], true, Kind::Double);
        let cubed = &g * &g * &g;
        let d = match denominator {
            Denominator::Paper => all(a.shallow_clone()) * cubed,
            Denominator::M3dCam => all(&a * cubed),
        };
        let d = &g * &g * 2.0 + d;
        let d = d.where_self(&d.not_equal(0.0), &d.ones_like());
        let expected = numbers(&all(&g * &g / d * &positive));
        for (a, g) in activation.views().iter().zip(&gradient.views()) {
            let weights = alpha_weights(a, g, denominator).unwrap();
            let bound = alpha_weights::bound(a, g, denominator);
            assert_close(&weights, &expected, |i| bound[i]);
        }
    }
}

/// Maps of one channel: `to` is libtorch's, and ours in three dimensions.
fn resampled(map: &Tensor, to: [usize; 3], interpolation: Interpolation) -> Tensor {
    let flat = map.size()[2] == 1 && to[0] == 1;
    let to = extents(&to);
    match (interpolation, flat) {
        (Interpolation::Linear, true) => {
            map.squeeze_dim(2).upsample_bilinear2d(&to[1..], false, None, None)
        }
        (Interpolation::Linear, false) => map.upsample_trilinear3d(&to, false, None, None, None),
        (Interpolation::Nearest, true) => {
            map.squeeze_dim(2).internal_upsample_nearest_exact2d(&to[1..], None, None)
        }
        (Interpolation::Nearest, false) => {
            map.internal_upsample_nearest_exact3d(&to, None, None, None)
        }
    }
}

/// Whether a voxel of the new grid lies on the border of two of the old one, along any axis. There
/// libtorch, whose positions are f32, may take either.
fn on_border(index: usize, from: [usize; 3], to: [usize; 3]) -> bool {
    let mut rest = index % to.iter().product::<usize>();
    (0..3).rev().any(|axis| {
        let d = rest % to[axis];
        rest /= to[axis];
        ((2 * d + 1) * from[axis]).is_multiple_of(2 * to[axis])
    })
}

fn resampling_is_upsample(
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    magnitude: f32,
    seed: u64,
) {
    let map = values::<f32>(batch * from.iter().product::<usize>(), magnitude, seed);
    let theirs = tensor(&map, batch, 1, from);
    let linear = resample(&map, Resize { batch, from, to }, Interpolation::Linear).unwrap();
    for (kind, own) in PRECISIONS {
        let expected = numbers(&resampled(&theirs.to_kind(kind), to, Interpolation::Linear));
        let tolerance = resample::TOLERANCE + own * libtorch_linear(from);
        assert_close(&linear, &expected, |_| tolerance * f64::from(magnitude));
    }
    let nearest = resample(&map, Resize { batch, from, to }, Interpolation::Nearest).unwrap();
    let expected = numbers(&resampled(&theirs, to, Interpolation::Nearest));
    for (i, (&value, expected)) in nearest.iter().zip(expected).enumerate() {
        assert!(f64::from(value) == expected || on_border(i, from, to), "{i}: {value} {expected}");
    }
}

/// Against libtorch in double, so that the op's own error alone counts.
fn guided_products_are_products(batch: usize, from: [usize; 3], to: [usize; 3], seed: u64) {
    let map = values::<f32>(batch * from.iter().product::<usize>(), 1.0, seed);
    let guided = values::<f32>(batch * to.iter().product::<usize>(), 1.0, !seed);
    let double = |values, grid| tensor(values, batch, 1, grid).to_kind(Kind::Double);
    let upsampled = resampled(&double(&map, from), to, Interpolation::Linear);
    let upsampled = upsampled.reshape(extents(&[batch, 1, to[0], to[1], to[2]]));
    let expected = upsampled * double(&guided, to);

    let mut product = vec![0.0_f32; guided.len()];
    guided_product::guided_product_into(
        &map,
        &guided,
        Resize { batch, from, to },
        None,
        &mut product,
    )
    .unwrap();
    let greatest = map.iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    let bound = |i: usize| guided_product::TOLERANCE * f64::from(greatest * guided[i].abs());
    assert_close(&product, &numbers(&expected), bound);

    let flat = expected.reshape(extents(&[batch, guided.len() / batch]));
    let (minimum, maximum) = (flat.amin([1_i64], true), flat.amax([1_i64], true));
    let width = numbers(&(&maximum - &minimum));
    let unit = ((&flat - &minimum) / (maximum - minimum)).nan_to_num(0.0, None, None);
    let (product, _) = guided_product::<f32>(&map, &guided, Resize { batch, from, to }).unwrap();
    assert_close(&product, &numbers(&unit), |i| {
        let sample = i / (guided.len() / batch);
        2.0 * guided_product::TOLERANCE * f64::from(greatest) / width[sample] + normalize::TOLERANCE
    });
}

fn normalisation_is_min_max(batch: usize, voxels: usize, magnitude: f32, seed: u64) {
    let mut map = values::<f32>(batch * voxels, magnitude, seed);
    let theirs = Tensor::from_slice(&map).reshape(extents(&[batch, voxels]));
    normalize(&mut map, batch).unwrap();
    for (kind, own) in PRECISIONS {
        let theirs = theirs.to_kind(kind);
        let (minimum, maximum) = (theirs.amin([1_i64], true), theirs.amax([1_i64], true));
        // A map of one value is 0 with us, and 0 / 0 with them.
        let expected = ((&theirs - &minimum) / (maximum - &minimum)).nan_to_num(0.0, None, None);
        let tolerance = normalize::TOLERANCE + own * LIBTORCH_NORMALIZE;
        assert_close(&map, &numbers(&expected), |_| tolerance);
    }
}

fn guidance_is_threshold_backward<T: Element>(kind: Kind, count: usize, seed: u64) {
    let with_every_kind = |seed, step| {
        let mut values = values::<T>(count, 1.0, seed);
        let kinds = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for (i, value) in values.iter_mut().enumerate().step_by(step) {
            *value = T::from_f32(kinds[i * 7 % 5]);
        }
        values
    };
    let (input, gradient) = (with_every_kind(seed, 3), with_every_kind(seed / 5, 2));
    let theirs = |values: &[T]| {
        let wide: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
        Tensor::from_slice(&wide).to_kind(kind)
    };
    let expected = theirs(&input).threshold_backward(&theirs(&gradient), 0.0).relu();
    let mut output = gradient.clone();
    guided_activation::in_place(&input, &mut output).unwrap();
    for (i, (value, expected)) in output.iter().zip(numbers(&expected)).enumerate() {
        let value = f64::from(value.to_f32());
        assert!(value == expected || (value.is_nan() && expected.is_nan()), "{i} {kind:?}");
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
    fn alpha_weights_are_their_formula_in_double(shape in shapes(), seed: u64) {
        alpha_weights_are_their_formula::<f32>(shape, seed);
        alpha_weights_are_their_formula::<f16>(shape, seed);
        alpha_weights_are_their_formula::<bf16>(shape, seed);
    }

    #[test]
    fn resample_is_upsample(
        batch in prop::sample::select(vec![1_usize, 3]),
        from in prop::array::uniform3(1..14_usize),
        to in prop::array::uniform3(1..40_usize),
        flat: bool,
        size in magnitudes(1e30, 1e-30),
        seed: u64,
    ) {
        let keep = |[d, h, w]: [usize; 3]| if flat { [1, h, w] } else { [d, h, w] };
        resampling_is_upsample(batch, keep(from), keep(to), size, seed);
    }

    #[test]
    fn guided_product_is_upsample_times_guided(
        batch in prop::sample::select(vec![1_usize, 3]),
        from in prop::array::uniform3(1..14_usize),
        to in prop::array::uniform3(1..40_usize),
        flat: bool,
        seed: u64,
    ) {
        let keep = |[d, h, w]: [usize; 3]| if flat { [1, h, w] } else { [d, h, w] };
        guided_products_are_products(batch, keep(from), keep(to), seed);
    }

    #[test]
    fn normalize_is_min_max(
        batch in prop::sample::select(vec![1_usize, 3]),
        voxels in prop::sample::select(vec![1_usize, 31, 1025, 2184, 70_001]),
        size in magnitudes(1e30, 1e-30),
        seed: u64,
    ) {
        normalisation_is_min_max(batch, voxels, size, seed);
    }

    #[test]
    fn guided_activation_is_threshold_backward(
        count in prop::sample::select(vec![1_usize, 31, 33, 1025, 70_001]),
        seed: u64,
    ) {
        guidance_is_threshold_backward::<f32>(Kind::Float, count, seed);
        guidance_is_threshold_backward::<f16>(Kind::Half, count, seed);
        guidance_is_threshold_backward::<bf16>(Kind::BFloat16, count, seed);
    }
}
