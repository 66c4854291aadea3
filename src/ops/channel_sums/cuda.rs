//! How the kernels of `kernels/lib/channel_sums.cuh` share the work among blocks.
//!
//! The shape of one sample decides alone, so that a batch gives the bits of its samples on any device.

use crate::device::{Argument, Launch, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::launch::{PACK_BYTES, blocks_of, is_columns, launch_of};
use crate::shape::{Layout, Shape};

/// Enough warps to hide the latency of memory with the 4, or 3, blocks on a multiprocessor that the
/// registers of the kernels allow.
pub const BLOCK_THREADS: u32 = 256;
/// Rows up to here are summed by a warp or less: with a block, a thread would have less than a load.
const SHORT_ROW: usize = 1024;
/// Loads of single values that a thread has under way; one that reads two tensors halves them. With
/// 16, for 64 bytes of `f32`, most lanes of a 7x7 map would have no work. Short rows of whole packs have
/// lanes for as many values, so that maps as small still spread over as many blocks.
pub const VALUE_READS: u32 = 8;
/// Loads of 16 bytes that a thread has under way, as `VALUE_READS`; in long rows that are not whole
/// packs, as many values.
pub const PACK_READS: u32 = 4;
/// Blocks of a sample from which on each has more to do: about four for each multiprocessor of an
/// H100. With fewer blocks too few loads are under way; with more, the partial sums cost time.
const ENOUGH_BLOCKS: usize = 512;
/// Rounds of loads of a block, at most. A thread adds up that many times 4 packs (or 8 values), so
/// this bounds the rounding error.
const MOST_ROUNDS: usize = 8;
/// Threads side by side in the channels of a voxel, each with a pack: 128 bytes.
const PACK_LANES: usize = 8;
/// The same, each with a single value: a warp.
const VALUE_LANES: usize = 32;

/// How rows or columns are split among threads: the entries of each op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Contiguous, few voxels: some threads for each row.
    Short,
    /// Contiguous: a block for each segment of a row.
    Rows,
    /// Channels last: a block for each strip of voxels.
    Columns,
}

/// The launch of an op's kernel, with the arguments and the memory that the reduction adds.
pub struct ChannelSums<'a> {
    pub split: Split,
    pub launch: Launch,
    /// The channels, which columns alone take.
    channels: i64,
    voxels: i64,
    /// Rows of the tensor; or voxels of a segment; or voxels of a strip.
    extent: i64,
    /// Threads of a row; or segments of a row; or threads side by side in a voxel.
    parts: i32,
    /// A partial sum for each block, and a counter for each group of blocks that share a result.
    partials: SliceMut<'a, f64>,
    counters: SliceMut<'a, u32>,
}

impl<'a> ChannelSums<'a> {
    /// For an op that makes `sums` sums of each channel of tensors of `T`.
    ///
    /// # Errors
    ///
    /// If it takes more blocks than a grid has (the message names `operation`), or there is no memory.
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
        let (value_reads, pack_reads) = (VALUE_READS as usize, PACK_READS as usize);
        // `shared`: how many blocks share a result, and how many results are shared.
        let (split, blocks, extent, parts, shared) = if is_columns(shape, layout) {
            let (width, reads, lanes) = if channels.is_multiple_of(per_pack) {
                (per_pack, pack_reads, PACK_LANES)
            } else {
                (1, value_reads, VALUE_LANES)
            };
            let groups = channels / width;
            let lanes = groups.div_ceil(groups.div_ceil(lanes));
            let parts = groups.div_ceil(lanes);
            let strip =
                threads / lanes * reads * rounds((voxels * groups).div_ceil(threads * reads));
            let strips = voxels.div_ceil(strip);
            let shared = (strips > 1).then_some((strips, batch * parts));
            (Split::Columns, batch * strips * parts, strip, lanes, shared)
        } else if voxels <= SHORT_ROW {
            let lanes = voxels.div_ceil(value_reads).next_power_of_two().min(32);
            (Split::Short, rows.div_ceil(threads / lanes), rows, lanes, None)
        } else {
            let round = threads * pack_reads * per_pack;
            let segment = round * rounds((channels * voxels).div_ceil(round));
            let segments = voxels.div_ceil(segment);
            let shared = (segments > 1).then_some((segments, rows));
            (Split::Rows, rows * segments, segment, segments, shared)
        };
        let int = |blocks| blocks_of(operation, "gradient", shape, blocks);
        let (partials, counters) = shared.unwrap_or_default();
        Ok(Self {
            split,
            launch: launch_of(int(blocks)?, BLOCK_THREADS),
            channels: channels as i64,
            voxels: voxels as i64,
            extent: extent as i64,
            parts: int(parts)?,
            partials: stream.scratch(partials * rows * sums)?,
            counters: stream.counters(counters)?,
        })
    }

    /// The arguments of the entry of `split`: those of the op, and behind them those of
    /// `CHANNEL_SUMS_ENTRIES`, `(long long voxels, long long extent, int parts)`; but for
    /// `Split::Short` then `(double* partials, unsigned* counters)`; and for `Split::Columns` then
    /// `(long long channels)`.
    pub fn arguments<'b>(&'b self, own: &[&'b dyn Argument]) -> Vec<&'b dyn Argument> {
        let mut all = own.to_vec();
        all.extend([&self.voxels as &dyn Argument, &self.extent, &self.parts]);
        if self.split != Split::Short {
            all.extend([&self.partials as &dyn Argument, &self.counters]);
        }
        if self.split == Split::Columns {
            all.push(&self.channels);
        }
        all
    }
}
