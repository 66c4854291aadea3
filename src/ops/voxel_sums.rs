//! How sums over the channels of each voxel (`kernels/lib/voxel_sums.cuh`) are parted among blocks.
//!
//! By the shape of one sample alone: a batch gives the bits of its samples, on any device.

use super::extremes::DeviceExtremes;
use super::launch::{PACK_BYTES, blocks_of, check_length, is_columns, launch_of};
use crate::device::{Argument, Launch, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::shape::{Layout, Shape};

/// Four such blocks, at up to 64 registers, have 64 KiB under way on each multiprocessor.
pub(super) const BLOCK_THREADS: u32 = 256;
/// Loads of 16 bytes, or single values, that a thread has under way in channels-last tensors.
pub(super) const VOXEL_READS: u32 = 4;
/// Blocks of a sample up to which its channels are split, or its voxels taken one by one: two for
/// each multiprocessor of an H100.
const ENOUGH_BLOCKS: usize = 264;
/// Channels that a thread adds up at least: what blocks hand over is then little beside what they
/// read.
const LEAST_CHANNELS: usize = 16;
/// Tiles of a sample from which on each is larger: the last block reads the extremes of all.
const MANY_TILES: usize = 1024;
const MOST_STEPS: usize = 16;

/// One launch: its results, and the memory that it needs beside.
pub(super) struct VoxelSums<'a> {
    /// Which of the three entries: `rows`, `columns` or `few`.
    pub suffix: &'static str,
    pub launch: Launch,
    /// Channels, voxels.
    extents: [i64; 2],
    /// Threads of a tile and splits of the channels; or threads of a voxel and steps of a block.
    parting: [i32; 2],
    map: SliceMut<'a, f32>,
    extremes: SliceMut<'a, DeviceExtremes>,
    of_tile: SliceMut<'a, DeviceExtremes>,
    partials: SliceMut<'a, f32>,
    counters: SliceMut<'a, u32>,
}

impl<'a> VoxelSums<'a> {
    /// For a map of tensors of `T`, of which a thread reads `reads` times 16 bytes, or values, at once:
    /// what `VOXEL_READS` is in the program.
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
        check_length(operation, "map", shape, (batch * voxels, "B·D·H·W"), map.len())?;
        check_length(operation, "extremes", shape, (batch, "B"), extremes.len())?;
        let per_pack = PACK_BYTES / size_of::<T>();
        let block = BLOCK_THREADS as usize;
        let (suffix, tiles, splits, parting) = if is_columns(shape, layout) {
            let packed = channels.is_multiple_of(per_pack);
            let groups = if packed { channels / per_pack } else { channels };
            let lanes = groups.next_power_of_two().min(32);
            let teams = block / lanes;
            let several = teams * reads as usize;
            if packed && voxels.div_ceil(several) < ENOUGH_BLOCKS {
                ("few", voxels.div_ceil(teams), 1, [lanes, 1])
            } else {
                let steps = (voxels.div_ceil(several) / MANY_TILES).clamp(1, MOST_STEPS);
                ("columns", voxels.div_ceil(several * steps), 1, [lanes, steps])
            }
        } else {
            let width = if voxels.is_multiple_of(per_pack) { per_pack } else { 1 };
            let threads = (voxels / width).next_power_of_two().clamp(32, block);
            let tiles = voxels.div_ceil(threads * width);
            let most = (channels / (LEAST_CHANNELS * (block / threads))).max(1);
            let splits = ENOUGH_BLOCKS.div_ceil(tiles).min(most);
            ("rows", tiles, splits, [threads, splits])
        };
        let int = |blocks| blocks_of(operation, "map", shape, blocks);
        let launch = launch_of(int(batch * tiles * splits)?, BLOCK_THREADS);
        let split = splits > 1;
        let parting = [int(parting[0])?, int(parting[1])?];
        Ok(Self {
            suffix,
            launch,
            extents: [channels as i64, voxels as i64],
            parting,
            map,
            extremes,
            of_tile: stream.scratch(if tiles > 1 { batch * tiles } else { 0 })?,
            partials: stream.scratch(if split { batch * splits * voxels } else { 0 })?,
            counters: stream.counters(batch + if split { batch * tiles } else { 0 })?,
        })
    }

    /// The arguments of an entry: those of its op and, behind them, `long long channels`,
    /// `long long voxels`, two `int`, `float* map`, `Extremes* extremes`, `Extremes* of_tile`,
    /// `float* partials`, `unsigned* counters`.
    pub fn arguments<'b>(&'b self, own: &[&'b dyn Argument]) -> Vec<&'b dyn Argument> {
        let mut all = own.to_vec();
        all.extend(self.extents.iter().map(|extent| extent as &dyn Argument));
        all.extend(self.parting.iter().map(|part| part as &dyn Argument));
        let memory: [&dyn Argument; 5] =
            [&self.map, &self.extremes, &self.of_tile, &self.partials, &self.counters];
        all.extend(memory);
        all
    }
}
