use medcam::ops::evaluation_sums::{TABLE_LENGTH, TOLERANCE, reference};
use medcam::ops::{EvaluationSums, Sums, evaluation_sums};
use proptest::prelude::*;

use crate::common::*;

/// Normalised maps of one sample: even, half of it 0 as after ReLU, skewed, and of few values.
fn map(kind: u64, voxels: usize, seed: u64) -> Vec<f32> {
    let shape = |value: f32| match kind {
        1 => value,
        2 => value.max(0.0),
        3 => value * value * value,
        4 => value * if value > 0.75 { 1.0 } else { 0.125 },
        5 => (value * 3.0).round(),
        // Values that are no whole number of units, but for the greatest.
        _ => value.powi(40),
    };
    let map: Vec<f32> = values::<f32>(voxels, 1.0, seed).into_iter().map(shape).collect();
    // Divided, as NumPy does it: `THEIRS` is of these values to the last bit.
    let least = map.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let width = if greatest > least { greatest - least } else { 1.0 };
    map.into_iter().map(|value| (value - least) / width).collect()
}

fn mask(map: &[f32]) -> Vec<u8> {
    let inside = |(i, &value): (usize, &f32)| (i % 7 < 3 && value > 0.25) || i % 11 == 0;
    map.iter()
        .enumerate()
        .map(|place| if inside(place) { 1 + u8::from(place.0 % 2 == 0) } else { 0 })
        .collect()
}

/// Weighted and plain intersection over attention, then over union, as M3d-CAM defines them.
fn metrics(above: Sums, mask: u64) -> [f64; 4] {
    let outside = (above.count - above.in_mask, above.sum - above.sum_in_mask);
    [
        above.sum_in_mask / above.sum,
        above.in_mask as f64 / above.count as f64,
        above.sum_in_mask / (outside.1 + mask as f64),
        above.in_mask as f64 / (outside.0 + mask) as f64,
    ]
}

/// The same from the voxels: `evaluation_utils.py` of M3d-CAM 0.1.22, array by array.
fn metrics_of_voxels(map: &[f32], mask: &[u8], threshold: f32) -> [f64; 4] {
    let sum = |term: &dyn Fn(f64, f64, f64) -> f64| -> f64 {
        let terms = map.iter().zip(mask).map(|(&value, &mask)| {
            let binary = f64::from(u8::from(value >= threshold));
            term(binary, f64::from(u8::from(mask != 0)), f64::from(value))
        });
        terms.sum()
    };
    [
        sum(&|binary, mask, weight| binary * mask * weight)
            / sum(&|binary, _, weight| binary * weight),
        sum(&|binary, mask, _| binary * mask) / sum(&|binary, _, _| binary),
        sum(&|binary, mask, weight| binary * mask * weight)
            / sum(&|binary, mask, weight| (binary - binary * mask) * weight + mask),
        sum(&|binary, mask, _| binary * mask) / sum(&|binary, mask, _| f64::max(binary, mask)),
    ]
}

/// The variance between the classes for each of Otsu's 255 thresholds, in f64 throughout, from the
/// values themselves: bins as `numpy.histogram` parts the range of an image.
fn variances(map: &[f32]) -> Vec<f64> {
    let least = map.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (least, width) = (f64::from(least), f64::from(greatest) - f64::from(least));
    let mut counts = [0.0; 256];
    for &value in map {
        #[expect(clippy::cast_possible_truncation, reason = "from 0 to 255")]
        let bin = ((f64::from(value) - least) / width * 256.0).min(255.0) as usize;
        counts[bin] += 1.0;
    }
    let class = |bins: std::ops::Range<usize>| {
        let count: f64 = counts[bins.clone()].iter().sum();
        let moment: f64 = bins.map(|bin| counts[bin] * (bin as f64 + 0.5) / 256.0).sum();
        (count, moment / count)
    };
    let variance = |last: usize| {
        let ((below, mean_below), (above, mean_above)) = (class(0..last + 1), class(last + 1..256));
        below * above * (mean_below - mean_above).powi(2)
    };
    (0..255).map(variance).collect()
}

/// From scikit-image 0.25.2 and M3d-CAM 0.1.22, for the maps 1 to 4 of 2184 voxels: 512 times
/// Otsu's threshold; wioa, ioa, wiou and iou at it; the same at a threshold of 0.3.
const THEIRS: [(f32, [f64; 4], [f64; 4]); 4] = [
    (
        255.0,
        [0.493348735182917, 0.4946236559139785, 0.32329079517802006, 0.3901060070671378],
        [0.48353137966601273, 0.4784876140808344, 0.35377007077146144, 0.44457904300423984],
    ),
    (
        187.0,
        [0.4797111227120876, 0.47895500725689405, 0.3047395954290297, 0.38461538461538464],
        [0.48006703550012036, 0.48, 0.3136865902245158, 0.4049493813273341],
    ),
    (
        305.0,
        [0.5080163161862572, 0.5110132158590308, 0.15422748838419076, 0.19463087248322147],
        [0.48648735349496863, 0.483533716675379, 0.33878714218376976, 0.4724208375893769],
    ),
    (
        99.0,
        [0.5052960782269965, 0.48363636363636364, 0.2820305851578383, 0.2962138084632517],
        [0.5111592614281599, 0.5095785440613027, 0.28384782850448764, 0.3057471264367816],
    ),
];

#[test]
fn thresholds_and_metrics_are_those_of_scikit_image_and_m3d_cam() {
    for (seed, (otsu, at_otsu, at_threshold)) in (1..).zip(THEIRS) {
        let map = map(seed, 2184, seed);
        let mask = mask(&map);
        let sums = &evaluation_sums(&map, Some(&mask), 1, Some(0.3)).unwrap()[0];
        assert_eq!(sums.otsu(), otsu / 512.0);
        let all = sums.above(0.0).unwrap();
        for (threshold, expected) in [(sums.otsu(), at_otsu), (0.3, at_threshold)] {
            let ours = metrics(sums.above(threshold).unwrap(), all.in_mask);
            let direct = metrics_of_voxels(&map, &mask, threshold);
            for i in 0..4 {
                // Theirs are sums of f64, ours of values to 2^-34.
                assert!((ours[i] - expected[i]).abs() < 1e-9, "{seed} {i}: {ours:?} {expected:?}");
                assert!((direct[i] - expected[i]).abs() < 1e-12, "{seed} {i}: {direct:?}");
            }
        }
    }
}

fn assert_sums(sums: Sums, expected: Sums) {
    assert_eq!((sums.count, sums.in_mask), (expected.count, expected.in_mask));
    for (sum, expected, count) in [
        (sums.sum, expected.sum, sums.count),
        (sums.sum_in_mask, expected.sum_in_mask, sums.in_mask),
    ] {
        assert!((sum - expected).abs() <= TOLERANCE * count as f64, "{sum} {expected} of {count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fast_is_reference(
        batch in prop::sample::select(vec![1_u8, 3]),
        voxels in prop::sample::select(vec![1, 2, 31, 32, 33, 1023, 1025, 2184, 70_001]),
        kind in 1..7_u64,
        masked: bool,
        given in prop::option::of(prop_oneof![0.0..=1.0_f32, Just(0.0), Just(1.0), Just(0.25)]),
        border in 0..=512_u16,
        seed: u64,
    ) {
        let maps: Vec<f32> =
            (0..batch).flat_map(|b| map(kind, voxels, seed.wrapping_add(b.into()))).collect();
        let masks = mask(&maps);
        let masks = masked.then_some(&masks[..]);
        let batch = usize::from(batch);
        let all = on_any_threads(|| evaluation_sums(&maps, masks, batch, given).unwrap());
        for (b, sums) in all.iter().enumerate() {
            let map = &maps[b * voxels..][..voxels];
            let mask = masks.map(|masks| &masks[b * voxels..][..voxels]);
            prop_assert_eq!(sums, &evaluation_sums(map, mask, 1, given).unwrap()[0]);
            let border = f32::from(border) / 512.0;
            for threshold in [Some(border), Some(0.0), Some(1.0), given].into_iter().flatten() {
                let expected = reference(map, mask, f64::from(threshold));
                assert_sums(sums.above(threshold).unwrap(), expected);
            }
            // The bins are those of the range of the map: not of a map that is one value.
            if map.contains(&1.0) {
                let variances = variances(map);
                let greatest = variances.iter().copied().fold(0.0, f64::max);
                // The threshold is the centre of the last bin of the lower class.
                let otsu = f64::from(sums.otsu());
                let chosen = (0..255).find(|&bin| (bin as f64 + 0.5) / 256.0 == otsu).unwrap();
                let chosen = variances[chosen];
                // scikit-image, and so we, rounds a product of counts to f32.
                prop_assert!(chosen >= greatest * (1.0 - 2e-7), "{chosen} {greatest}");
            } else {
                prop_assert_eq!(sums.otsu(), 1.0);
            }
        }
    }
}

/// More values than a word of the packed table holds, and than one task counts.
#[test]
fn many_blocks() {
    let voxels = (1 << 22) + 77;
    let mut map: Vec<f32> = values::<f32>(voxels, 1.0, 5).iter().map(|v| v.abs()).collect();
    // The greatest fraction there is, all in one row.
    map[..1 << 21].fill((1.0_f32 / 512.0).next_down());
    let sums = on_any_threads(|| evaluation_sums(&map, None, 1, Some(0.7)).unwrap());
    for threshold in [0.0, 0.7, 1.0 / 512.0] {
        let expected = reference(&map, None, f64::from(threshold));
        let sums = sums[0].above(threshold).unwrap();
        assert_eq!((sums.count, sums.in_mask), (expected.count, 0));
        // The reference itself adds four million roundings.
        assert!((sums.sum / expected.sum - 1.0).abs() < 1e-12);
    }
}

#[test]
fn a_constant_map_has_a_threshold_of_1_and_two_values_the_lowest_between_them() {
    for (map, otsu) in
        [(vec![0.0; 40], 1.0), (vec![1.0; 40], 1.0), ([0.0, 1.0].repeat(20), 1.0 / 512.0)]
    {
        assert_eq!(evaluation_sums(&map, None, 1, None).unwrap()[0].otsu(), otsu);
    }
    // Bins that hold nothing at either end do not make a class.
    let sums = evaluation_sums(&[0.25, 0.5, 0.5], None, 1, None).unwrap();
    assert_eq!(sums[0].otsu(), 129.0 / 512.0);
}

fn message(result: medcam::Result<Vec<EvaluationSums>>) -> String {
    let error = result.unwrap_err();
    assert!(error.is_input());
    error.to_string()
}

#[test]
fn values_outside_of_0_to_1_are_counted_and_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e-45, 1.0_f32.next_up()] {
        let mut map = vec![0.5; 2 * 33];
        (map[33], map[65]) = (bad, bad);
        assert_eq!(
            message(evaluation_sums(&map, Some(&[1; 66]), 2, Some(0.0))),
            "evaluation_sums: map: 2 of the 33 voxels of sample 1 are not in [0, 1]; normalise it \
             first"
        );
    }
}

#[test]
fn bad_arguments_are_named() {
    let map = [0.0, 0.5, 1.0];
    assert_eq!(
        message(evaluation_sums(&map, None, 2, None)),
        "evaluation_sums: map: 3 values cannot be parted into 2 samples"
    );
    assert!(message(evaluation_sums(&map, None, 0, None)).contains("into 0 samples"));
    assert!(message(evaluation_sums(&[], None, 1, None)).contains("0 values"));
    assert_eq!(
        message(evaluation_sums(&map, Some(&[0; 4]), 1, None)),
        "evaluation_sums: mask: the map has 3 values, the mask has 4; resample one to the grid of \
         the other"
    );
    for bad in [-0.1, 1.1, f32::NAN] {
        assert_eq!(
            message(evaluation_sums(&map, None, 1, Some(bad))),
            format!("evaluation_sums: threshold: {bad} is not in [0, 1], the range of the map")
        );
        assert_eq!(
            message(EvaluationSums::from_tables(&[0; TABLE_LENGTH], Some(bad))),
            format!("evaluation_sums: threshold: {bad} is not in [0, 1], the range of the map")
        );
    }
    assert!(
        message(EvaluationSums::from_tables(&[u64::MAX; TABLE_LENGTH], None))
            .starts_with("evaluation_sums: tables: that of sample 0 counts ")
    );
    assert_eq!(
        message(EvaluationSums::from_tables(&[0; TABLE_LENGTH + 3], None)),
        "evaluation_sums: tables: 3 words are left behind the last whole table"
    );

    let sums = &evaluation_sums(&map, None, 1, Some(0.3)).unwrap()[0];
    assert_eq!(sums.above(0.3).unwrap().count, 2);
    assert_eq!(
        sums.above(0.4).unwrap_err().to_string(),
        "evaluation_sums: threshold: 0.4 is no multiple of 1/512 in [0, 1] nor 0.3; give it to \
         evaluation_sums"
    );
    let sums = &evaluation_sums(&map, None, 1, None).unwrap()[0];
    assert_eq!(
        sums.above(f32::NAN).unwrap_err().to_string(),
        "evaluation_sums: threshold: NaN is no multiple of 1/512 in [0, 1]; give it to \
         evaluation_sums"
    );
}
