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
        let mut lanes = Lanes::NONE;
        lanes.take(values);
        lanes.total()
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

/// The extremes of every 16th value each, which the compiler turns into vector code.
pub(in crate::ops) struct Lanes {
    minimum: [f32; LANES],
    maximum: [f32; LANES],
    probe: [f32; LANES],
}

impl Lanes {
    /// Those of no values at all.
    pub(in crate::ops) const NONE: Self = Self {
        minimum: [Extremes::NONE.range.minimum; LANES],
        maximum: [Extremes::NONE.range.maximum; LANES],
        probe: [Extremes::NONE.probe; LANES],
    };

    #[inline(always)]
    pub(in crate::ops) fn take(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            self.take_few(chunk);
        }
        self.take_few(rest);
    }

    #[inline(always)]
    fn take_few(&mut self, values: &[f32]) {
        for (i, &value) in values.iter().enumerate() {
            self.minimum[i] = lesser(value, self.minimum[i]);
            self.maximum[i] = greater(value, self.maximum[i]);
            self.probe[i] += 0.0 * value;
        }
    }

    pub(in crate::ops) fn total(&self) -> Extremes {
        (0..LANES).fold(Extremes::NONE, |all, i| {
            let range = Range { minimum: self.minimum[i], maximum: self.maximum[i] };
            all.and(Extremes { range, probe: self.probe[i] })
        })
    }
}

/// `f32::min` costs several instructions more, all for NaN, which `probe` has seen already.
#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// As `lesser`.
#[inline(always)]
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

/// How values of a range get to `[0, 1]`.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Rescale {
    /// A power of two that keeps the range, and one over it, away from both ends of f32; 0 for a
    /// range of one value.
    scale: f32,
    /// `-scale·minimum`
    offset: f32,
    /// One over the scaled range, rounded up so far that the maximum becomes 1 or more.
    factor: f32,
}

impl Rescale {
    pub(in crate::ops) fn new(Range { minimum, maximum }: Range) -> Self {
        if minimum == maximum {
            return Self { scale: 0.0, offset: 0.0, factor: 0.0 };
        }
        let scale = match maximum - minimum {
            range if range > 1.0 / SMALL => SMALL,
            range if range < SMALL => 1.0 / SMALL,
            _ => 1.0,
        };
        let offset = -scale * minimum;
        let range = scale * maximum + offset;
        let factor = 1.0 / range;
        let factor = if range * factor < 1.0 { factor.next_up() } else { factor };
        Self { scale, offset, factor }
    }

    /// The value on `[0, 1]`. One that rounding has put outside of the range becomes 0 or 1.
    #[inline(always)]
    pub(in crate::ops) fn apply(self, value: f32) -> f32 {
        // The first product is exact.
        let unit = (value * self.scale + self.offset) * self.factor;
        lesser(greater(unit, 0.0), 1.0)
    }
}

/// 2⁻⁶⁴
const SMALL: f32 = f32::from_bits((127 - 64) << 23);

/// Maps the range of each sample onto `[0, 1]`, in place.
pub(in crate::ops) fn rescale(map: &mut [f32], ranges: &[Range]) {
    let voxels = map.len() / ranges.len();
    let work = map.len();
    let blocks = map.chunks_mut(voxels).zip(ranges).flat_map(|(sample, &range)| {
        let rescale = Rescale::new(range);
        sample.chunks_mut(BLOCK).map(move |block| (block, rescale))
    });
    tasks::map(work, blocks, |(block, rescale)| {
        for value in block {
            *value = rescale.apply(*value);
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
