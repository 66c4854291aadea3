//! Maps from one grid to another, row by row or tile by tile: shared by
//! [`resample()`](super::resample()) and [`guided_product()`](super::guided_product())
//! (`kernels/lib/resampling.cuh`).

pub mod check;
mod corners;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod rows;
mod taps;

pub use corners::extremes;
pub use rows::{Plan, RowSink, Source};

/// How the value between voxels is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Bilinear for 2D, trilinear for 3D; libtorch's with `align_corners=false`.
    Linear,
    /// The voxel that contains the position; libtorch's `nearest-exact`.
    Nearest,
}

/// The sizes of a resampling: maps of `(B, D, H, W)` with `[D, H, W] = from` become maps of
/// `(B, D', H', W')` with `[D', H', W'] = to`. 2D maps have `D = D' = 1`.
///
/// Plain numbers; the ops that take them refuse an extent of 0 or above 2³⁰.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, Resize, resample};
///
/// let resize = Resize { batch: 1, from: [1, 1, 2], to: [1, 1, 4] };
/// assert_eq!(resample(&[0.0, 4.0], resize, Interpolation::Linear)?, [0.0, 1.0, 3.0, 4.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resize {
    /// `B`, the number of maps; at most 65535 on a GPU.
    pub batch: usize,
    /// `D, H, W` of the maps that there are.
    pub from: [usize; 3],
    /// `D', H', W'` of the maps that are wanted.
    pub to: [usize; 3],
}

impl Resize {
    /// The voxels of all new maps.
    pub(super) fn new_voxels(&self) -> usize {
        self.batch * self.to.iter().product::<usize>()
    }
}
