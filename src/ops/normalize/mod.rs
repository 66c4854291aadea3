//! Min-max normalisation of maps, sample by sample.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::reference;

use crate::error::{Error, Result};
use crate::ops::Range;
use crate::ops::extremes::cpu::extremes;
use crate::ops::rescale::rescale;

/// How far a normalised value may lie from its [`reference()`]; absolute, as both are in `[0, 1]`.
///
/// Two differences and a product, each rounded to f32 once, and the inverse of the range, rounded
/// up: `5·2⁻²⁴ = 3.0e-7`.
pub const TOLERANCE: f64 = 3e-7;

/// Min-max normalisation, in place, sample by sample.
///
/// `v[b,n] = (v[b,n] - minimum[b]) / (maximum[b] - minimum[b])`; the greatest value becomes 1
/// exactly, the least 0. A constant map becomes 0.
///
/// `map` holds `batch` maps of one size, one after the other: `(B, D, H, W)`. Returns the `B`
/// ranges of the values before.
///
/// # Errors
///
/// If `map` cannot be parted into `batch` maps of at least one voxel, or has a value that is not
/// finite; `map` is as before then.
///
/// # Example
///
/// ```
/// use medcam::ops::normalize;
///
/// let mut map = [2.0, 4.0, 3.0, /* sample 1 */ 7.0, 7.0, 7.0];
/// let ranges = normalize(&mut map, 2)?;
/// assert_eq!(map, [0.0, 1.0, 0.5, 0.0, 0.0, 0.0]);
/// assert_eq!((ranges[0].minimum, ranges[0].maximum), (2.0, 4.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn normalize(map: &mut [f32], batch: usize) -> Result<Vec<Range>> {
    check_parts(map.len(), batch)?;
    let voxels = map.len() / batch;
    let extremes = extremes(map, voxels);
    if let Some(b) = extremes.iter().position(|extremes| !extremes.all_finite()) {
        let count = map[b * voxels..][..voxels].iter().filter(|v| !v.is_finite()).count();
        return Err(Error::input(
            "normalize",
            format!("map: {count} of the {voxels} voxels of sample {b} are not finite"),
        ));
    }
    let ranges: Vec<Range> = extremes.into_iter().map(|extremes| extremes.range).collect();
    rescale(map, &ranges);
    Ok(ranges)
}

/// Refuses values that are not `batch` maps of one size.
fn check_parts(values: usize, batch: usize) -> Result<()> {
    if batch == 0 || values == 0 || !values.is_multiple_of(batch) {
        return Err(Error::input(
            "normalize",
            format!("map: {values} values cannot be parted into {batch} maps"),
        ));
    }
    Ok(())
}
