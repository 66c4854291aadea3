use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::guided_activation;
use medcam::ops::guided_activation::{in_place, reference};
use proptest::prelude::*;

use crate::common::*;

fn check<T: Element>(count: usize, magnitude: f32, seed: u64) {
    let input = values::<T>(count, magnitude, seed);
    let gradient = values::<T>(count, magnitude, seed.wrapping_add(1));
    let wide = |values: &[T]| -> Vec<f64> {
        values.iter().map(|value| f64::from(value.to_f32())).collect()
    };
    let fast = on_any_threads(|| {
        let mut output = vec![T::from_f32(7.0); count];
        guided_activation(&input, &gradient, &mut output).unwrap();
        wide(&output)
    });
    // No value is changed, so there is no tolerance.
    assert_eq!(fast, reference(&input, &gradient));
    let mut output = gradient;
    in_place(&input, &mut output).unwrap();
    assert_eq!(wide(&output), fast);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn fast_is_reference(
        count in prop::sample::select(vec![1, 31, 32, 33, 1023, 1025, 2184, 70_001]),
        seed: u64,
    ) {
        check::<f32>(count, 1e-45, seed);
        check::<f32>(count, 1.0, seed);
        check::<f16>(count, 1e-7, seed);
        check::<f16>(count, 1.0, seed);
        check::<bf16>(count, 1e-40, seed);
        check::<bf16>(count, 1.0, seed);
    }
}

/// More values than a call on one thread touches.
#[test]
fn many_blocks() {
    check::<f16>((1 << 22) + 5, 1.0, 3);
}

/// Every kind of value against every other, in each type.
#[test]
fn zeros_infinities_and_nan_as_in_the_reference() {
    fn check<T: Element>() {
        let kinds = [0.0, -0.0, 1.0, -1.0, f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let input: Vec<T> = (0..64).map(|i| T::from_f32(kinds[i / 8])).collect();
        let gradient: Vec<T> = (0..64).map(|i| T::from_f32(kinds[i % 8])).collect();
        let mut output = vec![T::from_f32(7.0); 64];
        guided_activation(&input, &gradient, &mut output).unwrap();
        for (out, expected) in output.iter().zip(reference(&input, &gradient)) {
            let out = f64::from(out.to_f32());
            assert!(out == expected || (out.is_nan() && expected.is_nan()), "{out} {expected}");
        }
    }
    check::<f32>();
    check::<f16>();
    check::<bf16>();
}

#[test]
fn lengths_must_agree() {
    let message = |gradient: usize, output: usize| {
        let mut output = vec![0.0; output];
        let error =
            guided_activation(&[0.0_f32; 3], &vec![0.0; gradient], &mut output).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    let expected = "guided_activation: gradient: input has 3 values, it has 4; pass as many";
    assert_eq!(message(4, 3), expected);
    assert_eq!(in_place(&[0.0_f32; 3], &mut [0.0; 4]).unwrap_err().to_string(), expected);
    assert_eq!(
        message(3, 2),
        "guided_activation: output: input has 3 values, it has 2; pass as many"
    );
    guided_activation::<f32>(&[], &[], &mut []).unwrap();
}
