use medcam::ops::normalize::{TOLERANCE, reference};
use medcam::ops::{Range, normalize};
use proptest::prelude::*;

use crate::common::*;

fn normalized(map: &[f32], batch: usize) -> (Vec<f32>, Vec<Range>) {
    let mut map = map.to_vec();
    let ranges = normalize(&mut map, batch).unwrap();
    (map, ranges)
}

proptest! {
    #[test]
    fn fast_is_reference(
        batch in 1..4_usize,
        voxels in prop::sample::select(vec![2, 15, 17, 33, 1025, 70_001]),
        size in magnitudes(f32::MAX, 1e-38),
        seed: u64,
    ) {
        let map = values::<f32>(batch * voxels, size, seed);
        let (fast, ranges) = on_any_threads(|| normalized(&map, batch));
        let wide = wide(&map);
        assert_close(&fast, &reference(&wide, batch), |_| TOLERANCE);
        for (b, sample) in map.chunks(voxels).enumerate() {
            let (single, range) = normalized(sample, 1);
            assert_eq!(bits(&fast[b * voxels..][..voxels]), bits(&single));
            assert_eq!(ranges[b], range[0]);
            assert_eq!(ranges[b].minimum, sample.iter().copied().fold(f32::MAX, f32::min));
            assert_eq!(ranges[b].maximum, sample.iter().copied().fold(f32::MIN, f32::max));
            assert!(single.contains(&0.0) && single.contains(&1.0));
        }
    }
}

#[test]
fn a_constant_map_becomes_0() {
    for value in [0.0, -0.0, 1.0, f32::MAX, -1e-45] {
        let (map, ranges) = normalized(&[value; 37], 1);
        assert_eq!(map, [0.0; 37]);
        assert_eq!((ranges[0].minimum, ranges[0].maximum), (value, value));
    }
}

#[test]
fn values_that_are_not_finite_are_counted() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for places in [[50, 99], [66, 67]] {
            let mut map = values::<f32>(100, 1.0, 3);
            for place in places {
                map[place] = bad;
            }
            let before = bits(&map);
            let error = normalize(&mut map, 2).unwrap_err();
            assert!(error.is_input());
            assert_eq!(
                error.to_string(),
                "normalize: map: 2 of the 50 voxels of sample 1 are not finite"
            );
            assert_eq!(bits(&map), before);
        }
    }
}

#[test]
fn the_map_must_part_into_the_batch() {
    for (length, batch) in [(0, 1), (5, 0), (5, 2), (0, 0)] {
        let error = normalize(&mut vec![0.0; length], batch).unwrap_err();
        assert!(error.is_input());
        assert_eq!(
            error.to_string(),
            format!("normalize: map: {length} values cannot be parted into {batch} maps")
        );
    }
}
