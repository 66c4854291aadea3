use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::project::{TOLERANCE, channel_mean_reference, reference, weighted_sum_reference};
use medcam::ops::{View, channel_mean, project, weighted_sum};
use medcam::{Layout, Shape};
use proptest::prelude::*;

use crate::common::*;

fn check<T: Element>(shape: Shape, magnitude: f32, seed: u64) {
    let data = values::<T>(shape.elements(), magnitude, seed);
    let weights = values::<f32>(shape.batch * shape.channels, 1.0, !seed);
    let (absolute_data, absolute_weights) = (absolute(&data), absolute(&weights));
    for layout in LAYOUTS {
        let view = View::new(&data, shape, layout).unwrap();
        let fast = on_any_threads(|| project(&weights, &view).unwrap());
        let scale = View::new(&absolute_data, shape, layout).unwrap();
        let scale = reference(&wide(&absolute_weights), &scale);
        // Each product may be rounded to a subnormal, half the least f32 away.
        let subnormal = 1e-45 * shape.channels as f64;
        let exact = reference(&wide(&weights), &view);
        assert_close(&fast, &exact, |i| TOLERANCE * scale[i] + subnormal);
        let singles: Vec<f32> = (0..shape.batch)
            .flat_map(|b| {
                let weights = &weights[b * shape.channels..][..shape.channels];
                project(weights, &sample(&view, b)).unwrap()
            })
            .collect();
        assert_eq!(bits(&fast), bits(&singles));

        let signed = on_any_threads(|| weighted_sum(&weights, &view).unwrap());
        let exact = weighted_sum_reference(&wide(&weights), &view);
        assert_close(&signed, &exact, |i| TOLERANCE * scale[i] + subnormal);
        let rectified: Vec<f32> =
            signed.iter().map(|&sum| if sum > 0.0 { sum } else { 0.0 }).collect();
        assert_eq!(bits(&fast), bits(&rectified));

        let mean = on_any_threads(|| channel_mean(&view).unwrap());
        let absolute = View::new(&absolute_data, shape, layout).unwrap();
        let scale = channel_mean_reference(&absolute);
        let exact = channel_mean_reference(&view);
        assert_close(&mean, &exact, |i| TOLERANCE * scale[i] + subnormal);
        let singles: Vec<f32> =
            (0..shape.batch).flat_map(|b| channel_mean(&sample(&view, b)).unwrap()).collect();
        assert_eq!(bits(&mean), bits(&singles));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn fast_is_reference_f32(shape in shapes(), size in magnitudes(1e35, 1e-38), seed: u64) {
        check::<f32>(shape, size, seed);
    }

    #[test]
    fn fast_is_reference_f16(shape in shapes(), size in magnitudes(6e4, 1e-7), seed: u64) {
        check::<f16>(shape, size, seed);
    }

    #[test]
    fn fast_is_reference_bf16(shape in shapes(), size in magnitudes(1e35, 1e-38), seed: u64) {
        check::<bf16>(shape, size, seed);
    }
}

/// The largest number of channels for which the tolerance is proven.
#[test]
fn many_channels() {
    check::<f32>(Shape::new(2, 2048, [1, 7, 7]).unwrap(), 1.0, 7);
}

#[test]
fn a_nan_stays_at_its_voxel() {
    let shape = Shape::new(1, 6, [1, 1, 37]).unwrap();
    for layout in LAYOUTS {
        for c in 0..6 {
            let mut data = vec![-1.0_f32; shape.elements()];
            let index = if layout == Layout::Contiguous { c * 37 + 36 } else { 36 * 6 + c };
            data[index] = f32::NAN;
            let view = View::new(&data, shape, layout).unwrap();
            let map = project(&[1.0; 6], &view).unwrap();
            assert!(map[36].is_nan());
            assert_eq!(map[..36], [0.0; 36]);
        }
    }
}

#[test]
fn the_mean_is_not_rectified() {
    let shape = Shape::new(1, 4, [1, 1, 2]).unwrap();
    let rows = [1.0_f32, -1.0, 2.0, -2.0, 3.0, -4.0, 4.0, f32::NEG_INFINITY];
    let mean = channel_mean(&View::new(&rows, shape, Layout::Contiguous).unwrap()).unwrap();
    assert_eq!(mean, [2.5, f32::NEG_INFINITY]);
}

#[test]
fn there_must_be_a_weight_per_sample_and_channel() {
    let shape = Shape::new(2, 2, [1, 1, 1]).unwrap();
    let view = View::new(&[0.0_f32; 4], shape, Layout::Contiguous).unwrap();
    let error = project(&[0.0; 3], &view).unwrap_err();
    assert!(error.is_input());
    assert_eq!(
        error.to_string(),
        "project: weights: (2, 2, 1, 1, 1) takes 4 values (B·C), it has 3"
    );
}
