//! Deletion and insertion curves, and Dice.

use medcam::Error;
use medcam::evaluation::{Baseline, deletion, dice, insertion};
use ndarray::{Array2, Array3, ArrayD, array};
use proptest::prelude::*;

fn sum(image: &ArrayD<f32>) -> Result<f64, Error> {
    Ok(image.iter().map(|&value| f64::from(value)).sum())
}

#[test]
fn by_hand() {
    // Two channels of 2x2 voxels. In the map's order, the first channel is 8, 4, 2 and 1.
    let image = array![[[[1.0, 8.0], [2.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]]].into_dyn();
    let map = array![[[0.0, 0.9], [0.3, 0.5]]];
    let curve = deletion(&image, map.view(), 4, Baseline::Zero, sum).unwrap();
    assert_eq!(curve.fractions, [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(curve.scores, [19.0, 10.0, 5.0, 2.0, 0.0]);
    assert_eq!(curve.area, (19.0 / 2.0 + 10.0 + 5.0 + 2.0) / 4.0);
    let curve = insertion(&image, map.view(), 2, Baseline::Zero, sum).unwrap();
    assert_eq!(curve.scores, [0.0, 14.0, 19.0]);
    assert_eq!(curve.area, (7.0 + 16.5) / 2.0);
    // A removed voxel takes the mean of each channel, 3.75 and 1.
    let curve = deletion(&image, map.view(), 4, Baseline::Mean, sum).unwrap();
    assert_eq!(curve.scores, [19.0, 14.75, 14.5, 16.25, 19.0]);
    let curve = deletion(&image, map.view(), 1, Baseline::Value(-1.0), sum).unwrap();
    assert_eq!((curve.scores, curve.area), (vec![19.0, -8.0], 5.5));
    // Three steps over four voxels end at 1, 2 and 4 voxels.
    let curve = deletion(&image, map.view(), 3, Baseline::Zero, sum).unwrap();
    assert_eq!(curve.fractions, [0.0, 0.25, 0.5, 1.0]);
    assert_eq!(curve.area, 14.5 * 0.25 + 7.5 * 0.25 + 2.5 * 0.5);
}

#[test]
fn a_map_of_another_grid_is_resampled_and_equal_voxels_stay_in_order() {
    let image =
        ArrayD::from_shape_fn(vec![1, 1, 2, 3, 4], |i| (i[2] * 12 + i[3] * 4 + i[4]) as f32);
    let mut seen = Vec::new();
    let map = Array3::from_shape_fn((4, 3, 1), |(d, _, _)| if d < 2 { 0.0 } else { 1.0 });
    let curve = deletion(&image, map.view(), 24, Baseline::Value(-1.0), |image| {
        seen.push(image.iter().filter(|&&value| value == -1.0).count());
        sum(image)
    })
    .unwrap();
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
    // The map is greater in the second slice, which goes first, voxel by voxel.
    let lost: Vec<f64> = curve.scores.windows(2).map(|pair| pair[0] - pair[1] - 1.0).collect();
    let expected: Vec<f64> = (12..24).chain(0..12).map(f64::from).collect();
    assert_eq!(lost, expected);
}

/// A map equal to the object makes the Dice of the segmentation fall at once, so its area is small.
#[test]
fn dice_of_a_segmentation_falls_sooner_for_a_better_map() {
    let image = Array2::from_shape_fn((8, 8), |(y, x)| f32::from(y < 4 && x < 4));
    let segment = |image: &ArrayD<f32>| image.mapv(|value| f32::from(value > 0.5));
    let input = image.clone().into_shape_with_order(vec![1, 1, 8, 8]).unwrap();
    let truth = segment(&input);
    let area = |map: Array2<f32>| {
        let map = map.insert_axis(ndarray::Axis(0));
        let score = |image: &ArrayD<f32>| dice(segment(image).view(), truth.view());
        let deleted = deletion(&input, map.view(), 16, Baseline::Zero, score).unwrap();
        let score = |image: &ArrayD<f32>| dice(segment(image).view(), truth.view());
        let inserted = insertion(&input, map.view(), 16, Baseline::Zero, score).unwrap();
        assert_eq!((deleted.scores[0], deleted.scores[16]), (1.0, 0.0));
        assert_eq!((inserted.scores[0], inserted.scores[16]), (0.0, 1.0));
        (deleted.area, inserted.area)
    };
    let (good, bad) = (area(image.clone()), area(1.0 - image));
    assert!(good.0 < 0.2 && good.1 > 0.8, "{good:?}");
    assert!(bad.0 > 0.8 && bad.1 < 0.2, "{bad:?}");
}

#[test]
fn dice_by_hand() {
    let (one, none) = (array![1.0, 0.0, 1.0], array![0.0, 0.0, 0.0]);
    assert_eq!(dice(one.view(), one.view()).unwrap(), 1.0);
    assert_eq!(dice(one.view(), none.view()).unwrap(), 0.0);
    assert_eq!(dice(none.view(), none.view()).unwrap(), 1.0);
    let message =
        |other: ndarray::Array1<f32>| dice(one.view(), other.view()).unwrap_err().to_string();
    assert_eq!(message(array![1.0]), "dice: the masks have shapes [3] and [1]");
    assert_eq!(message(array![1.0, 0.0, 2.0]), "dice: a mask has the value 2; make it 0/1");
    assert!(message(array![1.0, f32::NAN, 0.0]).contains("NaN"));
}

proptest! {
    /// With a score that is a sum over voxels, the deletion and insertion scores add up to the
    /// total.
    #[test]
    fn deletion_and_insertion_mirror_each_other(
        values in prop::collection::vec(0..100_u8, 2..60),
        steps in 1..20_usize,
    ) {
        let voxels = values.len();
        let steps = steps.min(voxels);
        let row = |values: Vec<f32>| ArrayD::from_shape_vec(vec![1, 1, 1, voxels], values).unwrap();
        let image = row(values.iter().map(|&value| f32::from(value)).collect());
        let map = Array3::from_shape_vec((1, 1, voxels), image.iter().copied().collect()).unwrap();
        let deleted = deletion(&image, map.view(), steps, Baseline::Zero, sum).unwrap();
        let inserted = insertion(&image, map.view(), steps, Baseline::Zero, sum).unwrap();
        let total = sum(&image).unwrap();
        for (a, b) in deleted.scores.iter().zip(&inserted.scores) {
            prop_assert!((a + b - total).abs() < 1e-9);
        }
        prop_assert!((deleted.area + inserted.area - total).abs() < 1e-6);
        // Deleting the greatest voxels first leaves the least sum at each step.
        let mut sorted = values.clone();
        sorted.sort_unstable();
        for (fraction, score) in deleted.fractions.iter().zip(&deleted.scores) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let left = voxels - (fraction * voxels as f64).round() as usize;
            let least: f64 = sorted[..left].iter().map(|&value| f64::from(value)).sum();
            prop_assert_eq!(*score, least);
        }
    }
}

#[test]
fn bad_arguments_are_named() {
    let image = ArrayD::<f32>::zeros(vec![1, 2, 3, 4]);
    let map = Array3::<f32>::zeros((1, 3, 4));
    let message = |image: &ArrayD<f32>, map: &Array3<f32>, steps| {
        let error = deletion(image, map.view(), steps, Baseline::Zero, sum).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    for shape in [vec![3, 4], vec![2, 2, 3, 4], vec![1, 1, 1, 1, 3, 4]] {
        let text = message(&ArrayD::zeros(shape), &map, 4);
        assert!(text.contains("not (1, C, H, W) or (1, C, D, H, W)"), "{text}");
    }
    assert!(message(&ArrayD::zeros(vec![1, 0, 3, 4]), &map, 4).contains("no voxels"));
    assert!(message(&image, &Array3::zeros((1, 0, 4)), 4).contains("no voxels"));
    assert!(message(&image, &Array3::zeros((2, 3, 4)), 4).contains("of a 2D image"));
    assert!(message(&image, &map, 0).contains("steps: 0 for 12 voxels"));
    assert!(message(&image, &map, 13).contains("steps: 13 for 12 voxels"));
    assert!(message(&image, &map.mapv(|_| f32::NAN), 4).contains("map: 12 values are not finite"));
    let bad = image.mapv(|_| f32::INFINITY);
    assert!(message(&bad, &map, 4).contains("image: 24 values are not finite"));

    let nan = |_: &ArrayD<f32>| Ok::<_, Error>(f64::NAN);
    let error = insertion(&image, map.view(), 4, Baseline::Zero, nan).unwrap_err();
    assert_eq!(error.to_string(), "curve: score: NaN at step 0 of 4");
    // An error of the score is returned as it is.
    let fail = |_: &ArrayD<f32>| Err::<f64, Box<dyn std::error::Error>>("no network".into());
    let error = insertion(&image, map.view(), 4, Baseline::Zero, fail).unwrap_err();
    assert_eq!(error.to_string(), "no network");
}
