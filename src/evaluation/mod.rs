//! Scores attention maps against masks, by the metrics of M3d-CAM and of the literature, and
//! collects the scores of a study. Needs no libtorch.
//!
//! As in M3d-CAM, a map is first prepared: its absolute value is resampled linearly to the mask's
//! grid and normalised to `[0, 1]`. Below, `a` is the prepared map, `m` the mask, 0 or 1, and
//! `b = (a >= t)` the attention at the [`Threshold`] `t`. All sums run over the voxels.
//!
//! | metric | score | source |
//! |---|---|---|
//! | [`Ioa`](Metric::Ioa) | `Σ b·m / Σ b` | M3d-CAM, arXiv 2007.00453 |
//! | [`WeightedIoa`](Metric::WeightedIoa) | `Σ a·b·m / Σ a·b` | M3d-CAM |
//! | [`Iou`](Metric::Iou) | `Σ b·m / Σ max(b, m)` | M3d-CAM; Jaccard 1912 |
//! | [`WeightedIou`](Metric::WeightedIou) | `Σ min(a·b, m) / Σ max(a·b, m)` | M3d-CAM; Ruzicka 1958 |
//! | [`PointingGame`](Metric::PointingGame) | 1 if the greatest `a` lies in the mask, else 0 | Zhang et al. 2016, arXiv 1608.00507 |
//! | [`RelevanceMass`](Metric::RelevanceMass) | `Σ r·m / Σ r`, `r` before normalisation | Arras et al. 2022, CLEVR-XAI, arXiv 2003.07258 |
//! | [`RelevanceRank`](Metric::RelevanceRank) | of the `Σ m` voxels of greatest `a`, the part in the mask | Arras et al. 2022 |
//!
//! The first four agree with M3d-CAM 0.1.22 to 1e-7, so they need no compatibility mode. They
//! differ in two cases: in maps of a few voxels where two Otsu thresholds are equally good and
//! rounding decides, and in maps of a single voxel, whose resampling in M3d-CAM leaves rounding
//! noise. M3d-CAM's source calls its `wiou` "bad and wrong". It is neither: as `0 <= a·b <= 1`, its
//! `Σ a·b·m / Σ (a·b·(1 - m) + m)` is the weighted Jaccard (Ruzicka) similarity above, which is 1
//! only where the attention is the mask.
//!
//! An undefined score, 0/0, is NaN, and means leave it out.
//!
//! | | `ioa`, `wioa` | `iou`, `wiou` | pointing game | relevance mass | relevance rank |
//! |---|---|---|---|---|---|
//! | constant map: no attention | NaN | 0 | NaN | NaN | NaN |
//! | empty mask | 0 | 0 | NaN | NaN | NaN |
//! | both | NaN | NaN | NaN | NaN | NaN |
//!
//! # Example
//!
//! ```
//! use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
//! use ndarray::array;
//!
//! let map = array![[[0.1, 0.2, 0.9, 1.0]]];
//! let mask = array![[[0.0, 0.0, 0.0, 1.0]]];
//! let metrics = vec![Metric::Ioa, Metric::PointingGame];
//! let mut evaluator = Evaluator::new(Scoring::new(metrics, Threshold::Otsu));
//! let scores = evaluator.add(map.view(), mask.view(), "conv4", None, "scan-1")?;
//! assert_eq!(scores, [0.5, 1.0]);
//! assert_eq!(evaluator.means()[0].mean, 0.5);
//! # Ok::<(), medcam::Error>(())
//! ```

mod curves;
mod dump;
mod evaluator;
mod masks;
mod metric;
mod pair;
mod plot;
mod prepared;

pub use curves::{Baseline, Curve, deletion, dice, insertion};
#[cfg(feature = "cli")]
pub(crate) use dump::FILES;
pub use evaluator::{Evaluator, MeanScore, Score, Scoring};
pub use masks::Masks;
pub use metric::{Function, Metric, Threshold};
pub use pair::pair;
pub(crate) use prepared::attention;
