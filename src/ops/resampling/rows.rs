//! The rows of the new grid, made one after the other from a few rows of the old one.
//!
//! The axes are resampled one after the other. Along D and H whole rows are mixed, which is vector
//! code; along W each value is gathered from two of its row. If the new grid has more rows than the
//! old one, the old rows are gathered first, else the mixed ones last: so no row is gathered that no
//! voxel needs. A finished row goes to its sink while it is still in the first-level cache.

use std::borrow::Cow;
use std::ops::Range;

use multiversion::multiversion;

use super::check::check_memory;
use super::taps::{self, Tap, taps};
use super::{Interpolation, Resize};
use crate::error::Result;
use crate::ops::tasks;

/// Voxels of one task, at least, rounded up to whole rows.
const BLOCK: usize = 1 << 13;
/// Bytes that a task and its result take, at most, beside a row of values.
const TASK_BYTES: usize = 512;
/// Rows that a thread keeps, at most: two mixed along D, one mixed along H, one gathered.
const LINES: usize = 4;

/// The taps of each axis, and the order of the axes.
#[derive(Debug)]
pub struct Plan {
    pub(super) from: [usize; 3],
    pub(super) along: [Vec<Tap>; 3],
    /// Whether W is resampled before D and H.
    pub(super) gather_first: bool,
}

/// The old maps, prepared for a plan.
pub struct Source<'a> {
    pub(super) plan: &'a Plan,
    /// The maps; if W is resampled first, with rows of the new width.
    values: Cow<'a, [f32]>,
    batch: usize,
}

/// Some rows of one plane of one sample.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) sample: usize,
    pub(super) plane: usize,
    pub(super) rows: Range<usize>,
}

/// Where the finished rows of a block go, one after the other.
pub trait RowSink: Send {
    /// Takes the next row: `value(i)` for each `i` below `width`. Inline it, so that it becomes one
    /// loop with the arithmetic behind `value`.
    fn row(&mut self, width: usize, value: impl Fn(usize) -> f32);
}

impl Plan {
    /// For sizes that have been checked.
    ///
    /// # Errors
    ///
    /// Named after `operation`: if memory does not hold the plan, or the rows and results that a run of
    /// it makes.
    pub fn new(operation: &str, resize: Resize, interpolation: Interpolation) -> Result<Self> {
        let Resize { batch, from, to } = resize;
        let [planes, height, width] = to;
        let gather_first = planes * height > from[0] * from[1];
        let blocks = batch * planes * height.div_ceil(rows_per_block(to));
        let threads = tasks::threads();
        let values = |bytes: usize, factors: &[usize]| {
            factors.iter().fold(bytes as u128, |all, &factor| all * factor as u128)
        };
        // Twice: `corners` makes a second plan.
        let taps_bytes = values(2 * size_of::<Tap>(), &[planes + height + width]);
        let widened = values(4, &[usize::from(gather_first), batch, from[0], from[1], width]);
        let lines = values(4 * LINES, &[threads, width.max(from[2])]);
        let tasks = values(TASK_BYTES, &[blocks]) + values(4, &[blocks, width]);
        check_memory(operation, resize, taps_bytes + widened + lines + tasks)?;
        let along = [0, 1, 2].map(|axis| taps(from[axis], to[axis], interpolation));
        Ok(Self { from, along, gather_first })
    }

    /// The plan of the corners alone (see [`taps::corners`]), for the same source.
    pub(super) fn corners(&self) -> Self {
        let [along_d, along_h, along_w] = &self.along;
        let along_w = if self.gather_first { along_w.clone() } else { taps::corners(along_w) };
        let along = [taps::corners(along_d), taps::corners(along_h), along_w];
        Self { along, ..*self }
    }

    /// The maps, with the new width if W is resampled first.
    pub fn source<'a>(&'a self, map: &'a [f32]) -> Source<'a> {
        let batch = map.len() / self.from.iter().product::<usize>();
        let mut source = Source { plan: self, values: Cow::Borrowed(map), batch };
        if self.gather_first {
            // With the work of the whole call: both steps are shared among threads, or neither.
            source.values = self.widened(map, source.voxels());
        }
        source
    }

    /// The extents of the new grid.
    pub(super) fn to(&self) -> [usize; 3] {
        self.along.each_ref().map(Vec::len)
    }

    /// The blocks of a sample, one for each task, in the order of memory.
    pub(super) fn blocks(&self, sample: usize) -> impl Iterator<Item = Block> {
        let [depth, height, _] = self.to();
        let rows_per_block = rows_per_block(self.to());
        (0..depth).flat_map(move |plane| {
            (0..height).step_by(rows_per_block).map(move |first| {
                let rows = first..height.min(first + rows_per_block);
                Block { sample, plane, rows }
            })
        })
    }

    /// All rows of the map, resampled along their length.
    fn widened<'a>(&self, map: &'a [f32], work: usize) -> Cow<'a, [f32]> {
        let [_, _, width] = self.from;
        let taps = &self.along[2];
        if taps.len() == width {
            return Cow::Borrowed(map);
        }
        let mut widened = vec![0.0_f32; map.len() / width * taps.len()];
        let rows = BLOCK.div_ceil(taps.len());
        let blocks = widened.chunks_mut(rows * taps.len()).zip(map.chunks(rows * width));
        tasks::map(work, blocks, |(out, rows)| gather_rows(out, rows, width, taps));
        Cow::Owned(widened)
    }
}

impl Source<'_> {
    /// The rows of one sample on the old grid, plane by plane.
    pub(super) fn rows(&self, sample: usize) -> impl Iterator<Item = &[f32]> {
        let [depth, height, _] = self.plan.from;
        let voxels = self.values.len() / self.batch;
        self.values[sample * voxels..][..voxels].chunks(voxels / (depth * height))
    }

    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// The voxels of all new maps.
    pub(super) fn voxels(&self) -> usize {
        self.batch * self.plan.to().iter().product::<usize>()
    }

    /// How many blocks a sample has.
    pub fn blocks_per_sample(&self) -> usize {
        let [depth, height, _] = self.plan.to();
        depth * height.div_ceil(rows_per_block(self.plan.to()))
    }

    /// The parts of values on the new grid, `(B, D', H', W')`, that belong to each block.
    pub fn parts<'a, T>(&self, values: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        let [_, height, width] = self.plan.to();
        let length = rows_per_block(self.plan.to()) * width;
        values.chunks(height * width).flat_map(move |plane| plane.chunks(length))
    }

    /// As [`parts`](Self::parts), to write to.
    pub fn parts_mut<'a, T>(&self, values: &'a mut [T]) -> impl Iterator<Item = &'a mut [T]> {
        let [_, height, width] = self.plan.to();
        let length = rows_per_block(self.plan.to()) * width;
        values.chunks_mut(height * width).flat_map(move |plane| plane.chunks_mut(length))
    }

    /// Hands each row of the new maps to the sink of its block; returns the sinks.
    pub fn run<S: RowSink>(&self, sinks: impl Iterator<Item = S>) -> Vec<S> {
        let blocks = (0..self.batch).flat_map(|sample| self.plan.blocks(sample));
        tasks::map(self.voxels(), blocks.zip(sinks), |(block, mut sink)| {
            self.make(self.plan, &block, &mut sink);
            sink
        })
    }

    /// Hands the rows of a block to the sink; `plan` is the source's own, or that of its corners.
    pub(super) fn make<S: RowSink>(&self, plan: &Plan, block: &Block, sink: &mut S) {
        let voxels = self.values.len() / self.batch;
        make_rows(plan, &self.values[block.sample * voxels..][..voxels], block, sink);
    }
}

fn rows_per_block([_, height, width]: [usize; 3]) -> usize {
    BLOCK.div_ceil(width).min(height)
}

#[multiversion(targets("x86_64+avx+avx2+fma+f16c+bmi1+bmi2"))]
fn gather_rows(out: &mut [f32], rows: &[f32], width: usize, taps: &[Tap]) {
    for (out, row) in out.chunks_exact_mut(taps.len()).zip(rows.chunks_exact(width)) {
        gather(out, row, taps);
    }
}

/// Makes the rows of one block from `volume`, the sample's map with the rows of `Source::values`.
#[multiversion(targets("x86_64+avx+avx2+fma+f16c+bmi1+bmi2"))]
fn make_rows<S: RowSink>(plan: &Plan, volume: &[f32], block: &Block, sink: &mut S) {
    let [along_d, along_h, along_w] = &plan.along;
    let [_, height, old_width] = plan.from;
    let width = if plan.gather_first { along_w.len() } else { old_width };
    let gather_last = !plan.gather_first && along_w.len() != width;
    let depth = along_d[block.plane];
    let source = |z: usize, y: usize| &volume[(z * height + y) * width..][..width];

    // Two rows of the old grid, mixed along D: row `y` is in `mixed[y % 2]` if `held[y % 2] == y`.
    let mut mixed = [Vec::new(), Vec::new()];
    let mut held = [usize::MAX; 2];
    let (mut line, mut gathered) =
        (Vec::new(), vec![0.0; if gather_last { along_w.len() } else { 0 }]);
    for &Tap { low, high, weight } in &along_h[block.rows.clone()] {
        if depth.weight != 0.0 {
            for y in [low, high] {
                if held[y % 2] != y {
                    let (low, high) = (source(depth.low, y), source(depth.high, y));
                    mix(&mut mixed[y % 2], low, high, depth.weight);
                    held[y % 2] = y;
                }
            }
        }
        let row = |y: usize| {
            if depth.weight == 0.0 { source(depth.low, y) } else { &mixed[y % 2][..] }
        };
        let (low, high) = (&row(low)[..width], &row(high)[..width]);
        if !gather_last {
            if weight == 0.0 {
                sink.row(width, |i| low[i]);
            } else {
                sink.row(width, |i| between(low[i], high[i], weight));
            }
            continue;
        }
        let line = if weight == 0.0 {
            low
        } else {
            mix(&mut line, low, high, weight);
            &line
        };
        let gathered = &mut gathered[..along_w.len()];
        gather(gathered, line, along_w);
        sink.row(gathered.len(), |i| gathered[i]);
    }
}

/// `out = (1 - weight)·low + weight·high`, for a weight above 0.
#[inline(always)]
fn mix(out: &mut Vec<f32>, low: &[f32], high: &[f32], weight: f32) {
    out.resize(low.len(), 0.0);
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = between(*low, *high, weight);
    }
}

/// `out[i] = (1 - weight)·row[low] + weight·row[high]`, with the taps of each `i`.
#[inline(always)]
fn gather(out: &mut [f32], row: &[f32], taps: &[Tap]) {
    for (out, &Tap { low, high, weight }) in out.iter_mut().zip(taps) {
        let low = row[low];
        let between = between(low, row[high], weight);
        // Infinity times 0 would be NaN.
        *out = if weight == 0.0 { low } else { between };
    }
}

/// `(1 - weight)·low + weight·high`, fused: only the first product is rounded before the sum. So the
/// value between two equal ones is that value, and a constant map stays constant to the last bit.
#[inline(always)]
pub(super) fn between(low: f32, high: f32, weight: f32) -> f32 {
    weight.mul_add(high, (1.0 - weight) * low)
}
