//! How sums over the voxels of each channel (`kernels/lib/channel_sums.cuh`) are parted among blocks.
//!
//! By the shape of one sample alone: a batch gives the bits of its samples, on any device.

use super::launch::{PACK_BYTES, blocks_of, is_columns, launch_of};
use crate::device::{Argument, Launch, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::shape::{Layout, Shape};

/// Eight such blocks fill a multiprocessor as far as registers let them.
pub(super) const BLOCK_THREADS: u32 = 256;
/// Rows up to here are summed by a warp or less: a block would have less than a load per thread to do.
const SHORT_ROW: usize = 1024;
/// Values that a thread of a short row reads at once, for one tensor; those of 64 bytes of `f32`
/// would leave lanes of 7x7 maps without work.
const VALUE_READS: usize = 8;
/// Loads of 16 bytes that a thread has under way.
const PACK_READS: usize = 4;
/// Blocks of a sample from which on each has more to do: about four for each multiprocessor of an
/// H100. Fewer, and there is not enough under way; more, and the partial sums count.
const ENOUGH_BLOCKS: usize = 512;
/// Rounds of loads of a block, at most. A thread adds up as many times 4 packs (or 8 values), so it
/// bounds the rounding error.
const MOST_ROUNDS: usize = 8;
/// Threads side by side in the channels of a voxel: 128 bytes in packs, or a warp.
const PACK_LANES: usize = 8;
const VALUE_LANES: usize = 32;

/// One launch, with the memory that it needs beside that of its op.
pub(super) struct ChannelSums<'a> {
    /// Which of the three entries: `short`, `rows` or `columns`.
    pub suffix: &'static str,
    pub launch: Launch,
    /// Channels; voxels; rows of all, or voxels of a segment or strip.
    extents: [i64; 3],
    /// Threads of a row; or segments of a row; or threads side by side in a voxel.
    split: i32,
    /// Sums of parts, and a counter for those of one sum.
    parts: Option<(SliceMut<'a, f64>, SliceMut<'a, u32>)>,
}

impl<'a> ChannelSums<'a> {
    /// For `sums` sums over the voxels of each channel of tensors of `T`.
    ///
    /// # Errors
    ///
    /// If it takes more blocks than a grid has, named after `operation`, or there is no memory.
    pub fn new<T: Element>(
        operation: &str,
        stream: &'a Stream,
        shape: Shape,
        layout: Layout,
        sums: usize,
    ) -> Result<Self> {
        let Shape { batch, channels, .. } = shape;
        let (voxels, rows) = (shape.voxels(), batch * channels);
        let per_pack = PACK_BYTES / size_of::<T>();
        let threads = BLOCK_THREADS as usize;
        let rounds = |all: usize| (all / ENOUGH_BLOCKS).clamp(1, MOST_ROUNDS);
        let (suffix, blocks, extent, split, parts) = if is_columns(shape, layout) {
            let (width, reads, lanes) = if channels.is_multiple_of(per_pack) {
                (per_pack, PACK_READS, PACK_LANES)
            } else {
                (1, VALUE_READS, VALUE_LANES)
            };
            let groups = channels / width;
            let lanes = groups.div_ceil(groups.div_ceil(lanes));
            let parts = groups.div_ceil(lanes);
            let strip =
                threads / lanes * reads * rounds((voxels * groups).div_ceil(threads * reads));
            let strips = voxels.div_ceil(strip);
            let memory = (strips > 1).then_some((strips, batch * parts));
            ("columns", batch * strips * parts, strip, lanes, memory)
        } else if voxels <= SHORT_ROW {
            let lanes = voxels.div_ceil(VALUE_READS).next_power_of_two().min(32);
            ("short", rows.div_ceil(threads / lanes), rows, lanes, None)
        } else {
            let round = threads * PACK_READS * per_pack;
            let segment = round * rounds((channels * voxels).div_ceil(round));
            let segments = voxels.div_ceil(segment);
            let memory = (segments > 1).then_some((segments, rows));
            ("rows", rows * segments, segment, segments, memory)
        };
        let int = |blocks| blocks_of(operation, "gradient", shape, blocks);
        let launch = launch_of(int(blocks)?, BLOCK_THREADS);
        let (parts, counters) = parts.unwrap_or_default();
        let parts = (stream.scratch(parts * rows * sums)?, stream.counters(counters)?);
        Ok(Self {
            suffix,
            launch,
            extents: [channels as i64, voxels as i64, extent as i64],
            split: int(split)?,
            parts: (suffix != "short").then_some(parts),
        })
    }

    /// The arguments of an entry: those of its op and, behind them, `long long channels`,
    /// `long long voxels`, `long long extent`, `int split` and, but for `short`, `double* partials`
    /// and `unsigned* counters`.
    pub fn arguments<'b>(&'b self, own: &[&'b dyn Argument]) -> Vec<&'b dyn Argument> {
        let mut all = own.to_vec();
        all.extend(self.extents.iter().map(|extent| extent as &dyn Argument));
        all.push(&self.split);
        if let Some((partials, counters)) = &self.parts {
            all.push(partials);
            all.push(counters);
        }
        all
    }
}
