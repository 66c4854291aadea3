//! Maps on another grid: linear or nearest, along each axis up or down by any ratio.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::reference;
pub(super) use cpu::resample as from_source;

use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::ops::resampling::check::{check, check_grids, check_map, check_out, check_ranges};
use crate::ops::resampling::{self, Plan, Source};
use crate::ops::{Interpolation, Range, Resize};

/// How far a voxel may lie from its [`reference()`], relative to the greatest `|map|` of the sample.
///
/// Along each of three axes the weight is rounded to 2⁻²⁴, and a product and the sum to f32, and the
/// two weights add up to 1: `3·3·2⁻²⁴ = 5.4e-7`.
pub const TOLERANCE: f64 = 6e-7;

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
/// A constant map stays what it is to the last bit. A voxel that is not
/// finite makes those not finite in which it has a weight above 0, and no others. Positions are
/// worked out from whole numbers, so they are exact, and weights are to 2⁻²⁵; libtorch rounds
/// positions to f32, and where that makes its nearest position fall short of a border between two
/// voxels, it takes the one before.
///
/// # Errors
///
/// If an extent of `resize` is 0 or above 2³⁰, `map` does not have the values that
/// `resize` says, or memory does not hold the new grid.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, Resize, resample};
///
/// let resize = Resize { batch: 1, from: [1, 1, 2], to: [1, 1, 4] };
/// let line = resample(&[0.0, 4.0], resize, Interpolation::Linear)?;
/// assert_eq!(line, [0.0, 1.0, 3.0, 4.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn resample(map: &[f32], resize: Resize, interpolation: Interpolation) -> Result<Vec<f32>> {
    check("resample", resize)?;
    let mut resampled = f32::zeros(resize.new_voxels());
    resample_into(map, resize, interpolation, None, &mut resampled)?;
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
/// If an extent of `resize` is 0 or above 2³⁰, `map` does not have the values that
/// `resize` says, memory does not hold what it takes to work out a row of the new grid, or
/// a voxel of the resampled map is not finite. The message names the sample.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, Resize, resample};
///
/// // The voxels of the new grid that are nearest to the peak lie a quarter away from it.
/// let peak = [0.0, 0.0, 8.0, 0.0, 0.0];
/// let resize = Resize { batch: 1, from: [1, 1, 5], to: [1, 1, 10] };
/// let ranges = resample::extremes(&peak, resize, Interpolation::Linear)?;
/// assert_eq!((ranges[0].minimum, ranges[0].maximum), (0.0, 6.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn extremes(map: &[f32], resize: Resize, interpolation: Interpolation) -> Result<Vec<Range>> {
    check_grids("resample", resize)?;
    check_map("resample", "map", map.len(), resize.batch, resize.from)?;
    ranges(&Plan::new("resample", resize, interpolation)?.source(map), map)
}

/// The ranges of the maps; an error that names the first sample that is not finite.
fn ranges(source: &Source, map: &[f32]) -> Result<Vec<Range>> {
    let extremes = resampling::extremes(source);
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
/// use medcam::ops::{Interpolation, Resize, resample};
///
/// let resize = Resize { batch: 1, from: [1, 1, 2], to: [1, 1, 4] };
/// let (line, ranges) =
///     resample::resample_normalized::<u8>(&[2.0, 6.0], resize, Interpolation::Linear)?;
/// assert_eq!(line, [0, 64, 191, 255]);
/// assert_eq!((ranges[0].minimum, ranges[0].maximum), (2.0, 6.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn resample_normalized<O: MapElement>(
    map: &[f32],
    resize: Resize,
    interpolation: Interpolation,
) -> Result<(Vec<O>, Vec<Range>)> {
    check("resample", resize)?;
    check_map("resample", "map", map.len(), resize.batch, resize.from)?;
    let plan = Plan::new("resample", resize, interpolation)?;
    let source = plan.source(map);
    let ranges = ranges(&source, map)?;
    let mut resampled = O::zeros(resize.new_voxels());
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
/// If an extent of `resize` is 0 or above 2³⁰, `map`, `ranges` or `out` does not have
/// as many values as these say, an end of a range is not finite or its minimum above its maximum,
/// `out` is of u8, which holds `[0, 1]` alone, and there are no ranges, or memory does not hold what
/// it takes on the way. `out` is as before then.
///
/// # Example
///
/// ```
/// use medcam::ops::{Interpolation, Resize, resample};
///
/// let (map, resize) = ([2.0, 6.0], Resize { batch: 1, from: [1, 1, 2], to: [1, 1, 4] });
/// let mut out = [0.0_f32; 4];
/// resample::resample_into(&map, resize, Interpolation::Linear, None, &mut out)?;
/// assert_eq!(out, [2.0, 3.0, 5.0, 6.0]);
///
/// let ranges = resample::extremes(&map, resize, Interpolation::Linear)?;
/// resample::resample_into(&map, resize, Interpolation::Linear, Some(&ranges), &mut out)?;
/// assert_eq!(out, [0.0, 0.25, 0.75, 1.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn resample_into<O: MapElement>(
    map: &[f32],
    resize: Resize,
    interpolation: Interpolation,
    ranges: Option<&[Range]>,
    out: &mut [O],
) -> Result<()> {
    check_grids("resample", resize)?;
    check_map("resample", "map", map.len(), resize.batch, resize.from)?;
    check_out::<O>("resample", out.len(), resize, ranges.is_some())?;
    check_ranges("resample", ranges, resize.batch)?;
    let plan = Plan::new("resample", resize, interpolation)?;
    cpu::resample(&plan.source(map), ranges, out);
    Ok(())
}
