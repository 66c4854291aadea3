use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::channel_weights::{TOLERANCE, cancel, reference};
use medcam::ops::{View, channel_weights};
use medcam::{Layout, Shape};
use proptest::prelude::*;

use crate::common::*;

fn check<T: Element>(shape: Shape, magnitude: f32, seed: u64) {
    let data = values::<T>(shape.elements(), magnitude, seed);
    let absolute = absolute(&data);
    for layout in LAYOUTS {
        let view = View::new(&data, shape, layout).unwrap();
        let fast = on_any_threads(|| channel_weights(&view).unwrap());
        let scale = reference(&View::new(&absolute, shape, layout).unwrap());
        assert_close(&fast, &reference(&view), |i| TOLERANCE * scale[i]);
        let singles: Vec<f32> =
            (0..shape.batch).flat_map(|b| channel_weights(&sample(&view, b)).unwrap()).collect();
        assert_eq!(bits(&fast), bits(&singles));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn fast_is_reference_f32(shape in shapes(), size in magnitudes(1e34, 1e-38), seed: u64) {
        check::<f32>(shape, size, seed);
    }

    #[test]
    fn fast_is_reference_f16(shape in shapes(), size in magnitudes(6e4, 1e-7), seed: u64) {
        check::<f16>(shape, size, seed);
    }

    #[test]
    fn fast_is_reference_bf16(shape in shapes(), size in magnitudes(1e34, 1e-38), seed: u64) {
        check::<bf16>(shape, size, seed);
    }
}

/// More voxels than one task sums, in both layouts.
#[test]
fn many_segments() {
    check::<f32>(Shape::new(2, 3, [41, 61, 67]).unwrap(), 1.0, 7);
    check::<f16>(Shape::new(1, 1, [1, 500, 601]).unwrap(), 1.0, 8);
}

#[test]
fn a_value_that_is_not_finite_spoils_its_channel_alone() {
    let shape = Shape::new(1, 3, [1, 1, 33]).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for layout in LAYOUTS {
            let mut data = vec![1.0_f32; shape.elements()];
            let index = if layout == Layout::Contiguous { 33 + 32 } else { 32 * 3 + 1 };
            data[index] = bad;
            let weights = channel_weights(&View::new(&data, shape, layout).unwrap()).unwrap();
            assert_eq!((weights[0], weights[2]), (1.0, 1.0));
            assert_eq!(weights[1].to_string(), bad.to_string());
        }
    }
}

#[test]
fn a_view_must_have_the_values_of_its_shape() {
    let shape = Shape::new(1, 2, [1, 1, 3]).unwrap();
    let error = View::new(&[0.0_f32; 5], shape, Layout::Contiguous).unwrap_err();
    assert!(error.is_input());
    assert_eq!(
        error.to_string(),
        "view: data: shape (1, 2, 1, 1, 3) takes 6 values, the slice has 5"
    );
    let empty = Shape { batch: 1, channels: 0, spatial: [1, 1, 3] };
    let error = View::<f32>::new(&[], empty, Layout::Contiguous).unwrap_err();
    assert!(error.is_input());
    assert_eq!(
        error.to_string(),
        "view: shape: (1, 0, 1, 1, 3) has an extent of 0; each takes at least 1"
    );
}

#[test]
fn weights_that_cancel_are_those_of_the_gradient() {
    let shape = Shape::new(2, 1, [1, 1, 2]).unwrap();
    let view = View::new(&[1.0_f32, -1.0, 1.0, 1.0], shape, Layout::Contiguous).unwrap();
    assert_eq!(cancel(&view, &[0.0, 1.0]).unwrap(), [true, false]);
    for weights in [&[0.0][..], &[0.0; 3]] {
        let error = cancel(&view, weights).unwrap_err();
        assert!(error.is_input());
        assert_eq!(
            error.to_string(),
            format!(
                "channel_weights::cancel: weights: (2, 1, 1, 1, 2) takes 2 values (B·C), it has {}",
                weights.len()
            )
        );
    }
}
