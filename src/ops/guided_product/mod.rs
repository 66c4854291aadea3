//! Guided Grad-CAM: a map of few voxels times a guided map of many, normalised.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::reference;

use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::ops::resampling::check::{check, check_grids, check_map, check_out, check_ranges};
use crate::ops::resampling::{Plan, Source};
use crate::ops::{Interpolation, Range, Resize, resample};

/// How far a voxel that is not normalised may lie from its [`reference()`], relative to
/// `|guided[b,n]|` times the greatest `|map|` of the sample.
///
/// That of [`resample()`], and a product that is rounded to f32 once. A normalised voxel may be
/// off by twice that over `maximum - minimum`, and by the tolerance of
/// [`normalize`](crate::ops::normalize()).
pub const TOLERANCE: f64 = resample::TOLERANCE + 6e-8;

/// Guided Grad-CAM: the map, resampled, times the guided map, each sample normalised.
///
/// `P[b,n] = resample(map)[b,n]·guided[b,n]`, linear as in [`resample()`], then
/// `(P[b,n] - minimum[b]) / (maximum[b] - minimum[b])`; where `P` is constant, 0.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | Grad-CAM's, with `[D, H, W] = from` |
/// | `guided` | `(B, D', H', W')` | f32 | Guided Backpropagation's, with `[D', H', W'] = to` |
/// | returns | `(B, D', H', W')` | f32, f16 or u8 | in `[0, 1]` |
/// | | `(B)` | [`Range`] | of `P` |
///
/// The map is resampled twice, row by row: so no buffer as large as the result is needed.
///
/// Selvaraju et al. 2017 (arXiv 1610.02391), section 3.2, without the normalisation, which is
/// M3d-CAM's. M3d-CAM takes the range of sample 0 for all samples of a batch; here each has its
/// own, so that a batch gives what its samples give one by one.
///
/// # Errors
///
/// As [`extremes()`], and if memory does not hold the result.
///
/// # Example
///
/// ```
/// use medcam::ops::{Resize, guided_product};
///
/// // The map becomes 0, 1, 3, 4.
/// let guided = [5.0, -1.0, 1.0, 0.5];
/// let resize = Resize { batch: 1, from: [1, 1, 2], to: [1, 1, 4] };
/// let (product, ranges) = guided_product::<f32>(&[0.0, 4.0], &guided, resize)?;
/// assert_eq!(product, [0.25, 0.0, 1.0, 0.75]);
/// assert_eq!((ranges[0].minimum, ranges[0].maximum), (-1.0, 3.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn guided_product<O: MapElement>(
    map: &[f32],
    guided: &[f32],
    resize: Resize,
) -> Result<(Vec<O>, Vec<Range>)> {
    check("guided_product", resize)?;
    check_inputs(map, guided, resize)?;
    let plan = Plan::new("guided_product", resize, Interpolation::Linear)?;
    let source = plan.source(map);
    let ranges = ranges(&source, map, guided)?;
    let mut product = O::zeros(guided.len());
    cpu::guided_product(&source, guided, Some(&ranges), &mut product);
    Ok((product, ranges))
}

/// The range of each product `P` of [`guided_product()`], which is not made.
///
/// | argument | shape | |
/// |---|---|---|
/// | `map` | `(B, D, H, W)` | with `[D, H, W] = from` |
/// | `guided` | `(B, D', H', W')` | with `[D', H', W'] = to` |
/// | returns | `(B)` | |
///
/// # Errors
///
/// If an extent of `resize` is 0 or above 2³⁰, `map` or `guided` does not have the
/// values that these say, a product is not finite (the message names the sample), or memory does not
/// hold what it takes on the way.
pub fn extremes(map: &[f32], guided: &[f32], resize: Resize) -> Result<Vec<Range>> {
    check_inputs(map, guided, resize)?;
    let plan = Plan::new("guided_product", resize, Interpolation::Linear)?;
    ranges(&plan.source(map), map, guided)
}

/// The ranges of the products; an error that names the first sample that is not finite.
fn ranges(source: &Source, map: &[f32], guided: &[f32]) -> Result<Vec<Range>> {
    let extremes = cpu::extremes(source, guided);
    let batch = extremes.len();
    if let Some(b) = extremes.iter().position(|extremes| !extremes.all_finite()) {
        let not_finite = |values: &[f32]| {
            let sample = &values[b * (values.len() / batch)..][..values.len() / batch];
            sample.iter().filter(|value| !value.is_finite()).count()
        };
        let (in_map, in_guided) = (not_finite(map), not_finite(guided));
        return Err(Error::input(
            "guided_product",
            format!(
                "the product of sample {b} is not finite: {in_map} voxels of map and {in_guided} \
                 of guided are not"
            ),
        ));
    }
    Ok(extremes.into_iter().map(|extremes| extremes.range).collect())
}

/// [`guided_product()`] into memory that is there already; without `ranges`, the product `P` itself.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | with `[D, H, W] = from` |
/// | `guided` | `(B, D', H', W')` | f32 | with `[D', H', W'] = to` |
/// | `ranges` | `(B)`, or none | [`Range`] | of [`extremes()`]; what lies outside becomes 0 or 1, NaN 0 |
/// | `out` | `(B, D', H', W')` | f32, f16 or u8 | written |
///
/// Without `ranges`, products beyond 65504, the greatest of f16, become infinite in it.
///
/// # Errors
///
/// If an extent of `resize` is 0 or above 2³⁰, `map`, `guided`, `ranges` or `out` does
/// not have as many values as these say, an end of a range is not finite or its minimum above its
/// maximum, `out` is of u8, which holds `[0, 1]` alone, and there are no ranges, or memory does not
/// hold what it takes on the way. `out` is as before then.
///
/// # Example
///
/// ```
/// use medcam::ops::{Resize, guided_product};
///
/// let (map, guided) = ([0.0, 4.0], [5.0, -1.0, 1.0, 0.5]);
/// let resize = Resize { batch: 1, from: [1, 1, 2], to: [1, 1, 4] };
/// let mut out = [0.0_f32; 4];
/// guided_product::guided_product_into(&map, &guided, resize, None, &mut out)?;
/// assert_eq!(out, [0.0, -1.0, 3.0, 2.0]);
///
/// let ranges = guided_product::extremes(&map, &guided, resize)?;
/// guided_product::guided_product_into(&map, &guided, resize, Some(&ranges), &mut out)?;
/// assert_eq!(out, [0.25, 0.0, 1.0, 0.75]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn guided_product_into<O: MapElement>(
    map: &[f32],
    guided: &[f32],
    resize: Resize,
    ranges: Option<&[Range]>,
    out: &mut [O],
) -> Result<()> {
    check_inputs(map, guided, resize)?;
    check_out::<O>("guided_product", out.len(), resize, ranges.is_some())?;
    check_ranges("guided_product", ranges, resize.batch)?;
    let plan = Plan::new("guided_product", resize, Interpolation::Linear)?;
    cpu::guided_product(&plan.source(map), guided, ranges, out);
    Ok(())
}

fn check_inputs(map: &[f32], guided: &[f32], resize: Resize) -> Result<()> {
    check_grids("guided_product", resize)?;
    check_map("guided_product", "map", map.len(), resize.batch, resize.from)?;
    check_map("guided_product", "guided", guided.len(), resize.batch, resize.to)
}
