//! A map prepared for its mask, and the metrics of the two.

use ndarray::{ArrayView, ArrayView3, ArrayViewD, Dimension};

use super::metric::{Metric, Threshold};
use crate::error::{Error, Result};
use crate::ops::{
    EvaluationSums, Interpolation, Range, Resize, evaluation_sums, normalize, resample,
};

/// A map on the grid of its mask, with the sums over both that the metrics need.
pub(super) struct Prepared {
    shape: [usize; 3],
    /// The normalised map, within `[0, 1]`.
    map: Vec<f32>,
    /// Minimum and maximum of the map before normalisation.
    range: Range,
    /// The mask, 0 or 1.
    mask: Vec<u8>,
    sums: EvaluationSums,
    threshold: f32,
}

impl Prepared {
    pub(super) fn new(
        map: ArrayView3<'_, f32>,
        mask: Vec<u8>,
        shape: [usize; 3],
        threshold: Threshold,
    ) -> Result<Self> {
        let from: [usize; 3] = map.dim().into();
        check(map, shape)?;
        let mut map: Vec<f32> = map.iter().map(|value| value.abs()).collect();
        if from != shape {
            map = resample(&map, Resize { batch: 1, from, to: shape }, Interpolation::Linear)?;
        }
        let range = normalize(&mut map, 1)?[0];
        let (sums, threshold) = sums_of(&map, Some(&mask), range, threshold)?;
        Ok(Self { shape, map, range, mask, sums, threshold })
    }

    /// The score by one metric.
    pub(super) fn score(&self, metric: &Metric) -> Result<f64> {
        let attention = self.sums.above(self.threshold)?;
        let all = self.sums.above(0.0)?;
        let outside = (attention.count - attention.in_mask) as f64;
        let outside_sum = attention.sum - attention.sum_in_mask;
        let in_mask = attention.in_mask as f64;
        let defined = self.range.minimum < self.range.maximum && all.in_mask > 0;
        let or_nan = |score: f64| if defined { score } else { f64::NAN };
        Ok(match metric {
            Metric::Ioa => in_mask / attention.count as f64,
            Metric::WeightedIoa => attention.sum_in_mask / attention.sum,
            Metric::Iou => in_mask / (outside + all.in_mask as f64),
            Metric::WeightedIou => attention.sum_in_mask / (outside_sum + all.in_mask as f64),
            Metric::PointingGame => {
                let greatest = self.sums.above(1.0)?;
                or_nan(greatest.in_mask as f64 / greatest.count as f64)
            }
            Metric::RelevanceMass => {
                let minimum = f64::from(self.range.minimum);
                let width = f64::from(self.range.maximum) - minimum;
                let mass = |count: u64, sum: f64| count as f64 * minimum + width * sum;
                or_nan(mass(all.in_mask, all.sum_in_mask) / mass(all.count, all.sum))
            }
            Metric::RelevanceRank if defined => self.rank(all.in_mask),
            Metric::RelevanceRank => f64::NAN,
            Metric::Function(function) => {
                let refuse = |error| Error::input("evaluate", error);
                let map = ArrayView3::from_shape(self.shape, &self.map).map_err(refuse)?;
                let mask = ArrayView3::from_shape(self.shape, &self.mask).map_err(refuse)?;
                function.score(map, mask)
            }
        })
    }

    /// The fraction of the `count` greatest voxels that lie in the mask; `count`, above 0, is the
    /// mask's size.
    fn rank(&self, count: u64) -> f64 {
        let mut values = self.map.clone();
        let place = self.mask.iter().map(|&inside| usize::from(inside)).sum::<usize>() - 1;
        let (_, &mut last, _) = values.select_nth_unstable_by(place, |a, b| b.total_cmp(a));
        let count_where = |chosen: &dyn Fn(f32) -> bool| {
            let chosen = self.map.iter().zip(&self.mask).filter(|&(&value, _)| chosen(value));
            chosen.fold((0_u64, 0_u64), |(all, inside), (_, &mask)| {
                (all + 1, inside + u64::from(mask))
            })
        };
        let (above, above_in_mask) = count_where(&|value| value > last);
        let (equal, equal_in_mask) = count_where(&|value| value == last);
        let chance = (count - above) as f64 / equal as f64;
        (above_in_mask as f64 + equal_in_mask as f64 * chance) / count as f64
    }
}

/// How much of a map is attention, whatever its mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Attention {
    /// The least value of the normalised map that counts as attention; 1 for a constant map.
    pub(crate) threshold: f32,
    /// Number of voxels of attention; 0 for a constant map.
    pub(crate) count: u64,
    /// Number of all voxels.
    pub(crate) voxels: usize,
}

/// Counts the attention of a map of any shape as the metrics do, on the map's own grid.
///
/// # Errors
///
/// If the map has no voxels or a value that is not finite, or the threshold is not in `[0, 1]`.
pub(crate) fn attention(map: ArrayViewD<'_, f32>, threshold: Threshold) -> Result<Attention> {
    if map.is_empty() {
        return Err(no_voxels(map.shape()));
    }
    let mut values = Vec::new();
    values.try_reserve_exact(map.len()).map_err(|error| {
        let what = format!("map: no memory for a copy of {} values", map.len());
        Error::input("evaluate", what).because(error)
    })?;
    // A count does not depend on the order of the voxels, and that of memory is the fastest.
    match map.as_slice_memory_order() {
        Some(map) => values.extend(map.iter().map(|value| value.abs())),
        None => values.extend(map.iter().map(|value| value.abs())),
    }
    let range = normalize(&mut values, 1)?[0];
    let (sums, threshold) = sums_of(&values, None, range, threshold)?;
    Ok(Attention { threshold, count: sums.above(threshold)?.count, voxels: values.len() })
}

/// The sums of a normalised map, and the threshold as a number. `range` is that of the map before
/// normalisation.
fn sums_of(
    map: &[f32],
    mask: Option<&[u8]>,
    range: Range,
    threshold: Threshold,
) -> Result<(EvaluationSums, f32)> {
    let given = match threshold {
        Threshold::Otsu => None,
        Threshold::Value(value) => Some(value),
    };
    let sums = evaluation_sums(map, mask, 1, given)?.swap_remove(0);
    // A constant map is 0 after normalisation, so a threshold of 1 leaves no attention.
    let constant = range.minimum == range.maximum;
    let threshold = if constant { 1.0 } else { given.unwrap_or_else(|| sums.otsu()) };
    Ok((sums, threshold))
}

/// Refuses a map that cannot be laid over a mask of the given shape.
fn check(map: ArrayView3<'_, f32>, mask: [usize; 3]) -> Result<()> {
    let refuse = |what: String| Err(Error::input("evaluate", what));
    let shape = map.shape();
    if !map.is_empty() && (shape[0] == 1) != (mask[0] == 1) {
        let rank = |depth| if depth == 1 { "2D" } else { "3D" };
        return refuse(format!(
            "map: {} with shape {shape:?}, the mask is {} with shape {mask:?}; bring both to one \
             space",
            rank(shape[0]),
            rank(mask[0])
        ));
    }
    check_values(&map)
}

/// Refuses a map without voxels, or with values that are not finite.
fn check_values<D: Dimension>(map: &ArrayView<'_, f32, D>) -> Result<()> {
    if map.is_empty() {
        return Err(no_voxels(map.shape()));
    }
    let bad = map.iter().filter(|value| !value.is_finite()).count();
    if bad > 0 {
        let all = map.len();
        let what = format!("map: {bad} of the {all} voxels are not finite");
        return Err(Error::input("evaluate", what));
    }
    Ok(())
}

fn no_voxels(shape: &[usize]) -> Error {
    Error::input("evaluate", format!("map: shape {shape:?} has no voxels"))
}
