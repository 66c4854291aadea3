//! Sums over the channels of each voxel on the CPU.

use crate::ops::extremes::cpu::Extremes;
use crate::ops::lanes::{self, LANES};
use crate::ops::tasks;
use crate::shape::Shape;

/// Voxels whose sums one task keeps in the first-level cache while the channels stream past. Longer
/// blocks read each channel in longer stretches: 8192 take 16 ms on one core for 32 channels of 128³
/// f32, 1024 take 20 ms.
const BLOCK: usize = 1 << 13;
/// Tasks that a sample is split into, at least, if each of them has `WORK` to do.
const TASKS: usize = 64;
/// Products that are worth a task of their own.
const WORK: usize = 1 << 17;
/// Channels that are summed in registers before their sum is added to the voxel's.
pub const GROUP: usize = 4;

/// A map per sample, and what is known of each sample's sums.
pub struct VoxelSums {
    /// `(B, D, H, W)`
    pub map: Vec<f32>,
    /// For each sample, how many sums were not finite before ReLU.
    pub not_finite: Vec<usize>,
    /// For each sample, the extremes of the map.
    pub extremes: Vec<Extremes>,
}

/// Makes the maps block by block: `add(b, first, sums)` adds to `sums`, which begin at 0, the sums of
/// the voxels `first..first + sums.len()` of sample `b`.
pub fn voxel_sums(
    shape: Shape,
    rectified: bool,
    add: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> VoxelSums {
    let Shape { batch, channels, .. } = shape;
    let voxels = shape.voxels();
    let block = voxels.div_ceil(TASKS).max(WORK.div_ceil(channels));
    let block = block.next_multiple_of(LANES).min(BLOCK);
    let mut map = vec![0.0_f32; batch * voxels];
    let blocks = map.chunks_mut(voxels).enumerate().flat_map(|(b, map)| {
        map.chunks_mut(block).enumerate().map(move |(i, sums)| (b, i * block, sums))
    });
    let blocks = tasks::map(shape.elements(), blocks, |(b, first, sums)| {
        add(b, first, sums);
        (lanes::finish(sums, rectified) as usize, Extremes::of(sums))
    });
    let merged = blocks.chunks(voxels.div_ceil(block)).map(|blocks| {
        let none = (0, Extremes::NONE);
        blocks.iter().fold(none, |all, block| (all.0 + block.0, all.1.merge(block.1)))
    });
    let (not_finite, extremes) = merged.unzip();
    VoxelSums { map, not_finite, extremes }
}
