//! The scores of a study, and their means.

use std::collections::HashMap;

use ndarray::ArrayView3;

use serde::Serialize;

use super::masks::Masks;
use super::metric::{Metric, Threshold};
use super::prepared::Prepared;
use crate::error::Result;

/// The metrics to compute, the threshold of attention, and how masks are read.
///
/// # Example
///
/// ```
/// use medcam::evaluation::{Masks, Metric, Scoring, Threshold};
///
/// let scoring = Scoring::new(vec![Metric::Iou], Threshold::Value(0.5)).masks(Masks::Binary);
/// assert_eq!(scoring.metrics, [Metric::Iou]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Scoring {
    /// The metrics to compute.
    pub metrics: Vec<Metric>,
    /// The least value at which a voxel counts as attention.
    pub threshold: Threshold,
    /// How the values of masks are read.
    pub masks: Masks,
}

impl Scoring {
    /// Scoring by these metrics at this threshold, with masks read as [`Masks::Detect`].
    pub fn new(metrics: Vec<Metric>, threshold: Threshold) -> Self {
        Self { metrics, threshold, masks: Masks::default() }
    }

    /// Overrides how mask values are interpreted; by default this is inferred from the values.
    #[must_use]
    pub fn masks(mut self, masks: Masks) -> Self {
        self.masks = masks;
        self
    }
}

/// Scores maps against masks and keeps the scores.
///
/// # Example
///
/// One mask with a label per class:
///
/// ```
/// use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
/// use ndarray::array;
///
/// let labels = array![[[0.0, 2.0], [1.0, 2.0]]];
/// let map = array![[[0.1, 1.0], [0.2, 0.9]]];
/// let mut evaluator = Evaluator::new(Scoring::new(vec![Metric::Iou], Threshold::Value(0.5)));
/// assert_eq!(evaluator.add(map.view(), labels.view(), "up2", Some(2), "scan-1")?, [1.0]);
/// assert_eq!(evaluator.add(map.view(), labels.view(), "up2", Some(1), "scan-1")?, [0.0]);
/// assert_eq!(evaluator.means().len(), 2);
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Evaluator {
    pub(super) scoring: Scoring,
    layer_order: Vec<String>,
    scores: Vec<Score>,
}

/// One score of one map.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// The metric's name.
    pub metric: String,
    /// The score; NaN where it is not defined.
    pub score: f64,
    /// The layer of the map.
    pub layer: String,
    /// The class that was explained.
    pub class: Option<usize>,
    /// Name of the evaluated image, such as the stem of its file.
    pub name: String,
}

/// The mean over all names of one metric, layer and class.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MeanScore {
    /// The metric's name.
    pub metric: String,
    /// The mean of the scores that are defined; NaN if none is.
    pub mean: f64,
    /// The layer.
    pub layer: String,
    /// The class.
    pub class: Option<usize>,
    /// Number of defined scores in the mean.
    pub count: usize,
    /// Number of NaN scores, which the mean leaves out.
    pub undefined: usize,
}

impl Evaluator {
    /// An evaluator without scores.
    pub fn new(scoring: Scoring) -> Self {
        Self { scoring, layer_order: Vec::new(), scores: Vec::new() }
    }

    /// The order of layers in the means and their plot, such as that of the model. Layers that are
    /// not among `names` come last, in the order in which they were added, as all do without this.
    #[must_use]
    pub fn layer_order(mut self, names: Vec<String>) -> Self {
        self.layer_order = names;
        self
    }

    /// The scores of one map against a 0/1 mask, one per metric. Nothing is kept.
    ///
    /// | argument | shape | |
    /// |---|---|---|
    /// | `map` | `(D, H, W)` | any finite values; 2D has `D = 1` |
    /// | `mask` | `(D', H', W')` | the map is resampled to this grid, as both cover the same field of view |
    ///
    /// # Errors
    ///
    /// If map or mask has no voxels or a value that is not finite, the mask a value other than 0
    /// and 1, one is 2D and the other 3D, or the threshold is not in `[0, 1]`.
    pub fn compute(&self, map: ArrayView3<'_, f32>, mask: ArrayView3<'_, f32>) -> Result<Vec<f64>> {
        self.of_class(map, mask, None)
    }

    /// Computes the scores of one map, one per metric, and keeps them.
    ///
    /// `class` is the class that the map explains; in a mask of labels it selects the voxels: see
    /// [`Masks`]. `name` identifies the image.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::compute`]; also if the mask does not fit the class. Then no score is kept.
    pub fn add(
        &mut self,
        map: ArrayView3<'_, f32>,
        mask: ArrayView3<'_, f32>,
        layer: &str,
        class: Option<usize>,
        name: &str,
    ) -> Result<Vec<f64>> {
        let scores = self.of_class(map, mask, class)?;
        self.scores.extend(self.scoring.metrics.iter().zip(&scores).map(|(metric, &score)| {
            Score {
                metric: metric.to_string(),
                score,
                layer: layer.to_owned(),
                class,
                name: name.to_owned(),
            }
        }));
        Ok(scores)
    }

    /// Adds the scores of another evaluator, with the same [`Scoring`], behind those that are there.
    pub fn append(&mut self, other: Self) {
        self.scores.extend(other.scores);
    }

    /// Keeps the first `count` scores only.
    pub fn truncate(&mut self, count: usize) {
        self.scores.truncate(count);
    }

    fn of_class(
        &self,
        map: ArrayView3<'_, f32>,
        mask: ArrayView3<'_, f32>,
        class: Option<usize>,
    ) -> Result<Vec<f64>> {
        let selected = self.scoring.masks.select(mask, class)?;
        let prepared = Prepared::new(map, selected, mask.dim().into(), self.scoring.threshold)?;
        self.scoring.metrics.iter().map(|metric| prepared.score(metric)).collect()
    }

    /// The metrics, the threshold and the reading of masks.
    pub fn scoring(&self) -> &Scoring {
        &self.scoring
    }

    /// All scores, in the order in which they were added.
    pub fn scores(&self) -> &[Score] {
        &self.scores
    }

    /// The mean of each layer, class and metric over all names: layers by
    /// [`Evaluator::layer_order`], classes and metrics in the order in which they were added.
    pub fn means(&self) -> Vec<MeanScore> {
        let mut layers: HashMap<&str, usize> = HashMap::new();
        let mut places: HashMap<(&str, Option<usize>, &str), usize> = HashMap::new();
        let mut means: Vec<MeanScore> = Vec::new();
        for score in &self.scores {
            let layer = layers.len();
            layers.entry(&score.layer).or_insert(layer);
            let group = (score.layer.as_str(), score.class, score.metric.as_str());
            let place = *places.entry(group).or_insert_with(|| {
                means.push(MeanScore {
                    metric: score.metric.clone(),
                    mean: 0.0,
                    layer: score.layer.clone(),
                    class: score.class,
                    count: 0,
                    undefined: 0,
                });
                means.len() - 1
            });
            let mean = &mut means[place];
            if score.score.is_nan() {
                mean.undefined += 1;
            } else {
                // The sum of the scores, divided by their number below.
                mean.mean += score.score;
                mean.count += 1;
            }
        }
        for mean in &mut means {
            mean.mean /= mean.count as f64;
        }
        let place = |name: &str| {
            let known = self.layer_order.iter().position(|layer| layer == name);
            (known.unwrap_or(usize::MAX), layers.get(name).copied())
        };
        // The sort is stable, so classes and metrics keep their order.
        means.sort_by_cached_key(|mean| place(&mean.layer));
        means
    }
}
