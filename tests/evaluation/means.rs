//! The means of a study: grouping, order, and the handling of NaN.

use medcam::evaluation::{Evaluator, Masks, Metric, Scoring, Threshold};
use ndarray::array;

/// A study in which `ioa` is 1 for a hit, 0 for a miss, and NaN without attention.
pub fn study(order: &[&str]) -> Evaluator {
    let (hit, miss, none) = (array![[[0.0, 1.0]]], array![[[1.0, 0.0]]], array![[[0.0, 0.0]]]);
    let mask = array![[[0.0, 1.0]]];
    let mut evaluator = Evaluator::new(
        Scoring::new(vec![Metric::Ioa, Metric::Iou], Threshold::Otsu).masks(Masks::Binary),
    )
    .layer_order(order.iter().map(|&name| name.to_owned()).collect());
    for (map, layer, class, name) in [
        (&hit, "conv2", Some(3), "a"),
        (&miss, "conv10", Some(3), "a"),
        (&none, "conv2", Some(3), "b"),
        (&hit, "conv2", None, "b"),
        (&hit, "conv10", Some(3), "b"),
        (&none, "conv1", Some(3), "b"),
    ] {
        evaluator.add(map.view(), mask.view(), layer, class, name).unwrap();
    }
    evaluator
}

#[test]
fn all_scores_are_kept_in_order() {
    let study = study(&[]);
    assert_eq!(study.scores().len(), 12);
    let third = &study.scores()[2];
    assert_eq!((third.metric.as_str(), third.layer.as_str()), ("ioa", "conv10"));
    assert_eq!((third.score, third.class, third.name.as_str()), (0.0, Some(3), "a"));
    assert!(study.scores()[4].score.is_nan());
}

#[test]
fn means_of_each_layer_class_and_metric() {
    let groups = |order: &[&str]| -> Vec<_> {
        let means = study(order).means();
        means
            .into_iter()
            .map(|m| (m.layer, m.class, m.metric, m.mean.to_string(), m.count, m.undefined))
            .collect()
    };
    let row = |layer: &str, class, metric: &str, mean: &str, count, undefined| {
        (layer.to_owned(), class, metric.to_owned(), mean.to_owned(), count, undefined)
    };
    let conv2 = [
        row("conv2", Some(3), "ioa", "1", 1, 1),
        row("conv2", Some(3), "iou", "0.5", 2, 0),
        row("conv2", None, "ioa", "1", 1, 0),
        row("conv2", None, "iou", "1", 1, 0),
    ];
    let conv10 =
        [row("conv10", Some(3), "ioa", "0.5", 2, 0), row("conv10", Some(3), "iou", "0.5", 2, 0)];
    let conv1 =
        [row("conv1", Some(3), "ioa", "NaN", 0, 1), row("conv1", Some(3), "iou", "0", 1, 0)];
    assert_eq!(groups(&[]), [&conv2[..], &conv10, &conv1].concat());
    assert_eq!(groups(&["conv1", "other", "conv10"]), [&conv1[..], &conv10, &conv2].concat());
    assert!(Evaluator::new(Scoring::new(vec![Metric::Ioa], Threshold::Otsu)).means().is_empty());
}
