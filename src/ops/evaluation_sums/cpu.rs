//! The sums of an evaluation on the CPU: the reference, and the fast version.

use super::Sums;
use super::table::{BIN_WIDTH, HALF_BINS, INVALID, TABLE_LENGTH};
use crate::error::{Error, Result};
use crate::ops::tasks;
use crate::vectors::for_each_instruction_set;

/// Most tasks that a sample is split into; each has at least one block.
const TASKS: usize = 64;
/// Most values that a [`Packed`] table counts before its words could overflow: `2^16·2^24 = 2^40`.
const BLOCK: usize = 1 << 16;
/// Values whose slots are computed in one vectorised loop; a scalar loop then counts them.
const CHUNK: usize = 256;
/// The row of the values that are not in `[0, 1]`.
#[expect(clippy::cast_possible_truncation, reason = "below 1000")]
const INVALID_ROW: u32 = INVALID as u32;
/// A power of two above the slots of a table, so that no index needs a check.
const SLOTS: usize = (TABLE_LENGTH / 2).next_power_of_two();

/// The written truth of [`EvaluationSums::above`](super::EvaluationSums::above): the values of one
/// sample that are at least `threshold`, counted and summed in f64, one after the other.
///
/// # Panics
///
/// If `mask` is shorter than `map`.
pub fn reference(map: &[f32], mask: Option<&[u8]>, threshold: f64) -> Sums {
    let mut sums = Sums { count: 0, in_mask: 0, sum: 0.0, sum_in_mask: 0.0 };
    for (i, value) in map.iter().map(|&value| f64::from(value)).enumerate() {
        if value < threshold {
            continue;
        }
        sums.count += 1;
        sums.sum += value;
        if mask.is_some_and(|mask| mask[i] != 0) {
            sums.in_mask += 1;
            sums.sum_in_mask += value;
        }
    }
    sums
}

/// Refuses a batch for whose tables there is no memory: an allocation that fails ends the process.
pub(super) fn check_memory(voxels: usize, batch: usize) -> Result<()> {
    // Counts the tables of all parts, their sums (a vector that grows by doubling), and the result.
    let tables = batch.saturating_mul(voxels.div_ceil(segment(voxels)) + 4);
    let words = tables.saturating_mul(TABLE_LENGTH);
    match Vec::<u64>::new().try_reserve_exact(words) {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::input(
            "evaluation_sums",
            format!("batch: no memory for the counts of {batch} samples; part the batch"),
        )),
    }
}

/// Number of values that one task counts, of a sample of `voxels` values.
fn segment(voxels: usize) -> usize {
    voxels.div_ceil(TASKS).next_multiple_of(BLOCK)
}

/// The tables of all samples, one after the other.
pub(super) fn tables(
    map: &[f32],
    mask: Option<&[u8]>,
    batch: usize,
    threshold: Option<f32>,
) -> Vec<u64> {
    let voxels = map.len() / batch;
    let segment = segment(voxels);
    let segments = map.chunks(voxels).enumerate().flat_map(|(b, map)| {
        let mask = mask.map(|mask| &mask[b * voxels..][..voxels]);
        map.chunks(segment)
            .enumerate()
            .map(move |(i, map)| (map, mask.map(|mask| &mask[i * segment..][..map.len()])))
    });
    // Without a threshold: NaN, which no value is at or above.
    let threshold = threshold.unwrap_or(f32::NAN);
    let parts = tasks::map(2 * map.len(), segments, |(map, mask)| {
        let mut table = vec![0; TABLE_LENGTH];
        let mut packed: Packed = [[0; SLOTS]; 2];
        for (i, map) in map.chunks(BLOCK).enumerate() {
            match mask {
                Some(mask) => count(&mut packed, map, &mask[i * BLOCK..][..map.len()], threshold),
                None => {
                    for map in map.chunks(CHUNK) {
                        count(&mut packed, map, &[0; CHUNK][..map.len()], threshold);
                    }
                }
            }
            flush(&mut packed, &mut table);
        }
        table
    });
    let total = |parts: &[Vec<u64>]| {
        let mut table = vec![0; TABLE_LENGTH];
        for part in parts {
            table.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        table
    };
    parts.chunks(voxels.div_ceil(segment)).flat_map(total).collect()
}

/// Two tables of one word per row and side of the mask: its count from bit 40 on, below that its
/// fractions. Two, as equal values often follow each other, and one addition waits for the other.
type Packed = [[u64; SLOTS]; 2];

/// Where the count of a word begins.
const COUNT_SHIFT: u32 = 40;

for_each_instruction_set! {
    /// Counts at most [`BLOCK`] values.
    fn count(packed: &mut Packed, map: &[f32], mask: &[u8], threshold: f32) {
        let mut places = [(0, 0); CHUNK];
        let [even, odd] = packed;
        for (map, mask) in map.chunks(CHUNK).zip(mask.chunks(CHUNK)) {
            for ((place, &value), &mask) in places.iter_mut().zip(map).zip(mask) {
                *place = place_of(value, mask, threshold);
            }
            let (pairs, last) = places[..map.len()].as_chunks();
            for &[(slot, fraction), (odd_slot, odd_fraction)] in pairs {
                even[slot as usize % SLOTS] += word(fraction);
                odd[odd_slot as usize % SLOTS] += word(odd_fraction);
            }
            for &(slot, fraction) in last {
                even[slot as usize % SLOTS] += word(fraction);
            }
        }
    }
}

/// One value, as it is added to a word.
#[inline(always)]
fn word(fraction: u32) -> u64 {
    (1 << COUNT_SHIFT) + u64::from(fraction)
}

/// Adds the packed counts to `table` and clears them.
fn flush(packed: &mut Packed, table: &mut [u64]) {
    let (cells, _) = table.as_chunks_mut::<2>();
    for packed in packed {
        for ([count, fraction], word) in cells.iter_mut().zip(packed) {
            *count += *word >> COUNT_SHIFT;
            *fraction += *word & ((1 << COUNT_SHIFT) - 1);
            *word = 0;
        }
    }
}

/// The slot of a value, `2·row + (mask != 0)`, and its distance from the lower border of its bin.
/// Don't branch or convert with `as` here: Rust's conversions saturate, and the loop would not be
/// vectorised.
#[inline(always)]
fn place_of(value: f32, mask: u8, threshold: f32) -> (u32, u32) {
    /// From here to twice that, the last bit of an f32 is worth 1.
    const WHOLE: f32 = (1 << 23) as f32;
    let valid = (0.0..=1.0).contains(&value);
    let scaled = if valid { value * HALF_BINS as f32 } else { 0.0 };
    let nearest = (scaled + WHOLE) - WHOLE;
    let over = nearest > scaled;
    let bin = (scaled + WHOLE).to_bits() - WHOLE.to_bits() - u32::from(over);
    // Exact, and below 2^24. An f32 from 2^23 on is a whole number, so only smaller ones need rounding.
    let fraction = (scaled - (nearest - f32::from(u8::from(over)))) * BIN_WIDTH as f32;
    let large = fraction >= WHOLE;
    let rounded = if large { fraction } else { fraction + WHOLE };
    let fraction = rounded.to_bits() - WHOLE.to_bits() + (u32::from(large) << 23);
    let row = if valid { bin + u32::from(value >= threshold) } else { INVALID_ROW };
    (2 * row + u32::from(mask != 0), fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_hand() {
        let unit = |units: u32| units as f32 / (1_u64 << 33) as f32;
        let place = |value| place_of(value, 0, 0.3);
        assert_eq!(place(0.0), (0, 0));
        assert_eq!(place(-0.0), (0, 0));
        // Ties to even, below 2^-10 where not every f32 is a whole number of units.
        assert_eq!(place(unit(1)), (0, 1));
        assert_eq!(place(unit(1) * 0.5), (0, 0));
        assert_eq!(place(unit(1) * 1.5), (0, 2));
        assert_eq!(place(unit(1) * 2.5), (0, 2));
        // The greatest value of the first bin, and the least of the second.
        assert_eq!(place((1.0_f32 / 512.0).next_down()), (0, BIN_WIDTH - 1));
        assert_eq!(place(1.0 / 512.0), (2, 0));
        assert_eq!(place(1.0 / 512.0 + unit(2)), (2, 2));
        // 0.3·512 = 153.6 parts bin 153.
        assert_eq!(place(0.3_f32.next_down()).0, 2 * 153);
        assert_eq!(place(0.3).0, 2 * 154);
        assert_eq!(place(154.0 / 512.0), (2 * 155, 0));
        assert_eq!(place(1.0_f32.next_down()), (2 * 512, BIN_WIDTH - 512));
        assert_eq!(place(1.0), (2 * 513, 0));
        assert_eq!(place_of(1.0, 7, f32::NAN), (2 * 512 + 1, 0));
        for bad in [1.0_f32.next_up(), -1e-45, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            assert_eq!(place_of(bad, 1, 0.3), (2 * INVALID_ROW + 1, 0));
        }
    }

    #[test]
    fn more_tables_than_memory_holds_are_refused() {
        assert!(check_memory(1 << 30, 1).is_ok());
        let error = check_memory(1, 1 << 40).unwrap_err();
        assert_eq!(
            error.to_string(),
            "evaluation_sums: batch: no memory for the counts of 1099511627776 samples; part the \
             batch"
        );
        assert!(check_memory(1, usize::MAX).is_err());
    }

    #[test]
    fn counted_by_hand() {
        let map = [0.0, 0.25, 0.25, 1.0, 0.5];
        let tables = tables(&map, Some(&[0, 1, 0, 255, 1]), 1, None);
        let cell = |row: usize| &tables[row * 4..][..4];
        assert_eq!(cell(0), [1, 0, 0, 0]);
        assert_eq!(cell(128), [1, 0, 1, 0]);
        assert_eq!(cell(256), [0, 0, 1, 0]);
        assert_eq!(cell(512), [0, 0, 1, 0]);
        assert_eq!(tables.iter().sum::<u64>(), 5);
    }
}
