//! What Otsu's threshold and the evaluation metrics need, from one pass over a map and its mask.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod table;

pub use cpu::reference;
pub use table::{EvaluationSums, Sums, TABLE_LENGTH};

use crate::error::{Error, Result};

/// How far a sum may lie from its [`reference()`], relative to the number of values summed.
///
/// A value is summed as a whole number of `2⁻³³`. From `2⁻¹⁰` on that holds every f32, below it the
/// nearest is taken: `2⁻³⁴ = 5.8e-11`. The sum itself is of whole numbers, so it does not depend on
/// their order, and is rounded once, to f64. Counts are exact.
pub const TOLERANCE: f64 = 6e-11;

/// The counts and sums of a map and a mask, from which [`EvaluationSums`] tells Otsu's threshold
/// and, for this and other thresholds, what lies above it and how much of that is in the mask.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, N)` | f32 | in `[0, 1]`, see [`normalize()`](crate::ops::normalize()) |
/// | `mask` | `(B, N)` | u8 | 0 outside, anything else inside; `None`: all outside |
/// | `batch` | | | `B`, the number of samples |
/// | `threshold` | | f32 | in `[0, 1]`, to be asked for beside the multiples of `1/512` |
/// | returns | `B` | | |
///
/// Map and mask are read once. Otsu's method parts `[0, 1]` into 256 bins, and its threshold is the
/// centre of one. So the values are counted and summed between all multiples of `1/512`, and on
/// either side of `threshold`: whichever threshold comes out, it lies on a border. The results are
/// equal in all bits on the CPU and on a GPU: the sums are of whole numbers, see [`TOLERANCE`].
///
/// # Errors
///
/// If `map` cannot be parted into `batch` samples of at least one voxel, `mask` has not as many
/// values, `threshold` is not in `[0, 1]`, memory does not hold the counts (16 KB for each sample and
/// for up to 64 parts of it), or a voxel of `map` is not in `[0, 1]` or not a number; the message
/// names the sample and counts its voxels.
///
/// # Example
///
/// ```
/// use medcam::ops::evaluation_sums;
///
/// let map = [0.0, 0.09, 0.9, 1.0];
/// let mask = [0, 0, 1, 0];
/// let sums = &evaluation_sums(&map, Some(&mask), 1, Some(0.95))?[0];
///
/// // Otsu's threshold parts the small from the large values.
/// let attention = sums.above(sums.otsu())?;
/// assert_eq!((attention.count, attention.in_mask), (2, 1));
/// // Intersection over attention, and over union.
/// assert_eq!(attention.in_mask as f64 / attention.count as f64, 0.5);
/// let in_mask = sums.above(0.0)?.in_mask;
/// let union = attention.count - attention.in_mask + in_mask;
/// assert_eq!(attention.in_mask as f64 / union as f64, 0.5);
///
/// assert_eq!(sums.above(0.95)?.count, 1);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn evaluation_sums(
    map: &[f32],
    mask: Option<&[u8]>,
    batch: usize,
    threshold: Option<f32>,
) -> Result<Vec<EvaluationSums>> {
    check(map.len(), mask.map(<[u8]>::len), batch, threshold)?;
    cpu::check_memory(map.len() / batch, batch)?;
    EvaluationSums::from_tables(&cpu::tables(map, mask, batch, threshold), threshold)
}

/// Refuses lengths that do not agree, and a threshold outside of `[0, 1]`.
fn check(map: usize, mask: Option<usize>, batch: usize, threshold: Option<f32>) -> Result<()> {
    let refuse = |what: String| Err(Error::input("evaluation_sums", what));
    if batch == 0 || map == 0 || !map.is_multiple_of(batch) {
        return refuse(format!("map: {map} values cannot be parted into {batch} samples"));
    }
    if let Some(mask) = mask.filter(|&mask| mask != map) {
        return refuse(format!(
            "mask: the map has {map} values, the mask has {mask}; resample one \
             to the grid of the other"
        ));
    }
    check_threshold(threshold)
}

fn check_threshold(threshold: Option<f32>) -> Result<()> {
    match threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
        Some(threshold) => Err(Error::input(
            "evaluation_sums",
            format!("threshold: {threshold} is not in [0, 1], the range of the map"),
        )),
        None => Ok(()),
    }
}
