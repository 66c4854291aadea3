//! Resampling on the CPU: the reference, and what is done with the rows of the fast version.

use super::Interpolation;
use super::rows::{Source, Take};
use crate::element::MapElement;
use crate::ops::Range;
use crate::ops::normalize::cpu::{Extremes, Lanes, Rescale};

/// The written truth of [`resample`](super::resample()): the same, in f64.
///
/// # Panics
///
/// If `map` has fewer values than `batch` and `from` say.
pub fn reference(
    map: &[f64],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    interpolation: Interpolation,
) -> Vec<f64> {
    #[expect(clippy::cast_possible_truncation, reason = "floor of a position on the old grid")]
    #[expect(clippy::cast_sign_loss, reason = "clamped at 0")]
    let at = |axis: usize, d: usize| -> [(usize, f64); 2] {
        let (old, new) = (from[axis] as f64, to[axis] as f64);
        let position = (d as f64 + 0.5) * old / new;
        match interpolation {
            Interpolation::Nearest => [(position.floor() as usize, 1.0), (0, 0.0)],
            Interpolation::Linear => {
                let position = (position - 0.5).clamp(0.0, old - 1.0);
                let (low, t) = (position.floor() as usize, position.fract());
                [(low, 1.0 - t), (low + 1, t)]
            }
        }
    };
    let mut resampled = Vec::with_capacity(batch * to.iter().product::<usize>());
    for b in 0..batch {
        for d in 0..to[0] {
            for h in 0..to[1] {
                for w in 0..to[2] {
                    let mut sum = 0.0;
                    for (z, in_z) in at(0, d) {
                        for (y, in_y) in at(1, h) {
                            for (x, in_x) in at(2, w) {
                                let weight = in_z * in_y * in_x;
                                if weight > 0.0 {
                                    let row = (b * from[0] + z) * from[1] + y;
                                    sum += weight * map[row * from[2] + x];
                                }
                            }
                        }
                    }
                    resampled.push(sum);
                }
            }
        }
    }
    resampled
}

/// Keeps the extremes of the rows.
pub(in crate::ops) struct Tally {
    lanes: Lanes,
    line: Vec<f32>,
}

impl Take for Tally {
    #[inline(always)]
    fn take(&mut self, width: usize, value: impl Fn(usize) -> f32) {
        self.line.resize(width, 0.0);
        f32::fill(&mut self.line, &mut Vec::new(), value);
        self.lanes.take(&self.line);
    }
}

impl Tally {
    /// Of no rows yet.
    pub(in crate::ops) const NONE: Self = Self { lanes: Lanes::NONE, line: Vec::new() };

    /// The extremes of all rows of the tallies, in their order: of 0 and -0, which one wins depends
    /// on it.
    pub(in crate::ops) fn merge<'a>(tallies: impl IntoIterator<Item = &'a Self>) -> Extremes {
        let tallies = tallies.into_iter();
        tallies.fold(Extremes::NONE, |all, tally| all.and(tally.lanes.total()))
    }
}

/// Writes the rows to where they belong, on `[0, 1]` if there is a way to it.
pub(in crate::ops) struct Store<'a, O> {
    out: &'a mut [O],
    rescale: Option<Rescale>,
    line: Vec<f32>,
}

impl<'a, O> Store<'a, O> {
    /// For each block of `out`, a map of many blocks for each range.
    pub(in crate::ops) fn blocks(
        source: &Source,
        ranges: Option<&[Range]>,
        out: &'a mut [O],
    ) -> impl Iterator<Item = Self> {
        let blocks = source.blocks_per_sample();
        let rescales: Option<Vec<_>> =
            ranges.map(|ranges| ranges.iter().copied().map(Rescale::new).collect());
        source.parts_mut(out).enumerate().map(move |(block, out)| {
            let rescale = rescales.as_ref().map(|rescales| rescales[block / blocks]);
            Self { out, rescale, line: Vec::new() }
        })
    }
}

impl<O: MapElement> Take for Store<'_, O> {
    #[inline(always)]
    fn take(&mut self, width: usize, value: impl Fn(usize) -> f32) {
        let (out, rest) = std::mem::take(&mut self.out).split_at_mut(width);
        self.out = rest;
        match self.rescale {
            None => O::fill(out, &mut self.line, value),
            Some(rescale) => O::fill(out, &mut self.line, |i| rescale.apply(value(i))),
        }
    }
}

/// Writes the maps on the new grid into `out`, each from its range to `[0, 1]` if there are ranges.
pub(in crate::ops) fn resample<O: MapElement>(
    source: &Source,
    ranges: Option<&[Range]>,
    out: &mut [O],
) {
    source.run(Store::blocks(source, ranges, out));
}
