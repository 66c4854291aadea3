//! Normalisation on the CPU: the reference, and the fast version.

use super::Range;
use crate::ops::lanes::LANES;
use crate::ops::tasks;

/// Values that one task reads or writes.
const BLOCK: usize = 1 << 15;

/// The written truth of [`normalize`](super::normalize()): the same, in f64, of finite values.
///
/// `map` holds `batch` maps of one size, one after the other.
///
/// # Panics
///
/// If `batch` is 0 or above `map.len()`.
pub fn reference(map: &[f64], batch: usize) -> Vec<f64> {
    let mut normalized = Vec::with_capacity(map.len());
    for sample in map.chunks(map.len() / batch) {
        let minimum = sample.iter().copied().fold(f64::INFINITY, f64::min);
        let maximum = sample.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for value in sample {
            let range = maximum - minimum;
            normalized.push(if range > 0.0 { (value - minimum) / range } else { 0.0 });
        }
    }
    normalized
}

/// The range of some values, and whether they are all finite.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Extremes {
    pub(in crate::ops) range: Range,
    /// `sum 0·v`: 0 as long as all values are finite, then NaN.
    probe: f32,
}

impl Extremes {
    /// Those of no values at all.
    pub(in crate::ops) const NONE: Self =
        Self { range: Range { minimum: f32::INFINITY, maximum: f32::NEG_INFINITY }, probe: 0.0 };

    pub(in crate::ops) fn of(values: &[f32]) -> Self {
        let mut minimum = [f32::INFINITY; LANES];
        let mut maximum = [f32::NEG_INFINITY; LANES];
        let mut probe = [0.0_f32; LANES];
        let mut take = |values: &[f32]| {
            for (i, &value) in values.iter().enumerate() {
                minimum[i] = lesser(value, minimum[i]);
                maximum[i] = greater(value, maximum[i]);
                probe[i] += 0.0 * value;
            }
        };
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            take(chunk);
        }
        take(rest);
        (0..LANES).fold(Self::NONE, |all, i| {
            let range = Range { minimum: minimum[i], maximum: maximum[i] };
            all.and(Self { range, probe: probe[i] })
        })
    }

    /// Those of the values of both.
    pub(in crate::ops) fn and(self, other: Self) -> Self {
        let minimum = lesser(other.range.minimum, self.range.minimum);
        let maximum = greater(other.range.maximum, self.range.maximum);
        Self { range: Range { minimum, maximum }, probe: self.probe + other.probe }
    }

    pub(in crate::ops) fn all_finite(&self) -> bool {
        self.probe == 0.0
    }
}

/// `f32::min` costs several instructions more, all for NaN, which `probe` has seen already.
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// As `lesser`.
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The extremes of each map of `voxels` values.
pub(in crate::ops) fn extremes(map: &[f32], voxels: usize) -> Vec<Extremes> {
    let blocks = map.chunks(voxels).flat_map(|sample| sample.chunks(BLOCK));
    let blocks = tasks::map(map.len(), blocks, Extremes::of);
    // Merged in order: of 0 and -0, which one wins depends on it.
    let merge = |blocks: &[Extremes]| blocks.iter().fold(Extremes::NONE, |all, &b| all.and(b));
    blocks.chunks(voxels.div_ceil(BLOCK)).map(merge).collect()
}

/// Maps the range of each sample onto `[0, 1]`, in place.
pub(in crate::ops) fn rescale(map: &mut [f32], ranges: &[Range]) {
    let voxels = map.len() / ranges.len();
    let work = map.len();
    let blocks = map
        .chunks_mut(voxels)
        .zip(ranges)
        .flat_map(|(sample, range)| sample.chunks_mut(BLOCK).map(move |block| (block, range)));
    tasks::map(work, blocks, |(block, &Range { minimum, maximum })| {
        if minimum == maximum {
            block.fill(0.0);
            return;
        }
        // Halves, where the difference itself is above the greatest f32.
        let factor = if (maximum - minimum).is_finite() { 1.0 } else { 0.5 };
        let minimum = minimum * factor;
        let range = maximum * factor - minimum;
        for value in block {
            // A quotient, not a product: 1 / range overflows for a range below 3e-39.
            *value = (*value * factor - minimum) / range;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::normalize;

    #[test]
    fn normalised_by_hand() {
        let mut map = [1.0, 5.0, 2.0, 3.0, -3.0, -3.0, -3.0, -3.0];
        let ranges = normalize(&mut map, 2).unwrap();
        assert_eq!(map, [0.0, 1.0, 0.25, 0.5, 0.0, 0.0, 0.0, 0.0]);
        let expected = [(1.0, 5.0), (-3.0, -3.0)];
        assert_eq!(ranges.iter().map(|r| (r.minimum, r.maximum)).collect::<Vec<_>>(), expected);
        assert_eq!(reference(&[1.0, 5.0, 2.0, 3.0], 1), [0.0, 1.0, 0.25, 0.5]);
    }

    #[test]
    fn neither_huge_nor_subnormal_ranges_overflow() {
        let mut map = [-f32::MAX, 0.0, f32::MAX, 1e-45, 3e-45, 0.0];
        normalize(&mut map, 2).unwrap();
        assert_eq!(map[..3], [0.0, 0.5, 1.0]);
        assert_eq!(map[3..], [0.5, 1.0, 0.0]);
    }
}
