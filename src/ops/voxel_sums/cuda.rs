//! How the kernels of `kernels/lib/voxel_sums.cuh` share the work among blocks.
//!
//! The shape of one sample decides alone, so that a batch gives the bits of its samples on any device.

use crate::device::{Argument, Launch, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::check::{check_length, check_samples};
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::{PACK_BYTES, blocks_of, is_columns, launch_of};
use crate::shape::{Layout, Shape};

/// Four such blocks, at up to 64 registers a thread, have 64 KiB of loads under way on each
/// multiprocessor.
pub const BLOCK_THREADS: u32 = 256;
/// Loads that a thread has under way in channels-last tensors: 16 bytes each, or single values.
pub const VOXEL_READS: u32 = 4;
/// Channels of contiguous tensors that a thread loads at once, 16 bytes of each; or single values.
pub const PACK_CHANNELS: u32 = 4;
pub const VALUE_CHANNELS: u32 = 8;
/// Threads of a tile of contiguous tensors, at least: a warp, so that whole warps read one channel.
const LEAST_THREADS: usize = 32;
/// Blocks of a sample that fill a device: two for each multiprocessor of an H100. With fewer, tiles are
/// smaller and the channels are split among blocks, or a thread reads one voxel at a time.
const ENOUGH_BLOCKS: usize = 264;
/// Tiles of a sample from which on tiles are larger: its last block reads the extremes of each.
const MANY_TILES: usize = 1024;
/// Steps of a block, at most.
const MOST_STEPS: usize = 16;

/// How rows or columns are split among threads: the entries of each op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Contiguous: a block for each tile of voxels, or for a part of its channels.
    Rows,
    /// Channels last: a thread reads several voxels at a time.
    Columns,
    /// Channels last, few voxels: a thread reads several packs of one voxel at a time.
    FewColumns,
}

/// The launch of an op's kernel, with the arguments and the memory that the reduction adds.
pub struct VoxelSums<'a> {
    pub split: Split,
    pub launch: Launch,
    channels: i64,
    voxels: i64,
    /// Rows: threads of a tile, and parts of its channels. Columns: threads of a voxel, and steps of a
    /// block.
    parts: [i32; 2],
    map: SliceMut<'a, f32>,
    extremes: SliceMut<'a, DeviceExtremes>,
    of_tile: SliceMut<'a, DeviceExtremes>,
    partials: SliceMut<'a, f32>,
    counters: SliceMut<'a, u32>,
}

impl<'a> VoxelSums<'a> {
    /// For a map of tensors of `T`; `reads` is the `VOXEL_READS` of the program.
    ///
    /// # Errors
    ///
    /// Named after `operation`: if `map` does not have `B·D·H·W` values or `extremes` not `B`, or it
    /// takes more blocks than a grid has. If there is no memory.
    pub fn new<T: Element>(
        operation: &str,
        stream: &'a Stream,
        shape: Shape,
        layout: Layout,
        reads: u32,
        map: SliceMut<'a, f32>,
        extremes: SliceMut<'a, DeviceExtremes>,
    ) -> Result<Self> {
        let Shape { batch, channels, .. } = shape;
        let voxels = shape.voxels();
        check_length(operation, "map", map.len(), (batch * voxels, "B·D·H·W"), shape)?;
        check_samples(operation, "extremes", extremes.len(), batch)?;
        let per_pack = PACK_BYTES / size_of::<T>();
        let block = BLOCK_THREADS as usize;
        let (split, tiles, splits, parts) = if is_columns(shape, layout) {
            let packed = channels.is_multiple_of(per_pack);
            let groups = if packed { channels / per_pack } else { channels };
            let lanes = groups.next_power_of_two().min(32);
            let teams = block / lanes;
            let several = teams * reads as usize;
            if packed && voxels.div_ceil(several) < ENOUGH_BLOCKS {
                (Split::FewColumns, voxels.div_ceil(teams), 1, [lanes, 1])
            } else {
                let steps = (voxels.div_ceil(several) / MANY_TILES).clamp(1, MOST_STEPS);
                (Split::Columns, voxels.div_ceil(several * steps), 1, [lanes, steps])
            }
        } else {
            let (width, reads) = if voxels.is_multiple_of(per_pack) {
                (per_pack, PACK_CHANNELS as usize)
            } else {
                (1, VALUE_CHANNELS as usize)
            };
            let groups = channels.div_ceil(reads);
            let tiles = |threads: usize| voxels.div_ceil(threads * width);
            let mut threads = (voxels / width).next_power_of_two().clamp(LEAST_THREADS, block);
            // Slices of a block add up their channels in shared memory, so they go before splits, as
            // long as each has channels.
            while tiles(threads) < ENOUGH_BLOCKS
                && threads > LEAST_THREADS
                && 2 * block / threads <= groups
            {
                threads /= 2;
            }
            let tiles = tiles(threads);
            // At most so many that a thread still loads as many channels as it does at once.
            let most = groups.div_ceil(block / threads);
            let splits = ENOUGH_BLOCKS.div_ceil(tiles).min(most);
            (Split::Rows, tiles, splits, [threads, splits])
        };
        let int = |blocks| blocks_of(operation, "map", shape, blocks);
        let is_split = splits > 1;
        Ok(Self {
            split,
            launch: launch_of(int(batch * tiles * splits)?, BLOCK_THREADS),
            channels: channels as i64,
            voxels: voxels as i64,
            parts: [int(parts[0])?, int(parts[1])?],
            map,
            extremes,
            of_tile: stream.scratch(if tiles > 1 { batch * tiles } else { 0 })?,
            partials: stream.scratch(if is_split { batch * splits * voxels } else { 0 })?,
            counters: stream.counters(batch + if is_split { batch * tiles } else { 0 })?,
        })
    }

    /// The arguments of an entry: those of the op, and behind them those of `VOXEL_SUMS_ENTRIES`,
    /// `(long long channels, long long voxels, int, int, float* map, Extremes* extremes, Extremes*
    /// of_tile, float* partials, unsigned* counters)`.
    pub fn arguments<'b>(&'b self, own: &[&'b dyn Argument]) -> Vec<&'b dyn Argument> {
        let added: [&dyn Argument; 9] = [
            &self.channels,
            &self.voxels,
            &self.parts[0],
            &self.parts[1],
            &self.map,
            &self.extremes,
            &self.of_tile,
            &self.partials,
            &self.counters,
        ];
        [own, &added].concat()
    }
}
