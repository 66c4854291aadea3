//! Sums over the voxels of each channel: the reduction behind channel weights
//! (`kernels/lib/channel_sums.cuh`).

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
