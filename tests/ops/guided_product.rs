use half::f16;
use medcam::ops::guided_product::{TOLERANCE, extremes, guided_product_into, reference};
use medcam::ops::{Interpolation, Range, Resize, guided_product, normalize, resample};
use proptest::prelude::*;

use crate::common::*;

#[test]
fn products_by_hand() {
    // The map becomes 0, 1, 3, 4; sample 1 is 10 times that.
    let map = [0.0, 4.0, 0.0, 40.0];
    let guided = [5.0, -1.0, 1.0, 0.5, 1.0, 1.0, 1.0, -1.0];
    let products = [0.0, -1.0, 3.0, 2.0, 0.0, 10.0, 30.0, -40.0];
    let (from, to) = ([1, 1, 2], [1, 1, 4]);
    let ranges = extremes(&map, &guided, Resize { batch: 2, from, to }).unwrap();
    let expected =
        [(-1.0, 3.0), (-40.0, 30.0)].map(|(minimum, maximum)| Range { minimum, maximum });
    assert_eq!(ranges, expected);
    let mut out = [9.0_f32; 8];
    guided_product_into(&map, &guided, Resize { batch: 2, from, to }, None, &mut out).unwrap();
    assert_eq!(out, products);
    assert_eq!(
        reference(&wide(&map), &wide(&guided), Resize { batch: 2, from, to }, false),
        wide(&products)
    );
    // Each sample has its own range; by that of sample 0, sample 1 would go up to 7.75.
    let (bytes, _) = guided_product::<u8>(&map, &guided, Resize { batch: 2, from, to }).unwrap();
    assert_eq!(bytes, [64, 0, 255, 191, 146, 182, 255, 0]);
}

proptest! {
    #[test]
    fn fast_is_reference(
        batch in prop::sample::select(vec![1, 3]),
        from in prop::array::uniform3(1..10_usize),
        to in prop::array::uniform3(1..36_usize),
        size in magnitudes(1e18, 1e-18),
        seed: u64,
    ) {
        let (old, new) = (from.iter().product::<usize>(), to.iter().product::<usize>());
        let map = values::<f32>(batch * old, size, seed);
        let guided = values::<f32>(batch * new, size, seed.wrapping_add(1));
        let mut raw = vec![0.0_f32; batch * new];
        guided_product_into(&map, &guided, Resize { batch, from, to }, None, &mut raw).unwrap();
        let (wide_map, wide_guided) = (wide(&map), wide(&guided));
        let exact = reference(&wide_map, &wide_guided, Resize { batch, from, to }, false);
        assert_close(&raw, &exact, |i| TOLERANCE * f64::from(size) * wide_guided[i].abs());

        // As the single ops, with a temporary.
        let mut chain = resample(&map, Resize { batch, from, to }, Interpolation::Linear).unwrap();
        chain.iter_mut().zip(&guided).for_each(|(value, guided)| *value *= guided);
        prop_assert_eq!(bits(&raw), bits(&chain));
        let (fast, ranges) =
            on_any_threads(|| guided_product::<f32>(&map, &guided, Resize { batch, from, to }).unwrap());
        prop_assert_eq!(&ranges, &normalize(&mut chain, batch).unwrap());
        prop_assert_eq!(bits(&fast), bits(&chain));

        let exact = reference(&wide_map, &wide_guided, Resize { batch, from, to }, true);
        let widths: Vec<f64> =
            ranges.iter().map(|r| f64::from(r.maximum) - f64::from(r.minimum)).collect();
        let largest = f64::from(size).powi(2);
        let bound = |i: usize| 2.0 * TOLERANCE * largest / widths[i / new] + normalize::TOLERANCE;
        if widths.iter().all(|&width| width > 1e-3 * largest) {
            assert_close(&fast, &exact, bound);
        }

        let (halves, half_ranges) =
            guided_product::<f16>(&map, &guided, Resize { batch, from, to }).unwrap();
        prop_assert_eq!(half_ranges, ranges);
        let expected: Vec<f16> = fast.iter().map(|&value| f16::from_f32(value)).collect();
        prop_assert_eq!(halves, expected);
        for b in 0..batch {
            let (map, guided) = (&map[b * old..][..old], &guided[b * new..][..new]);
            let (single, _) = guided_product::<f32>(map, guided, Resize { batch: 1, from, to }).unwrap();
            prop_assert_eq!(bits(&fast[b * new..][..new]), bits(&single));
        }
    }
}

#[test]
fn a_constant_product_becomes_0() {
    for (map, guided) in [(0.0, 1.0), (1.0, 0.0), (0.1, -0.7), (-1e30, 1e-30)] {
        let (map, guided) = ([map; 12], [guided; 2 * 5 * 7]);
        let (zero, ranges) = guided_product::<f32>(
            &map,
            &guided,
            Resize { batch: 1, from: [1, 3, 4], to: [2, 5, 7] },
        )
        .unwrap();
        assert!(zero.iter().all(|value| value.to_bits() == 0));
        assert_eq!(ranges[0].minimum, ranges[0].maximum);
    }
}

#[test]
fn bad_input_is_an_error_that_names_it() {
    let (from, to) = ([1, 1, 2], [1, 1, 3]);
    let message = |map: &[f32], guided: &[f32], batch, from, to| {
        let error = guided_product::<f32>(map, guided, Resize { batch, from, to }).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    assert_eq!(
        message(&[1.0; 3], &[1.0; 6], 2, from, to),
        "guided_product: map: (2, 1, 1, 2) takes 4 values (B·D·H·W), it has 3"
    );
    assert_eq!(
        message(&[1.0; 4], &[1.0; 5], 2, from, to),
        "guided_product: guided: (2, 1, 1, 3) takes 6 values (B·D·H·W), it has 5"
    );
    assert!(message(&[], &[], 1, [1, 0, 1], to).starts_with("guided_product: from: "));
    assert!(message(&[1.0; 2], &[], 1, from, [0, 1, 1]).starts_with("guided_product: to: "));
    for bad in [f32::NAN, f32::INFINITY] {
        assert_eq!(
            message(&[1.0; 4], &[1.0, 1.0, 1.0, 1.0, bad, 1.0], 2, from, to),
            "guided_product: the product of sample 1 is not finite: 0 voxels of map and 1 of \
             guided are not"
        );
    }
    assert!(message(&[1e30; 2], &[1e30; 3], 1, from, to).contains("0 voxels of map and 0 of"));
    let (mut bytes, resize) = ([0_u8; 3], Resize { batch: 1, from, to });
    let error = guided_product_into(&[1.0; 2], &[1.0; 3], resize, None, &mut bytes);
    assert!(error.unwrap_err().to_string().starts_with("guided_product: out: u8 holds"));
    let upside_down = [Range { minimum: 1.0, maximum: 0.0 }];
    let ranges = Some(&upside_down[..]);
    let error = guided_product_into(&[1.0; 2], &[1.0; 3], resize, ranges, &mut bytes);
    assert!(error.unwrap_err().to_string().starts_with("guided_product: ranges: that of sample 0"));
}
