use half::f16;
use medcam::element::MapElement;
use medcam::ops::Interpolation::{Linear, Nearest};
use medcam::ops::normalize;
use medcam::ops::resample::{TOLERANCE, extremes, reference, resample_into, resample_normalized};
use medcam::ops::{Range, Resize, resample};
use proptest::prelude::*;

use crate::common::*;

const SOURCE: [f32; 12] = [0.0, 2.0, 4.0, 1.0, 3.0, 0.0, 2.0, 4.0, 1.0, 3.0, 0.0, 2.0];

/// torch 2.11: `v = torch.arange(12.).mul(7).remainder(5)`; then
/// `F.interpolate(v.view(1,1,3,4), size=(5,3), mode="bilinear", align_corners=False)`
const BILINEAR: [f32; 15] = [
    0.3333334, 3.0, 1.5, 1.2, 2.2, 2.366667, 2.5, 1.0, 3.666667, 1.8, 1.3, 2.466667, 1.333333, 1.5,
    1.666667,
];

/// `F.interpolate(v.view(1,1,2,2,3), size=(3,4,2), mode="trilinear", align_corners=False)`
const TRILINEAR: [f32; 24] = [
    0.5, 3.5, 0.75, 2.8125, 1.25, 1.4375, 1.5, 0.75, 1.5, 2.625, 1.59375, 2.25, 1.78125, 1.5,
    1.875, 1.125, 2.5, 1.75, 2.4375, 1.6875, 2.3125, 1.5625, 2.25, 1.5,
];

/// `F.interpolate(v.view(1,1,2,2,3), size=(3,4,2), mode="nearest-exact")`
const NEAREST: [f32; 24] = [
    0.0, 4.0, 0.0, 4.0, 1.0, 0.0, 1.0, 0.0, 2.0, 1.0, 2.0, 1.0, 3.0, 2.0, 3.0, 2.0, 2.0, 1.0, 2.0,
    1.0, 3.0, 2.0, 3.0, 2.0,
];

#[test]
fn as_torch() {
    let close = |to: [usize; 3], from: [usize; 3], expected: &[f32]| {
        let expected = wide(expected);
        let map = resample(&SOURCE, Resize { batch: 1, from, to }, Linear).unwrap();
        // Printed to seven digits.
        assert_close(&map, &expected, |_| 1e-6);
    };
    close([1, 5, 3], [1, 3, 4], &BILINEAR);
    close([3, 4, 2], [2, 2, 3], &TRILINEAR);
    assert_eq!(
        resample(&SOURCE, Resize { batch: 1, from: [2, 2, 3], to: [3, 4, 2] }, Nearest).unwrap(),
        NEAREST
    );
}

proptest! {
    #[test]
    fn fast_is_reference(
        batch in prop::sample::select(vec![1, 3]),
        from in prop::array::uniform3(1..14_usize),
        to in prop::array::uniform3(1..40_usize),
        size in magnitudes(3e38, 1e-36),
        seed: u64,
    ) {
        let voxels = from.iter().product::<usize>();
        let map = values::<f32>(batch * voxels, size, seed);
        let wide = wide(&map);
        let new_voxels = to.iter().product::<usize>();
        for interpolation in [Linear, Nearest] {
            let fast = on_any_threads(|| resample(&map, Resize { batch, from, to }, interpolation).unwrap());
            let tolerance = if interpolation == Linear { TOLERANCE } else { 0.0 };
            let expected = reference(&wide, Resize { batch, from, to }, interpolation);
            assert_close(&fast, &expected, |_| tolerance * f64::from(size));
            for (b, sample) in map.chunks(voxels).enumerate() {
                let single = resample(sample, Resize { batch: 1, from, to }, interpolation).unwrap();
                assert_eq!(bits(&fast[b * new_voxels..][..new_voxels]), bits(&single));
            }
        }
    }

    /// A value that is not finite reaches those voxels that it has a weight in, and no others.
    #[test]
    fn not_finite_is_as_in_the_reference(
        from in prop::array::uniform3(1..7_usize),
        to in prop::array::uniform3(1..19_usize),
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        place: prop::sample::Index,
    ) {
        let mut map = vec![1.0_f32; from.iter().product()];
        let place = place.index(map.len());
        map[place] = bad;
        let wide = wide(&map);
        for interpolation in [Linear, Nearest] {
            let fast = resample(&map, Resize { batch: 1, from, to }, interpolation).unwrap();
            let expected = reference(&wide, Resize { batch: 1, from, to }, interpolation);
            for (fast, expected) in fast.iter().zip(expected) {
                prop_assert_eq!(fast.is_finite(), expected.is_finite());
                prop_assert_eq!(fast.is_nan(), expected.is_nan());
            }
        }
    }
}

/// Maps of noise, of few values, and of steps of one last bit: where extremes are hard to find.
fn rugged(count: usize, kind: usize, size: f32, seed: u64) -> Vec<f32> {
    let noise = values::<f32>(count, 1.0, seed);
    let of = |value: f32| match kind {
        0 => value * size,
        1 => value.max(0.0) * size,
        2 => (value * 1.5).round() * size,
        _ if value > 0.0 => size,
        _ => size.next_up(),
    };
    noise.into_iter().map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The corners alone give the range of the whole map: both ends are voxels of it, and no voxel
    /// lies further outside than rounding puts it.
    #[test]
    fn extremes_are_those_of_the_resampled_map(
        batch in prop::sample::select(vec![1, 3]),
        from in prop::array::uniform3(1..12_usize),
        to in prop::array::uniform3(1..40_usize),
        kind in 0..4_usize,
        size in magnitudes(3e38, 1e-36),
        seed: u64,
    ) {
        let map = rugged(batch * from.iter().product::<usize>(), kind, size, seed);
        for interpolation in [Linear, Nearest] {
            let ranges =
                on_any_threads(|| extremes(&map, Resize { batch, from, to }, interpolation).unwrap());
            let resampled = resample(&map, Resize { batch, from, to }, interpolation).unwrap();
            for (sample, range) in resampled.chunks(resampled.len() / batch).zip(ranges) {
                let Range { minimum, maximum } = range;
                prop_assert!(sample.contains(&minimum) && sample.contains(&maximum));
                let least = sample.iter().copied().fold(f32::INFINITY, f32::min);
                let greatest = sample.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let slack = if interpolation == Linear { TOLERANCE * f64::from(size) } else { 0.0 };
                prop_assert!(f64::from(minimum) - f64::from(least) <= slack);
                prop_assert!(f64::from(greatest) - f64::from(maximum) <= slack);
            }
        }
    }
}

/// Maps of so many corners that rows are passed over: with a peak, with one that is a single voxel,
/// and of noise, where there is nothing to pass over.
#[test]
fn extremes_of_large_maps() {
    let (from, to) = ([40, 40, 8], [120, 120, 180]);
    let peak = |z: usize, y: usize, x: usize| {
        let distance =
            (z as f32 - 13.3).powi(2) + (y as f32 - 22.8).powi(2) + (x as f32 - 5.0).powi(2);
        (-distance / 20.0).exp() - 0.01
    };
    let voxels = (0..40 * 40 * 8).map(|i| peak(i / 320, i / 8 % 40, i % 8));
    let smooth: Vec<f32> = voxels.clone().collect();
    let rectified: Vec<f32> = voxels.map(|value| value.max(0.0)).collect();
    let mut single = vec![0.5; 40 * 40 * 8];
    single[7 * 320 + 9 * 8 + 7] = 0.75;
    let noise = values::<f32>(40 * 40 * 8, 1.0, 3);
    let batch = [smooth, rectified, single, noise].concat();
    let ranges =
        on_any_threads(|| extremes(&batch, Resize { batch: 4, from, to }, Linear).unwrap());
    let resampled = resample(&batch, Resize { batch: 4, from, to }, Linear).unwrap();
    for (b, range) in ranges.into_iter().enumerate() {
        let sample = &resampled[b * 120 * 120 * 180..][..120 * 120 * 180];
        let least = sample.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = sample.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!(sample.contains(&range.minimum) && sample.contains(&range.maximum));
        assert!(f64::from(range.minimum - least) <= TOLERANCE, "{b}: {range:?}");
        assert!(f64::from(greatest - range.maximum) <= TOLERANCE, "{b}: {range:?}");
        let map = &batch[b * 40 * 40 * 8..][..40 * 40 * 8];
        assert_eq!(range, extremes(map, Resize { batch: 1, from, to }, Linear).unwrap()[0]);
    }
    let mut spoilt = vec![0.5; 40 * 40 * 8];
    spoilt[5000] = f32::NAN;
    assert!(extremes(&spoilt, Resize { batch: 1, from, to }, Linear).unwrap_err().is_input());
}

fn narrowed<O: MapElement + PartialEq>(
    map: &[f32],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    narrow: impl Fn(f32) -> O,
) {
    for interpolation in [Linear, Nearest] {
        let (exact, ranges) =
            resample_normalized::<f32>(map, Resize { batch, from, to }, interpolation).unwrap();
        let expected: Vec<O> = exact.iter().map(|&value| narrow(value)).collect();
        let given = on_any_threads(|| {
            resample_normalized::<O>(map, Resize { batch, from, to }, interpolation).unwrap()
        });
        assert_eq!(given, (expected, ranges));
    }
}

proptest! {
    #[test]
    fn normalized_is_reference(
        batch in prop::sample::select(vec![1, 3]),
        from in prop::array::uniform3(1..12_usize),
        to in prop::array::uniform3(1..40_usize),
        kind in 0..4_usize,
        size in magnitudes(3e38, 1e-36),
        seed: u64,
    ) {
        let voxels = from.iter().product::<usize>();
        let map = rugged(batch * voxels, kind, size, seed);
        let wide = wide(&map);
        let new_voxels = to.iter().product::<usize>();
        for interpolation in [Linear, Nearest] {
            let run = |map: &[f32], batch| {
                resample_normalized::<f32>(map, Resize { batch, from, to }, interpolation).unwrap()
            };
            let (fast, ranges) = on_any_threads(|| run(&map, batch));
            let exact = reference(&wide, Resize { batch, from, to }, interpolation);
            for b in 0..batch {
                let place = b * new_voxels..(b + 1) * new_voxels;
                let (single, range) = run(&map[b * voxels..][..voxels], 1);
                assert_eq!(bits(&fast[place.clone()]), bits(&single));
                assert_eq!(range[0], ranges[b]);
                let width = f64::from(range[0].maximum) - f64::from(range[0].minimum);
                if width == 0.0 {
                    assert!(single.iter().all(|&value| value == 0.0));
                    continue;
                }
                assert!(single.contains(&0.0) && single.contains(&1.0));
                assert!(single.iter().all(|value| (0.0..=1.0).contains(value)));
                let tolerance = if interpolation == Linear { TOLERANCE } else { 0.0 };
                let bound = 2.0 * tolerance * f64::from(size) / width + normalize::TOLERANCE;
                if bound < 0.1 {
                    assert_close(&single, &normalize::reference(&exact[place], 1), |_| bound);
                }
            }
        }
        narrowed(&map, batch, from, to, f16::from_f32);
        #[expect(clippy::cast_possible_truncation, reason = "at most 255")]
        narrowed(&map, batch, from, to, |value| (value * 255.0).round_ties_even() as u8);
    }
}

#[test]
fn a_constant_map_stays_constant_to_the_last_bit_and_becomes_0() {
    for value in [0.1, -0.3, 1.0 / 3.0, 16_777_213.0, f32::MAX, -0.0] {
        for (from, to) in [([3, 4, 5], [7, 2, 9]), ([2, 2, 2], [101, 103, 107]), ([5; 3], [3; 3])] {
            let map = vec![value; from.iter().product()];
            let resampled = resample(&map, Resize { batch: 1, from, to }, Linear).unwrap();
            assert!(resampled.iter().all(|&v| v == value), "{value} {from:?} {to:?}");
            let (zero, _) =
                resample_normalized::<f32>(&map, Resize { batch: 1, from, to }, Linear).unwrap();
            assert!(zero.iter().all(|v| v.to_bits() == 0));
        }
    }
}

#[test]
fn into_is_the_same_and_needs_what_it_says() {
    let (from, to) = ([2, 2, 3], [3, 4, 2]);
    let (map, [resampled, mut other]) =
        ([SOURCE, SOURCE].concat(), [(); 2].map(|()| vec![9.0; 48]));
    let mut out = resampled;
    resample_into(&map, Resize { batch: 2, from, to }, Linear, None, &mut out).unwrap();
    assert_eq!(bits(&out), bits(&resample(&map, Resize { batch: 2, from, to }, Linear).unwrap()));
    let ranges = extremes(&map, Resize { batch: 2, from, to }, Linear).unwrap();
    resample_into(&map, Resize { batch: 2, from, to }, Linear, Some(&ranges), &mut out).unwrap();
    assert_eq!(
        (out, ranges.clone()),
        resample_normalized(&map, Resize { batch: 2, from, to }, Linear).unwrap()
    );

    // A narrower range than there is: what lies outside becomes 0 or 1.
    let narrow = [Range { minimum: 1.0, maximum: 2.0 }; 2];
    resample_into(&map, Resize { batch: 2, from, to }, Linear, Some(&narrow), &mut other).unwrap();
    let expected = [TRILINEAR, TRILINEAR].concat().into_iter().map(|v| (v - 1.0).clamp(0.0, 1.0));
    assert_eq!(other, expected.collect::<Vec<_>>());

    let mut bytes = [7_u8; 48];
    let error =
        resample_into(&map, Resize { batch: 2, from, to }, Linear, None, &mut bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "resample: out: u8 holds normalised maps alone; give their ranges, or take f32"
    );
    let error =
        resample_into(&map, Resize { batch: 2, from, to }, Linear, Some(&ranges[1..]), &mut bytes)
            .unwrap_err();
    assert_eq!(error.to_string(), "resample: ranges: a batch of 2 takes 2 values (B), it has 1");
    for (minimum, maximum) in [(3.0, 1.0), (f32::NAN, 1.0), (0.0, f32::INFINITY)] {
        let bad = [ranges[0], Range { minimum, maximum }];
        let error =
            resample_into(&map, Resize { batch: 2, from, to }, Linear, Some(&bad), &mut bytes)
                .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "resample: ranges: that of sample 1 goes from {minimum} to {maximum}; give those \
                 that extremes() finds"
            )
        );
    }
    let error =
        resample_into(&map, Resize { batch: 2, from, to }, Linear, Some(&ranges), &mut bytes[1..])
            .unwrap_err();
    assert_eq!(
        error.to_string(),
        "resample: out: (2, 3, 4, 2) takes 48 values (B·D·H·W), it has 47"
    );
    assert_eq!(bytes, [7; 48]);
}

#[test]
fn a_map_that_is_not_finite_has_no_range() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut map = [SOURCE, SOURCE].concat();
        map[13] = bad;
        map[17] = bad;
        let error = extremes(&map, Resize { batch: 2, from: [1, 3, 4], to: [1, 7, 9] }, Linear)
            .unwrap_err();
        assert!(error.is_input());
        assert_eq!(
            error.to_string(),
            "resample: map: 2 of the 12 voxels of sample 1 are not finite"
        );
        let error = resample_normalized::<u8>(
            &map,
            Resize { batch: 2, from: [1, 3, 4], to: [1, 7, 9] },
            Linear,
        )
        .unwrap_err();
        assert!(error.is_input());
    }
}

/// More voxels than one task writes: several blocks per plane, and planes of one block.
#[test]
fn many_blocks() {
    for (from, to) in [([1, 7, 7], [1, 300, 301]), ([9, 10, 11], [40, 41, 42])] {
        let map = values::<f32>(2 * from.iter().product::<usize>(), 1.0, 5);
        let wide = wide(&map);
        let fast =
            on_any_threads(|| resample(&map, Resize { batch: 2, from, to }, Linear).unwrap());
        assert_close(&fast, &reference(&wide, Resize { batch: 2, from, to }, Linear), |_| {
            TOLERANCE
        });
    }
}

#[test]
fn the_same_grid_is_a_copy_and_a_constant_stays() {
    let map = values::<f32>(3 * 4 * 5, 1.0, 9);
    for interpolation in [Linear, Nearest] {
        let same =
            resample(&map, Resize { batch: 1, from: [3, 4, 5], to: [3, 4, 5] }, interpolation)
                .unwrap();
        assert_eq!(bits(&same), bits(&map));
        let resize = Resize { batch: 1, from: [3, 4, 5], to: [7, 2, 9] };
        let constant = resample(&[0.5; 60], resize, interpolation).unwrap();
        assert_close(&constant, &[0.5; 126], |_| 0.5 * TOLERANCE);
    }
}

#[test]
fn bad_sizes_are_errors_that_name_the_argument() {
    let message = |map: &[f32], batch, from, to| {
        let error = resample(map, Resize { batch, from, to }, Linear).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    assert_eq!(
        message(&[0.0; 5], 1, [1, 2, 3], [1, 4, 6]),
        "resample: map: (1, 1, 2, 3) takes 6 values (B·D·H·W), it has 5"
    );
    assert!(message(&[], 0, [1, 2, 3], [1, 4, 6]).starts_with("resample: from: "));
    assert!(message(&[], 1, [1, 0, 3], [1, 4, 6]).starts_with("resample: from: "));
    assert!(message(&[0.0; 6], 1, [1, 2, 3], [1, 0, 6]).starts_with("resample: to: "));
    assert_eq!(
        message(&[0.0; 6], 1, [1, 2, 3], [1, 1, (1 << 30) + 1]),
        "resample: to: an extent of 1073741825 is above the limit of 1073741824"
    );
}

/// Temporary memory counts too: weights, buffered rows, and the lists of tasks.
#[test]
fn what_memory_does_not_hold_is_an_error() {
    let (map, longest) = ([1.0, 2.0], 1 << 30);
    for to in [[longest, longest, 1], [1, longest, longest], [longest, 1 << 18, 1 << 14]] {
        let says = format!("resample: to: no memory for a grid of (1, {}, ", to[0]);
        for error in [
            resample(&map, Resize { batch: 1, from: [1, 1, 2], to }, Linear).unwrap_err(),
            extremes(&map, Resize { batch: 1, from: [1, 1, 2], to }, Linear).unwrap_err(),
            resample_normalized::<u8>(&map, Resize { batch: 1, from: [2, 1, 1], to }, Nearest)
                .unwrap_err(),
        ] {
            assert!(error.is_input());
            assert!(error.to_string().starts_with(&says), "{error}");
        }
    }
}
