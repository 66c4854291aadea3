//! Sums over the channels of each voxel, and the extremes of the map that they make: the reduction
//! behind the layer's map (`kernels/lib/voxel_sums.cuh`).

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
