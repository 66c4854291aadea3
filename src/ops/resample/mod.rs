//! Maps on another grid: linear or nearest, along each axis up or down by any ratio.

pub(super) mod check;
pub(super) mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub(super) mod extremes;
pub(super) mod rows;
mod taps;

use check::{check, check_grids, check_map, check_out, check_ranges};
pub use cpu::reference;
use rows::{Plan, Source};

use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::ops::Range;

/// How far a voxel may lie from its [`reference()`], relative to the greatest `|map|` of the sample.
///
/// Along each of three axes the weight is rounded to 2⁻²⁴, and a product and the sum to f32, and the
/// two weights add up to 1: `3·3·2⁻²⁴ = 5.4e-7`.
pub const TOLERANCE: f64 = 6e-7;

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
/// 2D maps have `D = D' = 1`. A constant map stays what it is to the last bit. A voxel that is not
/// finite makes those not finite in which it has a weight above 0, and no others. Positions are
/// worked out from whole numbers, so they are exact, and weights are to 2⁻²⁵; libtorch rounds
/// positions to f32, and where that makes its nearest position fall short of a border between two
/// voxels, it takes the one before.
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
    let mut resampled = f32::zeros(batch * to.iter().product::<usize>());
    resample_into(map, batch, from, to, interpolation, None, &mut resampled)?;
    Ok(resampled)
}

/// The range of each resampled map, without the map itself being made.
///
/// Between voxels of the old grid the new map is linear along each axis, so its extremes are among
/// those voxels of the new grid that come first or last there along all three axes: at most `2·D`
/// of `D'` along D. Only they are worked out, by the arithmetic of [`resample()`], so both ends of
/// the range are voxels of the map. (Rounding may take others past them, by the [`TOLERANCE`].)
///
/// | argument | shape | |
/// |---|---|---|
/// | `map` | `(B, D, H, W)` | with `[D, H, W] = from` |
/// | returns | `(B)` | for the grid `to` |
///
/// # Errors
///
/// If an extent of `batch`, `from` or `to` is 0 or above 2³⁰, `map` does not have the values that
/// `batch` and `from` say, memory does not hold what it takes to work out a row of the new grid, or
/// a voxel of the resampled map is not finite. The message names the sample.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, resample};
///
/// // The voxels of the new grid that are nearest to the peak lie a quarter away from it.
/// let peak = [0.0, 0.0, 8.0, 0.0, 0.0];
/// let ranges = resample::extremes(&peak, 1, [1, 1, 5], [1, 1, 10], Interpolation::Linear)?;
/// assert_eq!((ranges[0].minimum, ranges[0].maximum), (0.0, 6.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn extremes(
    map: &[f32],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    interpolation: Interpolation,
) -> Result<Vec<Range>> {
    check_grids("resample", batch, from, to)?;
    check_map("resample", "map", map.len(), batch, from)?;
    ranges(&Plan::new("resample", batch, from, to, interpolation)?.source(map), map)
}

/// The ranges of the maps, or which of them is not finite.
fn ranges(source: &Source, map: &[f32]) -> Result<Vec<Range>> {
    let extremes = extremes::extremes(source);
    if let Some(b) = extremes.iter().position(|extremes| !extremes.all_finite()) {
        let sample = &map[b * (map.len() / extremes.len())..][..map.len() / extremes.len()];
        let count = sample.iter().filter(|value| !value.is_finite()).count();
        let voxels = sample.len();
        return Err(Error::input(
            "resample",
            format!("map: {count} of the {voxels} voxels of sample {b} are not finite"),
        ));
    }
    Ok(extremes.into_iter().map(|extremes| extremes.range).collect())
}

/// Resampling and min-max normalisation in one: what [`resample()`] gives, then what
/// [`normalize()`](crate::ops::normalize()) does, but each voxel is written once.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | with `[D, H, W] = from` |
/// | returns | `(B, D', H', W')` | f32, f16 or u8 | with `[D', H', W'] = to`, in `[0, 1]` |
/// | | `(B)` | [`Range`] | of [`extremes()`] |
///
/// A `u8` holds 255ths. The ends of the range become 0 and 1 exactly, a constant map 0.
///
/// # Errors
///
/// As [`extremes()`], and if memory does not hold the new grid.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, resample};
///
/// let (line, ranges) = resample::resample_normalized::<u8>(
///     &[2.0, 6.0], 1, [1, 1, 2], [1, 1, 4], Interpolation::Linear,
/// )?;
/// assert_eq!(line, [0, 64, 191, 255]);
/// assert_eq!((ranges[0].minimum, ranges[0].maximum), (2.0, 6.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn resample_normalized<O: MapElement>(
    map: &[f32],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    interpolation: Interpolation,
) -> Result<(Vec<O>, Vec<Range>)> {
    check("resample", batch, from, to)?;
    check_map("resample", "map", map.len(), batch, from)?;
    let plan = Plan::new("resample", batch, from, to, interpolation)?;
    let source = plan.source(map);
    let ranges = ranges(&source, map)?;
    let mut resampled = O::zeros(batch * to.iter().product::<usize>());
    cpu::resample(&source, Some(&ranges), &mut resampled);
    Ok((resampled, ranges))
}

/// [`resample()`] into memory that is there already, and, with the `ranges` of [`extremes()`],
/// normalised, as [`resample_normalized()`].
///
/// Above some 32 MB that is several times as fast as into new memory, which the system hands out
/// page by page.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | with `[D, H, W] = from` |
/// | `ranges` | `(B)`, or none | [`Range`] | values outside of it become 0 or 1, NaN 0 |
/// | `out` | `(B, D', H', W')` | f32, f16 or u8 | with `[D', H', W'] = to`; written |
///
/// Without `ranges`, values beyond 65504, the greatest of f16, become infinite in it.
///
/// # Errors
///
/// If an extent of `batch`, `from` or `to` is 0 or above 2³⁰, `map`, `ranges` or `out` does not have
/// as many values as these say, an end of a range is not finite or its minimum above its maximum,
/// `out` is of u8, which holds `[0, 1]` alone, and there are no ranges, or memory does not hold what
/// it takes on the way. `out` is as before then.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, resample};
///
/// let (map, from, to) = ([2.0, 6.0], [1, 1, 2], [1, 1, 4]);
/// let mut out = [0.0_f32; 4];
/// resample::resample_into(&map, 1, from, to, Interpolation::Linear, None, &mut out)?;
/// assert_eq!(out, [2.0, 3.0, 5.0, 6.0]);
///
/// let ranges = resample::extremes(&map, 1, from, to, Interpolation::Linear)?;
/// resample::resample_into(&map, 1, from, to, Interpolation::Linear, Some(&ranges), &mut out)?;
/// assert_eq!(out, [0.0, 0.25, 0.75, 1.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn resample_into<O: MapElement>(
    map: &[f32],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    interpolation: Interpolation,
    ranges: Option<&[Range]>,
    out: &mut [O],
) -> Result<()> {
    check_grids("resample", batch, from, to)?;
    check_map("resample", "map", map.len(), batch, from)?;
    check_out::<O>("resample", out.len(), batch, to, ranges.is_some())?;
    check_ranges("resample", ranges, batch)?;
    let plan = Plan::new("resample", batch, from, to, interpolation)?;
    cpu::resample(&plan.source(map), ranges, out);
    Ok(())
}
