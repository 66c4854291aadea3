//! Metrics against numbers by hand, M3d-CAM's own numbers, and the definitions voxel by voxel.

use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
use medcam::ops::{Interpolation, Resize, resample};
use ndarray::{Array3, ArrayView3};
use proptest::prelude::*;

fn array(shape: [usize; 3], values: &[f32]) -> Array3<f32> {
    Array3::from_shape_vec(shape, values.to_vec()).unwrap()
}

/// The scores of all named metrics, for a map and a mask of one row.
fn scores(threshold: Threshold, map: &[f32], mask: &[f32]) -> Vec<f64> {
    let evaluator = Evaluator::new(Scoring::new(Metric::NAMED.to_vec(), threshold));
    let [map, mask] = [map, mask].map(|values| array([1, 1, values.len()], values));
    evaluator.compute(map.view(), mask.view()).unwrap()
}

#[track_caller]
fn assert_close(scores: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(scores.len(), expected.len());
    for (score, expected) in scores.iter().zip(expected) {
        let same = score.is_nan() && expected.is_nan();
        assert!(same || (score - expected).abs() <= tolerance, "{scores:?} {expected:?}");
    }
}

const NAN: f64 = f64::NAN;

#[test]
fn by_hand() {
    let (map, mask) = ([0.0, 0.25, 0.5, 1.0, 0.75], [0.0, 1.0, 1.0, 1.0, 0.0]);
    let half = Threshold::Value(0.5);
    // The attention is 0.5, 1 and 0.75, the first two of them inside the mask of three voxels. The
    // three greatest values are 1, 0.75 and 0.5.
    let expected = [2. / 3., 1.5 / 2.25, 2. / 4., 1.5 / 3.75, 1., 1.75 / 2.5, 2. / 3.];
    assert_close(&scores(half, &map, &mask), &expected, 1e-9);
    // Neither sign nor scale matters.
    let map = map.map(|value| -8.0 * value);
    assert_close(&scores(half, &map, &mask), &expected, 1e-9);
    // A constant added everywhere changes the relevance mass alone.
    let map = map.map(|value| value.abs() / 8.0 + 1.0);
    let expected = [expected[0], expected[1], expected[2], expected[3], 1., 4.75 / 7.5, 2. / 3.];
    assert_close(&scores(half, &map, &mask), &expected, 1e-7);
    // The greatest value lies outside the mask.
    let scores = scores(half, &[0.9, 1.0, 0.0], &[1.0, 0.0, 0.0]);
    assert_close(&scores[4..], &[0.0, 0.9 / 1.9, 0.0], 1e-7);
}

#[test]
fn voxels_of_equal_value_share_a_place() {
    // The greatest voxel is in the mask. Four zeros share the other two places, two of them in the
    // mask.
    let (map, mask) = ([1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]);
    let ranks = scores(Threshold::Otsu, &map, &mask);
    assert_close(&ranks[4..], &[1.0, 1.0, (1.0 + 2.0 * 0.5) / 3.0], 1e-12);
    // Two voxels have the greatest value, one of them in the mask.
    let pointing = scores(Threshold::Otsu, &[1.0, 0.0, 1.0], &[1.0, 0.0, 0.0]);
    assert_close(&pointing[4..], &[0.5, 0.5, 0.5], 1e-12);
}

#[test]
fn without_attention_or_mask_what_is_0_of_0_is_nan() {
    let (map, mask, none) = ([0.0, 0.5, 1.0], [0.0, 1.0, 1.0], [0.0; 3]);
    for threshold in [Threshold::Otsu, Threshold::Value(0.0), Threshold::Value(1.0)] {
        for constant in [0.0, 0.7, -3.0] {
            let scores = |mask| scores(threshold, &[constant; 3], mask);
            assert_close(&scores(&mask), &[NAN, NAN, 0.0, 0.0, NAN, NAN, NAN], 0.0);
            assert_close(&scores(&none), &[NAN; 7], 0.0);
        }
        let scores = scores(threshold, &map, &none);
        assert_close(&scores, &[0.0, 0.0, 0.0, 0.0, NAN, NAN, NAN], 0.0);
    }
    // A single voxel is a constant map.
    assert!(scores(Threshold::Otsu, &[1.0], &[1.0])[0].is_nan());
}

#[test]
fn attention_that_is_the_mask_scores_1() {
    let map = [0.0, 1.0, 1.0, 0.0, 1.0];
    assert_close(&scores(Threshold::Otsu, &map, &map), &[1.0; 7], 0.0);
}

#[test]
fn a_metric_of_ones_own_gets_the_map_on_the_masks_grid_and_the_mask() {
    let own = Metric::function("own", |map: ArrayView3<'_, f32>, mask: ArrayView3<'_, u8>| {
        assert_eq!((map.dim(), mask.dim()), ((1, 1, 4), (1, 1, 4)));
        let products = map.iter().zip(mask).map(|(&value, &mask)| value * f32::from(mask));
        f64::from(products.sum::<f32>())
    });
    let evaluator = Evaluator::new(Scoring::new(vec![own, Metric::Ioa], Threshold::Otsu));
    let (map, mask) = (array([1, 1, 2], &[0.0, -4.0]), array([1, 1, 4], &[0.0, 1.0, 1.0, 0.0]));
    let scores = evaluator.compute(map.view(), mask.view()).unwrap();
    // The map is resampled to 0, 1, 3, 4.
    assert_close(&scores, &[1.0, 0.5], 1e-12);
}

/// Knuth's linear congruential generator, which the Python script behind `THEIRS` uses too.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// Grid of the map, grid of the mask and seed; then ioa, wioa, iou and wiou at Otsu's threshold,
/// and at 0.3.
type Case = ([usize; 3], [usize; 3], u64, [f64; 4], [f64; 4]);

/// From `comp_score` of M3d-CAM 0.1.22 with scikit-image 0.25.2.
const THEIRS: [Case; 3] = [
    (
        [1, 5, 7],
        [1, 13, 17],
        1,
        [0.41304347826086957, 0.4113288658092641, 0.16379310344827586, 0.11038722564830314],
        [0.40298507462686567, 0.4066915992921584, 0.20930232558139536, 0.1312150759169743],
    ),
    (
        [3, 4, 5],
        [6, 9, 11],
        2,
        [0.41233766233766234, 0.40513382721068103, 0.3031026252983294, 0.22897795840136007],
        [0.408203125, 0.4019872205036889, 0.38632162661737524, 0.2816405882369598],
    ),
    (
        [1, 6, 6],
        [1, 6, 6],
        3,
        [0.3333333333333333, 0.396762291030065, 0.17391304347826086, 0.16189740735979682],
        [0.3076923076923077, 0.382515696306866, 0.16666666666666666, 0.15947380882841636],
    ),
];

#[test]
fn the_numbers_are_m3d_cams() {
    for (from, to, seed, at_otsu, at_value) in THEIRS {
        let mut map = array(from, &values(from.iter().product(), seed));
        if seed != 2 {
            map.mapv_inplace(|value| value.max(0.0));
        }
        let mask = Array3::from_shape_fn(to, |(d, h, w)| f32::from((d + h + w) % 5 < 2));
        for (threshold, expected) in [(Threshold::Otsu, at_otsu), (Threshold::Value(0.3), at_value)]
        {
            let evaluator = Evaluator::new(Scoring::new(Metric::NAMED[..4].to_vec(), threshold));
            let scores = evaluator.compute(map.view(), mask.view()).unwrap();
            // M3d-CAM sums in f64, and computes positions in f32.
            assert_close(&scores, &expected, 1e-6);
        }
    }
}

/// The metrics by their definitions, voxel by voxel in f64. `None` if a value is so near the
/// threshold that f32 may round it to the other side.
fn plainly(
    map: &[f32],
    from: [usize; 3],
    to: [usize; 3],
    mask: &[f32],
    t: f64,
) -> Option<Vec<f64>> {
    let map: Vec<f64> = map.iter().map(|&value| f64::from(value.abs())).collect();
    let raw = resample::reference(&map, Resize { batch: 1, from, to }, Interpolation::Linear);
    let least = raw.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let a: Vec<f64> = raw.iter().map(|value| (value - least) / (greatest - least)).collect();
    let near = |value: &f64| (value - t).abs() < 1e-5;
    if greatest - least < 1e-3 || a.iter().any(near) {
        return None;
    }
    let m: Vec<f64> = mask.iter().map(|&value| value.into()).collect();
    let b: Vec<f64> = a.iter().map(|&value| f64::from(u8::from(value >= t))).collect();
    let sum = |term: &dyn Fn(usize) -> f64| (0..a.len()).map(term).sum::<f64>();
    let size = sum(&|i| m[i]);
    let mut order: Vec<usize> = (0..a.len()).collect();
    order.sort_by(|&i, &j| a[j].total_cmp(&a[i]));
    let count = m.iter().filter(|&&inside| inside == 1.0).count();
    let inside = |count: usize| order[..count].iter().map(|&i| m[i]).sum::<f64>();
    Some(vec![
        sum(&|i| b[i] * m[i]) / sum(&|i| b[i]),
        sum(&|i| a[i] * b[i] * m[i]) / sum(&|i| a[i] * b[i]),
        sum(&|i| b[i] * m[i]) / sum(&|i| b[i].max(m[i])),
        sum(&|i| (a[i] * b[i]).min(m[i])) / sum(&|i| (a[i] * b[i]).max(m[i])),
        inside(1),
        sum(&|i| raw[i] * m[i]) / sum(&|i| raw[i]),
        inside(count) / size,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn as_defined_voxel_by_voxel(
        [from, to] in prop::sample::select(vec![
            [[1, 1, 7], [1, 1, 7]],
            [[1, 3, 5], [1, 9, 11]],
            [[4, 3, 5], [7, 9, 6]],
            [[6, 7, 8], [3, 4, 3]],
            [[2, 2, 2], [13, 12, 11]],
        ]),
        threshold in 0.01..0.99_f32,
        share in 1..20_u64,
        seed: u64,
    ) {
        let map = values(from.iter().product(), seed);
        let noise = values(to.iter().product(), !seed);
        let least = share as f32 / 10.0 - 1.0;
        let mask: Vec<f32> = noise.iter().map(|&value| f32::from(value < least)).collect();
        prop_assume!(mask.contains(&1.0));
        let Some(mut expected) = plainly(&map, from, to, &mask, threshold.into()) else {
            return Ok(());
        };
        let evaluator = Evaluator::new(Scoring::new(Metric::NAMED.to_vec(), Threshold::Value(threshold)));
        let (map, mask) = (array(from, &map), array(to, &mask));
        let mut scores = evaluator.compute(map.view(), mask.view()).unwrap();
        prop_assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{:?}", scores);
        // Outside the outermost voxel centres, resampled values are equal. f64 and f32 may then
        // break the ties differently, so the ranks are not compared.
        if from != to {
            (scores[4], expected[4]) = (0.0, 0.0);
            (scores[6], expected[6]) = (0.0, 0.0);
        }
        assert_close(&scores, &expected, 1e-5);
        // The memory order of the map does not matter.
        let turned = map.t().as_standard_layout().into_owned();
        let again = evaluator.compute(turned.t(), mask.view()).unwrap();
        prop_assert_eq!(again, evaluator.compute(map.view(), mask.view()).unwrap());
    }

    /// The rank accuracy does not depend on the order of the voxels, as it is the mean over all
    /// ways to break ties.
    #[test]
    fn rank_and_pointing_do_not_depend_on_the_order(
        levels in prop::collection::vec((0..4_u8, any::<bool>()), 2..40),
        turn in 0..40_usize,
    ) {
        let row = |levels: &[(u8, bool)]| {
            let map: Vec<f32> = levels.iter().map(|&(level, _)| f32::from(level) / 4.0).collect();
            let mask: Vec<f32> = levels.iter().map(|&(_, inside)| f32::from(inside)).collect();
            scores(Threshold::Otsu, &map, &mask)
        };
        let mut turned = levels.clone();
        turned.rotate_left(turn % levels.len());
        assert_close(&row(&levels), &row(&turned), 0.0);
        let count = levels.iter().filter(|(_, inside)| *inside).count();
        let constant = levels.iter().all(|(level, _)| *level == levels[0].0);
        if count > 0 && !constant {
            // The score lies between those with ties broken against and for the mask.
            let best = |inside_first: bool| {
                let mut order = levels.clone();
                order.sort_by_key(|&(level, inside)| (4 - level, inside != inside_first));
                order[..count].iter().filter(|(_, inside)| *inside).count() as f64 / count as f64
            };
            let rank = row(&levels)[6];
            prop_assert!((best(false) - 1e-12..=best(true) + 1e-12).contains(&rank), "{}", rank);
        }
    }
}
