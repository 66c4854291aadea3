use medcam::ops::Interpolation::{Linear, Nearest};
use medcam::ops::resample;
use medcam::ops::resample::{TOLERANCE, reference};
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
        let expected: Vec<f64> = expected.iter().map(|&value| f64::from(value)).collect();
        let map = resample(&SOURCE, 1, from, to, Linear).unwrap();
        // Printed to seven digits.
        assert_close(&map, &expected, |_| 1e-6);
    };
    close([1, 5, 3], [1, 3, 4], &BILINEAR);
    close([3, 4, 2], [2, 2, 3], &TRILINEAR);
    assert_eq!(resample(&SOURCE, 1, [2, 2, 3], [3, 4, 2], Nearest).unwrap(), NEAREST);
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
        let wide: Vec<f64> = map.iter().map(|&value| f64::from(value)).collect();
        let new_voxels = to.iter().product::<usize>();
        for interpolation in [Linear, Nearest] {
            let fast = on_any_threads(|| resample(&map, batch, from, to, interpolation).unwrap());
            let tolerance = if interpolation == Linear { TOLERANCE } else { 0.0 };
            let expected = reference(&wide, batch, from, to, interpolation);
            assert_close(&fast, &expected, |_| tolerance * f64::from(size));
            for (b, sample) in map.chunks(voxels).enumerate() {
                let single = resample(sample, 1, from, to, interpolation).unwrap();
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
        let wide: Vec<f64> = map.iter().map(|&value| f64::from(value)).collect();
        for interpolation in [Linear, Nearest] {
            let fast = resample(&map, 1, from, to, interpolation).unwrap();
            let expected = reference(&wide, 1, from, to, interpolation);
            for (fast, expected) in fast.iter().zip(expected) {
                prop_assert_eq!(fast.is_finite(), expected.is_finite());
                prop_assert_eq!(fast.is_nan(), expected.is_nan());
            }
        }
    }
}

/// More voxels than one task writes: several blocks per plane, and planes of one block.
#[test]
fn many_blocks() {
    for (from, to) in [([1, 7, 7], [1, 300, 301]), ([9, 10, 11], [40, 41, 42])] {
        let map = values::<f32>(2 * from.iter().product::<usize>(), 1.0, 5);
        let wide: Vec<f64> = map.iter().map(|&value| f64::from(value)).collect();
        let fast = on_any_threads(|| resample(&map, 2, from, to, Linear).unwrap());
        assert_close(&fast, &reference(&wide, 2, from, to, Linear), |_| TOLERANCE);
    }
}

#[test]
fn the_same_grid_is_a_copy_and_a_constant_stays() {
    let map = values::<f32>(3 * 4 * 5, 1.0, 9);
    for interpolation in [Linear, Nearest] {
        let same = resample(&map, 1, [3, 4, 5], [3, 4, 5], interpolation).unwrap();
        assert_eq!(bits(&same), bits(&map));
        let constant = resample(&[0.5; 60], 1, [3, 4, 5], [7, 2, 9], interpolation).unwrap();
        assert_close(&constant, &[0.5; 126], |_| 0.5 * TOLERANCE);
    }
}

#[test]
fn bad_sizes_are_errors_that_name_the_argument() {
    let message = |map: &[f32], batch, from, to| {
        let error = resample(map, batch, from, to, Linear).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    assert_eq!(
        message(&[0.0; 5], 1, [1, 2, 3], [1, 4, 6]),
        "resample: map: (1, 1, 2, 3) takes 6 values, got 5"
    );
    assert!(message(&[], 0, [1, 2, 3], [1, 4, 6]).starts_with("resample: from: "));
    assert!(message(&[], 1, [1, 0, 3], [1, 4, 6]).starts_with("resample: from: "));
    assert!(message(&[0.0; 6], 1, [1, 2, 3], [1, 0, 6]).starts_with("resample: to: "));
    assert_eq!(
        message(&[0.0; 6], 1, [1, 2, 3], [1, 1, (1 << 30) + 1]),
        "resample: to: an extent of 1073741825 is above the limit of 1073741824"
    );
}
