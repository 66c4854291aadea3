use half::{bf16, f16};
use medcam::element::{Element, MapElement};
use medcam::ops::fused::{TOLERANCE, reference};
use medcam::ops::{
    Denominator, Elementwise, Interpolation, Maps, Method, Recipe, Resize, View, alpha_weights,
    cam, channel_weights, elementwise, guided_cam, guided_product, normalize, project, resample,
};
use medcam::{Layout, Shape};
use proptest::prelude::*;

use crate::common::*;

const METHODS: [Method; 7] = [
    Method::GradCam,
    Method::GradCamPlusPlus(Denominator::Paper),
    Method::GradCamPlusPlus(Denominator::M3dCam),
    Method::GradCamPlusPlus(Denominator::PaperEpsilon),
    Method::GradCamPlusPlus(Denominator::M3dCamEpsilon),
    Method::HiResCam,
    Method::LayerCam,
];

/// The map on the layer's grid, by the single ops.
fn layer_map<T: Element>(method: Method, activation: &View<T>, gradient: &View<T>) -> Vec<f32> {
    let weights = match method {
        Method::GradCam => channel_weights(gradient).unwrap(),
        Method::GradCamPlusPlus(denominator) => {
            alpha_weights(activation, gradient, denominator).unwrap()
        }
        Method::HiResCam => {
            return elementwise(activation, gradient, Elementwise::HiResCam).unwrap();
        }
        Method::LayerCam => {
            return elementwise(activation, gradient, Elementwise::LayerCam).unwrap();
        }
    };
    project(&weights, activation).unwrap()
}

/// A chain gives the bits of its single ops, for each sample alone too.
fn check_chain<T: Element>(method: Method, shape: Shape, to: Option<[usize; 3]>, seed: u64) {
    let (a, g) = (
        values::<T>(shape.elements(), 1.0, seed),
        values::<T>(shape.elements(), 1.0, seed.wrapping_add(1)),
    );
    let grid = to.unwrap_or(shape.spatial);
    let voxels: usize = grid.iter().product();
    let guided = values::<f32>(shape.batch * voxels, 1.0, seed.wrapping_add(2));
    let recipe = Recipe { to, ..Recipe::new(method) };
    let plain = Recipe { normalized: false, ..recipe };
    for layout in LAYOUTS {
        let activation = View::new(&a, shape, layout).unwrap();
        let gradient = View::new(&g, shape, layout).unwrap();
        let small = layer_map(method, &activation, &gradient);

        let raw: Maps = on_any_threads(|| cam(&activation, &gradient, &plain).unwrap());
        assert_eq!((raw.batch, raw.spatial), (shape.batch, grid));
        let (batch, from) = (shape.batch, shape.spatial);
        let linear = Interpolation::Linear;
        let map = resample(&small, Resize { batch, from, to: grid }, linear).unwrap();
        assert_eq!(bits(&raw.values), bits(&map));

        let maps: Maps = on_any_threads(|| cam(&activation, &gradient, &recipe).unwrap());
        let (unit, ranges) =
            resample::resample_normalized::<f32>(&small, Resize { batch, from, to: grid }, linear)
                .unwrap();
        assert_eq!(bits(&maps.values), bits(&unit));
        assert_eq!((&maps.ranges, &raw.ranges), (&ranges, &ranges));
        let bytes: Maps<u8> = cam(&activation, &gradient, &recipe).unwrap();
        let halves: Maps<f16> = cam(&activation, &gradient, &recipe).unwrap();
        assert_eq!(bytes.values, narrowed::<u8>(&maps.values));
        assert_eq!(halves.values, narrowed::<f16>(&maps.values));

        let product: Maps = guided_cam(&activation, &gradient, &guided, &recipe).unwrap();
        let (expected, ranges) =
            guided_product(&small, &guided, Resize { batch, from, to: grid }).unwrap();
        assert_eq!((bits(&product.values), product.ranges), (bits(&expected), ranges));

        for b in 0..batch {
            let single: Maps =
                cam(&sample(&activation, b), &sample(&gradient, b), &recipe).unwrap();
            assert_eq!(bits(&maps.values[b * voxels..][..voxels]), bits(&single.values));
            assert_eq!(maps.ranges[b], single.ranges[0]);
        }
    }
}

fn narrowed<O: MapElement>(values: &[f32]) -> Vec<O> {
    let mut out = O::zeros(values.len());
    O::fill(&mut out, &mut Vec::new(), |i| values[i]);
    out
}

/// Grad-CAM, whose error is bounded for any values, is within it of the references.
fn check_reference<T: Element>(shape: Shape, to: Option<[usize; 3]>, seed: u64) {
    let (a, g) = (
        values::<T>(shape.elements(), 1.0, seed),
        values::<T>(shape.elements(), 1.0, seed.wrapping_add(1)),
    );
    let (absolute_a, absolute_g) = (absolute(&a), absolute(&g));
    let recipe = Recipe { to, ..Recipe::new(Method::GradCam) };
    let plain = Recipe { normalized: false, ..recipe };
    for layout in LAYOUTS {
        let activation = View::new(&a, shape, layout).unwrap();
        let gradient = View::new(&g, shape, layout).unwrap();
        let voxels: usize = to.unwrap_or(shape.spatial).iter().product();
        let scale = reference(
            &View::new(&absolute_a, shape, layout).unwrap(),
            &View::new(&absolute_g, shape, layout).unwrap(),
            &Recipe { to: None, ..plain },
        );
        let scales: Vec<f64> = scale
            .chunks(shape.voxels())
            .map(|sample| sample.iter().copied().fold(0.0, f64::max))
            .collect();
        let raw: Maps = cam(&activation, &gradient, &plain).unwrap();
        let exact = reference(&activation, &gradient, &plain);
        assert_close(&raw.values, &exact, |i| TOLERANCE * scales[i / voxels]);

        let maps: Maps = cam(&activation, &gradient, &recipe).unwrap();
        let exact = reference(&activation, &gradient, &recipe);
        let bound = |i: usize| {
            let range = maps.ranges[i / voxels];
            let width = f64::from(range.maximum) - f64::from(range.minimum);
            2.0 * TOLERANCE * scales[i / voxels] / width + normalize::TOLERANCE
        };
        // A constant map has no width, and any rounding can make it one.
        if maps.ranges.iter().all(|range| range.maximum > range.minimum) && voxels > 1 {
            assert_close(&maps.values, &exact, bound);
        }
    }
}

fn targets() -> impl Strategy<Value = Option<[usize; 3]>> {
    prop::option::of(prop::array::uniform3(1..30_usize))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_chain_is_its_ops_f32(
        method in prop::sample::select(METHODS.to_vec()),
        shape in shapes(),
        to in targets(),
        seed: u64,
    ) {
        check_chain::<f32>(method, shape, to, seed);
    }

    #[test]
    fn a_chain_is_its_ops_f16(
        method in prop::sample::select(METHODS.to_vec()),
        shape in shapes(),
        to in targets(),
        seed: u64,
    ) {
        check_chain::<f16>(method, shape, to, seed);
    }

    #[test]
    fn grad_cam_is_reference_f32(shape in shapes(), to in targets(), seed: u64) {
        check_reference::<f32>(shape, to, seed);
    }

    #[test]
    fn grad_cam_is_reference_bf16(shape in shapes(), to in targets(), seed: u64) {
        check_reference::<bf16>(shape, to, seed);
    }
}

#[test]
fn zero_and_constant_tensors_give_a_map_of_0() {
    let shape = Shape::new(2, 3, [2, 3, 4]).unwrap();
    let count = shape.elements();
    for method in METHODS {
        for (a, g) in [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, -1.0), (1e-30, 1e-30)] {
            let (a, g) = (vec![a; count], vec![g; count]);
            let activation = View::new(&a, shape, Layout::Contiguous).unwrap();
            let layout = match method {
                Method::GradCam => Layout::ChannelsLast,
                _ => Layout::Contiguous,
            };
            let gradient = View::new(&g, shape, layout).unwrap();
            let recipe = Recipe { to: Some([4, 6, 8]), ..Recipe::new(method) };
            let maps: Maps = cam(&activation, &gradient, &recipe).unwrap();
            assert_eq!(maps.values, vec![0.0_f32; 2 * 4 * 6 * 8], "{method:?}");
        }
    }
}

/// A value that is not finite is an error anywhere: behind ReLU, at voxels that resampling leaves out, and in
/// sums of finite values.
#[test]
fn not_finite_is_an_error_that_names_the_sample() {
    let shape = Shape::new(2, 3, [1, 2, 5]).unwrap();
    let message = |a: &[f32], g: &[f32], to, normalized| {
        let activation = View::new(a, shape, Layout::Contiguous).unwrap();
        let gradient = View::new(g, shape, Layout::Contiguous).unwrap();
        let recipe = Recipe { method: Method::GradCam, to, normalized };
        let error = cam::<_, f32>(&activation, &gradient, &recipe).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    let ones = vec![1.0_f32; shape.elements()];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (to, normalized) in [(None, false), (None, true), (Some([1, 1, 1]), false)] {
            let mut spoilt = ones.clone();
            spoilt[30 + 10] = bad;
            assert_eq!(
                message(&spoilt, &ones, to, normalized),
                "grad_cam: 1 of the 10 voxels of sample 1 are not finite in the activation, \
                 or its product with the gradient"
            );
            assert_eq!(
                message(&ones, &spoilt, to, normalized),
                "grad_cam: 1 of the 3 channels of sample 1 are not finite in the gradient"
            );
        }
    }
    let huge = vec![3e30_f32; shape.elements()];
    assert!(message(&huge, &huge, None, false).contains("10 of the 10 voxels of sample 0"));
}

#[test]
fn bad_shapes_are_errors() {
    let shape = Shape::new(1, 2, [1, 2, 2]).unwrap();
    let other = Shape::new(1, 4, [1, 2, 1]).unwrap();
    let data = [0.0_f32; 8];
    let activation = View::new(&data, shape, Layout::Contiguous).unwrap();
    let gradient = View::new(&data, other, Layout::Contiguous).unwrap();
    let recipe = Recipe::new(Method::HiResCam);
    let error = cam::<_, f32>(&activation, &gradient, &recipe).unwrap_err();
    assert!(error.is_input());
    assert_eq!(
        error.to_string(),
        "hires_cam: gradient: its shape (1, 4, 1, 2, 1) is not that of the activation, \
         (1, 2, 1, 2, 2)"
    );
    let empty = Recipe { to: Some([1, 0, 4]), ..recipe };
    let error = cam::<_, f32>(&activation, &activation, &empty).unwrap_err();
    assert!(error.to_string().starts_with("hires_cam: to: "));
    let plain = Recipe { normalized: false, ..recipe };
    let error = cam::<_, u8>(&activation, &activation, &plain).unwrap_err();
    assert_eq!(
        error.to_string(),
        "hires_cam: recipe: u8 holds [0, 1] alone; ask for a normalised map, or for f32 or f16"
    );
    let error = guided_cam::<_, f32>(&activation, &activation, &[1.0; 3], &recipe).unwrap_err();
    assert!(error.to_string().contains("guided"), "{error}");
}

/// `f16` holds up to 65504.
#[test]
fn a_map_that_its_type_does_not_hold_is_an_error() {
    let shape = Shape::new(2, 1, [1, 1, 2]).unwrap();
    let activation = View::new(&[1.0_f32, 2.0, 1e3, 2e3], shape, Layout::Contiguous).unwrap();
    let gradient = View::new(&[64.0_f32; 4], shape, Layout::Contiguous).unwrap();
    let recipe = Recipe { normalized: false, ..Recipe::new(Method::GradCam) };
    let expected = "grad_cam: the map of sample 1 goes from 64000 to 128000, and its type up to \
                    65504; ask for a normalised map, or for f32";
    let error = cam::<_, f16>(&activation, &gradient, &recipe).unwrap_err();
    assert!(error.is_input());
    assert_eq!(error.to_string(), expected);
    let error = guided_cam::<_, f16>(&activation, &gradient, &[1.0; 4], &recipe).unwrap_err();
    assert_eq!(error.to_string(), expected);
    // The limit holds for products below 0 too.
    assert!(guided_cam::<_, f16>(&activation, &gradient, &[-1.0; 4], &recipe).is_err());
    let maps: Maps<f32> = cam(&activation, &gradient, &recipe).unwrap();
    assert_eq!(maps.values, [64.0, 128.0, 64e3, 128e3]);
    let maps: Maps<f16> = cam(&activation, &gradient, &Recipe::new(Method::GradCam)).unwrap();
    assert_eq!(maps.values, [0.0, 1.0, 0.0, 1.0].map(f16::from_f32));
}
