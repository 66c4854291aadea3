//! The table of one sample, which the CPU or the kernel fills, and the counts and sums read from it.
//!
//! `[0, 1]` is parted into 513 bins: `k/512 <= v < (k + 1)/512`, and the last of 1 alone. The given
//! threshold parts the bin that it lies in once more. So there are 514 rows, in the order of the
//! values, and one more for the values that are not in `[0, 1]`. The row of a value is
//! `floor(512·v) + (v >= threshold)`. A row holds, outside the mask and then inside of it, how many
//! values it has and the sum of how far they lie above the bin's lower border, in units of `2⁻³³`.

use crate::error::{Error, Result};

/// Bins of one value or more below 1; twice those of Otsu's method.
pub(super) const HALF_BINS: usize = 512;
/// The row of the values that are not in `[0, 1]`.
pub(super) const INVALID: usize = HALF_BINS + 2;
/// Words of a row: count and fraction outside the mask, count and fraction inside.
const ROW_LENGTH: usize = 4;
/// Words of the table of one sample.
pub const TABLE_LENGTH: usize = (INVALID + 1) * ROW_LENGTH;
/// The distance of two borders in units of a fraction.
pub(super) const BIN_WIDTH: u32 = 1 << 24;
/// The unit of a fraction.
const UNIT: f64 = 1.0 / (HALF_BINS as f64 * BIN_WIDTH as f64);

/// Counts of the voxels at or above a threshold, and sums of their values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sums {
    /// Number of voxels at or above the threshold.
    pub count: u64,
    /// Number of these voxels in the mask.
    pub in_mask: u64,
    /// Sum of the values of these voxels.
    pub sum: f64,
    /// Sum of the values of these voxels in the mask.
    pub sum_in_mask: f64,
}

/// The counts and sums of one sample; [`evaluation_sums()`](super::evaluation_sums()) makes them.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationSums {
    table: Vec<u64>,
    threshold: Option<f32>,
    /// The bin that `threshold` parts: the rows behind it are those of the bins before them.
    split: usize,
}

impl EvaluationSums {
    /// From the tables of all samples, of [`TABLE_LENGTH`] words each, as a GPU fills them.
    ///
    /// `threshold` must be the threshold with which the tables were filled.
    ///
    /// # Errors
    ///
    /// If a sample had values that are not in `[0, 1]`, `threshold` is not in `[0, 1]`, or `tables` is
    /// not made of whole tables or counts more values than memory can be.
    pub fn from_tables(tables: &[u64], threshold: Option<f32>) -> Result<Vec<Self>> {
        let refuse = |what: String| Error::input("evaluation_sums", what);
        super::check_threshold(threshold)?;
        let (tables, rest) = tables.as_chunks::<TABLE_LENGTH>();
        if !rest.is_empty() {
            let rest = rest.len();
            return Err(refuse(format!(
                "tables: {rest} words are left behind the last whole table"
            )));
        }
        let sums = |(sample, table): (usize, &[u64; TABLE_LENGTH])| {
            let split = threshold.map_or(usize::MAX, split);
            let sums = Self { table: table.to_vec(), threshold, split };
            let count = |row| u128::from(sums.cell(row, 0).0) + u128::from(sums.cell(row, 1).0);
            let all: u128 = (0..=INVALID).map(count).sum();
            if all > i64::MAX as u128 {
                return Err(refuse(format!(
                    "tables: that of sample {sample} counts {all} values; pass what \
                     evaluation_sums has written"
                )));
            }
            let invalid = count(INVALID);
            if invalid > 0 {
                return Err(refuse(format!(
                    "map: {invalid} of the {all} voxels of sample {sample} are not in [0, 1]; \
                     normalise it first"
                )));
            }
            Ok(sums)
        };
        tables.iter().enumerate().map(sums).collect()
    }

    /// Otsu's threshold of the map, the value that parts it into two classes of values with the
    /// greatest variance between them: the centre of one of 256 bins of `[0, 1]`, so a multiple of
    /// `1/512`. What counts as attention is what is [`above`](Self::above) it.
    ///
    /// The same, rounding included, as `skimage.filters.threshold_otsu` of the f64 map, which
    /// M3d-CAM calls, for a map whose least value is 0 and whose greatest is 1; scikit-image's bins
    /// go from the least value to the greatest. It is 1 if all values are in one bin, as M3d-CAM
    /// has it for a constant map. Of equal variances that of the lowest threshold counts.
    ///
    /// Otsu 1979, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1).
    pub fn otsu(&self) -> f32 {
        const BINS: usize = HALF_BINS / 2;
        let mut counts = [0_u64; BINS];
        for row in 0..INVALID {
            let bin = (self.bin(row) / 2).min(BINS - 1);
            counts[bin] += self.cell(row, 0).0 + self.cell(row, 1).0;
        }
        // Counts in f32 and moments in f64, as in scikit-image.
        let counts = counts.map(|count| count as f32);
        let centre = |bin: usize| (2 * bin + 1) as f64 / HALF_BINS as f64;
        let moment = |bin: usize| f64::from(counts[bin]) * centre(bin);
        let add = |sums: &mut (f32, f64), bin: usize| {
            *sums = (sums.0 + counts[bin], sums.1 + moment(bin));
            Some(*sums)
        };
        let lower: Vec<_> = (0..BINS).scan((0.0, 0.0), add).collect();
        let mut upper: Vec<_> = (0..BINS).rev().scan((0.0, 0.0), add).collect();
        upper.reverse();
        let mut best = (0.0, 1.0);
        for bin in 0..BINS - 1 {
            let ((below, below_moment), (above, above_moment)) = (lower[bin], upper[bin + 1]);
            if below == 0.0 || above == 0.0 {
                continue;
            }
            let distance = below_moment / f64::from(below) - above_moment / f64::from(above);
            let variance = f64::from(below * above) * (distance * distance);
            if variance > best.0 {
                best = (variance, centre(bin));
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "a multiple of 1/512 is exact")]
        let threshold = best.1 as f32;
        threshold
    }

    /// The counts and sums of the voxels whose value is at least `threshold`; those of all voxels
    /// for a threshold of 0.
    ///
    /// # Errors
    ///
    /// If `threshold` is neither a multiple of `1/512` in `[0, 1]` nor the one that the table was
    /// made with.
    pub fn above(&self, threshold: f32) -> Result<Sums> {
        let border = threshold * HALF_BINS as f32;
        let first = if Some(threshold) == self.threshold {
            self.split + 1
        } else if (0.0..=1.0).contains(&threshold) && border.fract() == 0.0 {
            (0..INVALID).find(|&row| self.bin(row) as f32 >= border).unwrap_or(INVALID)
        } else {
            let known = self.threshold.map_or_else(String::new, |known| format!(" nor {known}"));
            return Err(Error::input(
                "evaluation_sums",
                format!(
                    "threshold: {threshold} is no multiple of 1/512 in [0, 1]{known}; give it to \
                     evaluation_sums"
                ),
            ));
        };
        let (mut counts, mut sums) = ([0; 2], [0_u128; 2]);
        for row in first..INVALID {
            for side in 0..2 {
                let (count, fraction) = self.cell(row, side);
                counts[side] += count;
                sums[side] += u128::from(count) * self.bin(row) as u128 * u128::from(BIN_WIDTH)
                    + u128::from(fraction);
            }
        }
        Ok(Sums {
            count: counts[0] + counts[1],
            in_mask: counts[1],
            sum: (sums[0] + sums[1]) as f64 * UNIT,
            sum_in_mask: sums[1] as f64 * UNIT,
        })
    }

    /// The bin that a row is, or is a part of.
    fn bin(&self, row: usize) -> usize {
        row - usize::from(row > self.split)
    }

    /// The count and the fractions of a row, outside of the mask (0) or inside (1).
    fn cell(&self, row: usize, side: usize) -> (u64, u64) {
        let cell = &self.table[row * ROW_LENGTH + 2 * side..][..2];
        (cell[0], cell[1])
    }
}

/// The bin that holds a threshold in `[0, 1]`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 512")]
fn split(threshold: f32) -> usize {
    (threshold * HALF_BINS as f32) as usize
}
