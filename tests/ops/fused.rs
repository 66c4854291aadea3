use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::fused::{TOLERANCE, reference};
use medcam::ops::resample::resample_normalized;
use medcam::ops::{Interpolation, View, channel_weights, grad_cam, normalize, project, resample};
use medcam::{Layout, Shape};
use proptest::prelude::*;

use crate::common::*;

fn check<T: Element>(shape: Shape, to: Option<[usize; 3]>, seed: u64) {
    let (a, g) = (
        values::<T>(shape.elements(), 1.0, seed),
        values::<T>(shape.elements(), 1.0, seed.wrapping_add(1)),
    );
    let (absolute_a, absolute_g) = (absolute(&a), absolute(&g));
    for layout in LAYOUTS {
        let activation = View::new(&a, shape, layout).unwrap();
        let gradient = View::new(&g, shape, layout).unwrap();
        let voxels: usize = to.unwrap_or(shape.spatial).iter().product();

        let raw = on_any_threads(|| grad_cam(&activation, &gradient, to, false).unwrap());
        assert_eq!((raw.batch, raw.spatial), (shape.batch, to.unwrap_or(shape.spatial)));
        let scale = reference(
            &View::new(&absolute_a, shape, layout).unwrap(),
            &View::new(&absolute_g, shape, layout).unwrap(),
            None,
            false,
        );
        let scales: Vec<f64> = scale
            .chunks(shape.voxels())
            .map(|sample| sample.iter().copied().fold(0.0, f64::max))
            .collect();
        let exact = reference(&activation, &gradient, to, false);
        assert_close(&raw.values, &exact, |i| TOLERANCE * scales[i / voxels]);

        // The chain of the single ops.
        let weights = channel_weights(&gradient).unwrap();
        let map = project(&weights, &activation).unwrap();
        let to_grid = to.unwrap_or(shape.spatial);
        let grids = (shape.batch, shape.spatial, to_grid);
        let on_grid = resample(&map, grids.0, grids.1, grids.2, Interpolation::Linear).unwrap();
        assert_eq!(bits(&raw.values), bits(&on_grid));
        let (unit, ranges) =
            resample_normalized(&map, grids.0, grids.1, grids.2, Interpolation::Linear).unwrap();
        let fused = on_any_threads(|| grad_cam(&activation, &gradient, to, true).unwrap());
        assert_eq!(bits(&fused.values), bits(&unit));
        assert_eq!((&fused.ranges, &raw.ranges), (&ranges, &ranges));

        let exact = reference(&activation, &gradient, to, true);
        let bound = |i: usize| {
            let range = ranges[i / voxels];
            let width = f64::from(range.maximum) - f64::from(range.minimum);
            2.0 * TOLERANCE * scales[i / voxels] / width + normalize::TOLERANCE
        };
        // A constant map has no width, and any rounding can make it one.
        if ranges.iter().all(|range| range.maximum > range.minimum) && voxels > 1 {
            assert_close(&fused.values, &exact, bound);
        }
        for b in 0..shape.batch {
            let single =
                grad_cam(&sample(&activation, b), &sample(&gradient, b), to, true).unwrap();
            assert_eq!(bits(&fused.values[b * voxels..][..voxels]), bits(&single.values));
            assert_eq!(fused.ranges[b], single.ranges[0]);
        }
    }
}

fn targets() -> impl Strategy<Value = Option<[usize; 3]>> {
    prop::option::of(prop::array::uniform3(1..30_usize))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn fused_is_reference_f32(shape in shapes(), to in targets(), seed: u64) {
        check::<f32>(shape, to, seed);
    }

    #[test]
    fn fused_is_reference_f16(shape in shapes(), to in targets(), seed: u64) {
        check::<f16>(shape, to, seed);
    }

    #[test]
    fn fused_is_reference_bf16(shape in shapes(), to in targets(), seed: u64) {
        check::<bf16>(shape, to, seed);
    }
}

#[test]
fn zero_and_constant_tensors_give_a_map_of_0() {
    let shape = Shape::new(2, 3, [2, 3, 4]).unwrap();
    let count = shape.elements();
    for (a, g) in [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, -1.0), (1e-30, 1e-30)] {
        let (a, g) = (vec![a; count], vec![g; count]);
        let activation = View::new(&a, shape, Layout::Contiguous).unwrap();
        let gradient = View::new(&g, shape, Layout::ChannelsLast).unwrap();
        let maps = grad_cam(&activation, &gradient, Some([4, 6, 8]), true).unwrap();
        assert_eq!(maps.values, vec![0.0_f32; 2 * 4 * 6 * 8]);
    }
}

/// Not finite anywhere is an error: behind ReLU, at voxels that resampling leaves out, and in
/// sums of finite values.
#[test]
fn not_finite_is_an_error_that_names_the_sample() {
    let shape = Shape::new(2, 3, [1, 2, 5]).unwrap();
    let message = |a: &[f32], g: &[f32], to, normalized| {
        let activation = View::new(a, shape, Layout::Contiguous).unwrap();
        let gradient = View::new(g, shape, Layout::Contiguous).unwrap();
        let error = grad_cam(&activation, &gradient, to, normalized).unwrap_err();
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
    let error = grad_cam(&activation, &gradient, None, true).unwrap_err();
    assert!(error.is_input());
    assert_eq!(
        error.to_string(),
        "grad_cam: gradient: its shape (1, 4, 1, 2, 1) is not that of the activation, \
         (1, 2, 1, 2, 2)"
    );
    let error = grad_cam(&activation, &activation, Some([1, 0, 4]), true).unwrap_err();
    assert!(error.to_string().starts_with("grad_cam: to: "));
}
