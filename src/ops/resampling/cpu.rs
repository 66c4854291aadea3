//! What becomes of the rows of resampled maps on the CPU: the sinks that the ops share.

use super::rows::{RowSink, Source};
use crate::element::MapElement;
use crate::ops::Range;
use crate::ops::extremes::cpu::{Extremes, ExtremesByLane};
use crate::ops::rescale::Rescale;

/// Keeps the extremes of the rows, and nothing else of them.
pub struct KeepExtremes {
    by_lane: ExtremesByLane,
    line: Vec<f32>,
}

impl RowSink for KeepExtremes {
    #[inline(always)]
    fn row(&mut self, width: usize, value: impl Fn(usize) -> f32) {
        self.line.resize(width, 0.0);
        f32::fill(&mut self.line, &mut Vec::new(), value);
        self.by_lane.include(&self.line);
    }
}

impl KeepExtremes {
    /// Before the first row.
    pub const NONE: Self = Self { by_lane: ExtremesByLane::NONE, line: Vec::new() };

    /// The extremes of all rows, merged in the order of the sinks.
    pub fn merge<'a>(sinks: impl IntoIterator<Item = &'a Self>) -> Extremes {
        let sinks = sinks.into_iter();
        sinks.fold(Extremes::NONE, |all, sink| all.merge(sink.by_lane.merge()))
    }
}

/// Stores the rows, rescaled to `[0, 1]` if there is a range.
pub struct Store<'a, O> {
    /// What is left of the block's memory.
    out: &'a mut [O],
    rescale: Option<Rescale>,
    line: Vec<f32>,
}

impl<'a, O> Store<'a, O> {
    /// A sink for each block of `out`; all blocks of a sample have its range.
    pub fn blocks(
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

impl<O: MapElement> RowSink for Store<'_, O> {
    #[inline(always)]
    fn row(&mut self, width: usize, value: impl Fn(usize) -> f32) {
        let (out, rest) = std::mem::take(&mut self.out).split_at_mut(width);
        self.out = rest;
        match self.rescale {
            None => O::fill(out, &mut self.line, value),
            Some(rescale) => O::fill(out, &mut self.line, |i| rescale.apply(value(i))),
        }
    }
}
