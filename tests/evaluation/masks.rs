//! Which masks are accepted, and the errors for others.

use medcam::evaluation::{Evaluator, Masks, Metric, Scoring, Threshold};
use ndarray::{Array3, array};

fn map() -> Array3<f32> {
    array![[[0.0, 0.5, 0.75, 1.0]]]
}

/// The scores of [`map`], or the error about the mask.
fn of(masks: Masks, mask: [f32; 4], class: Option<usize>) -> Result<Vec<f64>, String> {
    let mask = Array3::from_shape_vec([1, 1, 4], mask.to_vec()).unwrap();
    let scoring = Scoring::new(vec![Metric::Ioa, Metric::Iou], Threshold::Value(0.5));
    let mut evaluator = Evaluator::new(scoring.masks(masks));
    let scores = evaluator.add(map().view(), mask.view(), "layer", class, "name");
    assert_eq!(evaluator.scores().len(), if scores.is_ok() { 2 } else { 0 });
    scores.map_err(|error| {
        assert!(error.is_input());
        error.to_string()
    })
}

#[test]
fn labels_are_chosen_by_class() {
    let labels = [0.0, 2.0, 2.0, 1.0];
    for masks in [Masks::Detect, Masks::Labels] {
        assert_eq!(of(masks, labels, Some(0)).unwrap(), [0.0, 0.0]);
        assert_eq!(of(masks, labels, Some(1)).unwrap(), [1.0 / 3.0, 1.0 / 3.0]);
        assert_eq!(of(masks, labels, Some(2)).unwrap(), [2.0 / 3.0, 2.0 / 3.0]);
        // A class that the mask does not contain.
        assert_eq!(of(masks, labels, Some(7)).unwrap(), [0.0, 0.0]);
        assert_eq!(of(masks, [0.0; 4], Some(7)).unwrap(), [0.0, 0.0]);
        assert_eq!(of(masks, [0.0, 0.0, 0.0, 1.0], Some(1)).unwrap()[0], 1.0 / 3.0);
        let error = of(masks, [0.0, 0.5, -1.0, 1.0], Some(1)).unwrap_err();
        assert_eq!(
            error,
            "evaluate: mask: no label at 2 of the 4 voxels, the first is 0.5 at [0, 0, 1]; labels \
             are whole numbers from 0 on"
        );
    }
    assert_eq!(of(Masks::Labels, [0.0, 0.0, 0.0, 1.0], Some(2)).unwrap(), [0.0, 0.0]);
    assert!(of(Masks::Labels, labels, None).unwrap_err().contains("labels need a class"));
}

#[test]
fn a_0_1_mask_stands_for_any_class_where_that_is_said() {
    let mask = [0.0, 0.0, 0.0, 1.0];
    for class in [None, Some(0), Some(1), Some(5)] {
        assert_eq!(of(Masks::Binary, mask, class).unwrap()[0], 1.0 / 3.0);
    }
    assert_eq!(of(Masks::Detect, mask, None).unwrap()[0], 1.0 / 3.0);
    for class in [Some(0), Some(5)] {
        let error = of(Masks::Detect, mask, class).unwrap_err();
        assert!(error.contains("only 0 and 1") && error.contains("masks: binary"), "{error}");
    }
}

#[test]
fn masks_that_are_not_0_1_are_refused() {
    for (masks, class) in [(Masks::Detect, None), (Masks::Binary, None), (Masks::Binary, Some(2))] {
        let error = of(masks, [0.0, 1.0, 2.0, 0.5], class).unwrap_err();
        assert_eq!(
            error,
            "evaluate: mask: neither 0 nor 1 at 2 of the 4 voxels, the first is 2 at [0, 0, 2]; \
             make it 0/1, or choose a class of a mask of labels"
        );
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let error = of(Masks::Detect, [0.0, bad, 1.0, bad], Some(1)).unwrap_err();
        assert_eq!(error, "evaluate: mask: 2 of the 4 voxels are not finite");
    }
}

#[test]
fn maps_that_do_not_fit_are_refused() {
    let message = |map: Array3<f32>, mask: Array3<f32>, threshold| {
        let evaluator = Evaluator::new(Scoring::new(vec![Metric::Ioa], threshold));
        let error = evaluator.compute(map.view(), mask.view()).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    let (flat, deep) = (Array3::zeros([1, 4, 4]), Array3::zeros([4, 4, 4]));
    let otsu = Threshold::Otsu;
    assert_eq!(
        message(flat.clone(), deep.clone(), otsu),
        "evaluate: map: 2D with shape [1, 4, 4], the mask is 3D with shape [4, 4, 4]; bring both \
         to one space"
    );
    assert!(message(deep.clone(), flat.clone(), otsu).contains("3D with shape [4, 4, 4]"));
    let none = Array3::zeros([0, 4, 4]);
    assert!(message(none.clone(), deep.clone(), otsu).contains("shape [0, 4, 4] has no voxels"));
    assert!(message(deep.clone(), none, otsu).contains("mask: shape [0, 4, 4] has no voxels"));
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let mut map = deep.clone();
        map[[1, 2, 3]] = bad;
        let message = message(map, deep.clone(), otsu);
        assert_eq!(message, "evaluate: map: 1 of the 64 voxels are not finite");
    }
    for threshold in [-0.1, 1.5, f32::NAN] {
        let message = message(deep.clone(), deep.clone(), Threshold::Value(threshold));
        assert!(message.contains("is not in [0, 1]"), "{message}");
    }
}

#[test]
fn names_of_metrics_and_thresholds() {
    for metric in Metric::NAMED {
        assert_eq!(metric.to_string().parse::<Metric>().unwrap().name(), metric.name());
    }
    for bad in ["", "IOA", "wiou ", "dice"] {
        let error = bad.parse::<Metric>().unwrap_err();
        assert!(error.is_usage());
        assert!(error.to_string().contains("expected one of ioa, wioa, iou, wiou, pointing_game"));
    }
    for good in ["otsu", "0", "1", "0.25", "5e-1"] {
        let threshold: Threshold = good.parse().unwrap();
        assert_eq!(threshold.to_string().parse::<Threshold>().unwrap(), threshold);
    }
    for bad in ["", "Otsu", "1.5", "-0.1", "NaN", "inf", "0,3"] {
        let error = bad.parse::<Threshold>().unwrap_err();
        assert!(error.is_usage());
        assert!(error.to_string().contains("expected otsu or a number from 0 to 1"));
    }
}
