//! Metrics, and the threshold of attention.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::ArrayView3;
use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// A metric of a map against a mask; the table of [`evaluation`](crate::evaluation) has the
/// formulas.
///
/// # Example
///
/// ```
/// use medcam::evaluation::Metric;
///
/// assert_eq!("wioa".parse::<Metric>()?.to_string(), "wioa");
/// let greatest = Metric::function("greatest_in_mask", |map, mask| {
///     let inside = map.iter().zip(mask).filter(|(_, inside)| **inside != 0);
///     inside.map(|(&value, _)| f64::from(value)).fold(0.0, f64::max)
/// });
/// assert_eq!(greatest.to_string(), "greatest_in_mask");
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Metric {
    /// `ioa`, intersection over attention: the fraction of the attention inside the mask.
    Ioa,
    /// `wioa`, intersection over attention with each voxel weighted by its value. M3d-CAM's
    /// default.
    WeightedIoa,
    /// `iou`, intersection over union.
    Iou,
    /// `wiou`, intersection over union of fuzzy sets: a voxel of attention is a member to the
    /// degree of its value.
    WeightedIou,
    /// `pointing_game`: 1 if the voxel of greatest value lies in the mask, else 0. With several
    /// such voxels, the fraction of them in the mask. A hit in a margin around the mask does not
    /// count.
    PointingGame,
    /// `relevance_mass`: the fraction of the map's sum inside the mask; no threshold.
    ///
    /// Sums absolute values before min-max normalisation, which would subtract the least value from
    /// every voxel.
    RelevanceMass,
    /// `relevance_rank`: of the `K` greatest voxels, where `K` is the size of the mask, the
    /// fraction inside the mask; no threshold. If several voxels have the `K`-th value, the score
    /// is the mean over all ways to choose among them.
    RelevanceRank,
    /// A metric of your own, made by [`Metric::function`].
    Function(Function),
}

/// A metric of your own, with its name.
#[derive(Clone)]
pub struct Function {
    name: String,
    score: Arc<Score>,
}

type Score = dyn Fn(ArrayView3<'_, f32>, ArrayView3<'_, u8>) -> f64 + Send + Sync;

impl Function {
    pub(super) fn score(&self, map: ArrayView3<'_, f32>, mask: ArrayView3<'_, u8>) -> f64 {
        (self.score)(map, mask)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.name).finish()
    }
}

impl Metric {
    /// The metrics of this crate, in the order of the table.
    pub const NAMED: [Self; 7] = [
        Self::Ioa,
        Self::WeightedIoa,
        Self::Iou,
        Self::WeightedIou,
        Self::PointingGame,
        Self::RelevanceMass,
        Self::RelevanceRank,
    ];

    /// A metric of your own. `score` takes the map, on the mask's grid and within `[0, 1]`, and the
    /// mask, 0 or 1, both `(D, H, W)`. It returns NaN if the score is undefined.
    pub fn function(
        name: impl Into<String>,
        score: impl Fn(ArrayView3<'_, f32>, ArrayView3<'_, u8>) -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self::Function(Function { name: name.into(), score: Arc::new(score) })
    }

    /// The name that is parsed and that tables show.
    pub fn name(&self) -> &str {
        match self {
            Self::Ioa => "ioa",
            Self::WeightedIoa => "wioa",
            Self::Iou => "iou",
            Self::WeightedIou => "wiou",
            Self::PointingGame => "pointing_game",
            Self::RelevanceMass => "relevance_mass",
            Self::RelevanceRank => "relevance_rank",
            Self::Function(function) => &function.name,
        }
    }
}

/// Metrics are equal by name; those of your own must also share the function.
impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Function(a), Self::Function(b)) => {
                a.name == b.name && Arc::ptr_eq(&a.score, &b.score)
            }
            (Self::Function(_), _) | (_, Self::Function(_)) => false,
            _ => self.name() == other.name(),
        }
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric({})", self.name())
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::NAMED.into_iter().find(|metric| metric.name() == text).ok_or_else(|| {
            let names = Self::NAMED.map(|metric| metric.to_string()).join(", ");
            Error::usage(format!("metric \"{text}\": expected one of {names}"))
        })
    }
}

/// The least value at which a voxel of a normalised map counts as attention.
///
/// A constant map has no attention, whatever the threshold.
///
/// # Example
///
/// ```
/// use medcam::evaluation::Threshold;
///
/// assert_eq!("otsu".parse::<Threshold>()?, Threshold::Otsu);
/// assert_eq!("0.3".parse::<Threshold>()?, Threshold::Value(0.3));
/// assert!("1.5".parse::<Threshold>().is_err());
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Threshold {
    /// Otsu's threshold: of 256 bins, the one that splits the map into two classes with the
    /// greatest variance between them, as in scikit-image; see
    /// [`EvaluationSums::otsu`](crate::ops::EvaluationSums::otsu).
    #[default]
    Otsu,
    /// A value within `[0, 1]`.
    Value(f32),
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Otsu => f.write_str("otsu"),
            Self::Value(value) => value.fmt(f),
        }
    }
}

/// Serialises as the text that is parsed.
impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            _ if text == "otsu" => Ok(Self::Otsu),
            Ok(value) if (0.0..=1.0).contains(&value) => Ok(Self::Value(value)),
            _ => Err(Error::usage(format!(
                "threshold \"{text}\": expected otsu or a number from 0 to 1"
            ))),
        }
    }
}
