//! The least and greatest value of a map, and whether all of it is finite: shared by the ops that
//! make a map, resample it or normalise it (`kernels/lib/extremes.cuh`).

pub(super) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

#[cfg(feature = "cuda")]
pub use cuda::DeviceExtremes;

/// The least and greatest value of one sample's map before normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least value.
    pub minimum: f32,
    /// The greatest value.
    pub maximum: f32,
}
