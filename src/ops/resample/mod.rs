//! Maps on another grid: linear or nearest, along each axis up or down by any ratio.

pub(super) mod cpu;
mod taps;

pub use cpu::reference;

use crate::error::{Error, Result};
use crate::shape::Shape;

/// How far a voxel may lie from its [`reference()`], relative to the greatest `|map|` of the sample.
///
/// Along each of three axes a weight, two products and a sum are rounded to f32, and the two
/// weights add up to 1: `3·3·2⁻²⁴ = 5.4e-7`.
pub const TOLERANCE: f64 = 6e-7;

/// The longest axis, before or after: its positions times 4 must fit into 64 bits.
const LONGEST_AXIS: usize = 1 << 30;

/// How the value between voxels is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Bilinear for 2D, trilinear for 3D; libtorch's with `align_corners=false`.
    Linear,
    /// The voxel that holds the position; libtorch's `nearest-exact`.
    Nearest,
}

/// Maps on another grid, with half-pixel centres.
///
/// Along each axis voxel `d` of the new grid lies at `x = (d + 1/2)·from/to - 1/2` of the old one.
/// Linear: `(1 - t)·v[floor(x)] + t·v[floor(x) + 1]` with `t = x - floor(x)`, and the outermost
/// value beyond the outermost centres. Nearest: `v[floor(x + 1/2)]`.
///
/// | argument | shape | |
/// |---|---|---|
/// | `map` | `(B, D, H, W)` | with `[D, H, W] = from` |
/// | returns | `(B, D', H', W')` | with `[D', H', W'] = to` |
///
/// 2D maps have `D = D' = 1`. A voxel that is not finite makes those not finite in which it has a
/// weight above 0, and no others. Positions and weights are worked out from whole numbers, so
/// they are exact; libtorch rounds them to f32, and where that makes its nearest position fall
/// short of a border between two voxels, it takes the one before.
///
/// # Errors
///
/// If an extent of `batch`, `from` or `to` is 0 or above 2³⁰, `map` does not have the values that
/// `batch` and `from` say, or memory does not hold the new grid.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, resample};
///
/// let line = resample(&[0.0, 4.0], 1, [1, 1, 2], [1, 1, 4], Interpolation::Linear)?;
/// assert_eq!(line, [0.0, 1.0, 3.0, 4.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn resample(
    map: &[f32],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    interpolation: Interpolation,
) -> Result<Vec<f32>> {
    check("resample", batch, from, to)?;
    let expected = Shape::new(batch, 1, from)?.elements();
    if map.len() != expected {
        let given = map.len();
        let [d, h, w] = from;
        return Err(Error::input(
            "resample",
            format!("map: ({batch}, {d}, {h}, {w}) takes {expected} values, got {given}"),
        ));
    }
    Ok(cpu::resample(map, from, to, interpolation, false).map)
}

/// Refuses grids that have no voxel, or more than can be counted; `operation` is who asks.
pub(super) fn check(operation: &str, batch: usize, from: [usize; 3], to: [usize; 3]) -> Result<()> {
    for (name, grid) in [("from", from), ("to", to)] {
        let place = format!("{operation}: {name}");
        Shape::new(batch, 1, grid).map_err(|error| error.within(&place))?;
        if let Some(extent) = grid.iter().find(|&&extent| extent > LONGEST_AXIS) {
            return Err(Error::input(
                &place,
                format!("an extent of {extent} is above the limit of {LONGEST_AXIS}"),
            ));
        }
    }
    // An allocation that fails ends the process. A map is held up to four times on its way to disk.
    let voxels = batch * to.iter().product::<usize>();
    if Vec::<[f32; 4]>::new().try_reserve_exact(voxels).is_err() {
        let [d, h, w] = to;
        return Err(Error::input(
            operation,
            format!(
                "no memory for a grid of ({batch}, {d}, {h}, {w}) voxels; ask for a smaller one"
            ),
        ));
    }
    Ok(())
}
