//! What resampling and what builds on it refuse.

use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::ops::Range;
use crate::shape::Shape;

/// The longest axis, before or after: its positions times 4 must fit into 64 bits.
const LONGEST_AXIS: usize = 1 << 30;
/// The most blocks along the second and third axis of a grid.
#[cfg(feature = "cuda")]
pub(super) const MOST_BLOCKS: usize = 65_535;

/// Refuses grids that have no voxel, or more than can be counted or held; `operation` is who asks.
pub(in crate::ops) fn check(
    operation: &str,
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
) -> Result<()> {
    check_grids(operation, batch, from, to)?;
    // A map is held up to four times on its way to disk.
    let voxels = batch * to.iter().product::<usize>();
    check_memory(operation, batch, to, size_of::<[f32; 4]>() as u128 * voxels as u128)
}

/// Refuses a grid for which memory does not hold `bytes`: an allocation that fails ends the process.
pub(super) fn check_memory(
    operation: &str,
    batch: usize,
    to: [usize; 3],
    bytes: u128,
) -> Result<()> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
        let [d, h, w] = to;
        return Err(Error::input(
            operation,
            format!(
                "to: no memory for a grid of ({batch}, {d}, {h}, {w}) voxels; ask for a smaller one"
            ),
        ));
    }
    Ok(())
}

/// Refuses grids that have no voxel, or more than can be counted.
pub(in crate::ops) fn check_grids(
    operation: &str,
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
) -> Result<()> {
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
    Ok(())
}

/// Refuses values that are not as many as their grid says.
pub(in crate::ops) fn check_map(
    operation: &str,
    argument: &str,
    values: usize,
    batch: usize,
    grid: [usize; 3],
) -> Result<()> {
    let [d, h, w] = grid;
    let expected = batch * d * h * w;
    if values != expected {
        return Err(Error::input(
            operation,
            format!("{argument}: ({batch}, {d}, {h}, {w}) takes {expected} values, got {values}"),
        ));
    }
    Ok(())
}

/// Refuses room for the result that is not as large as it, or of a type that cannot hold it: of the
/// product or map as it is, unless it is `normalized`.
pub(in crate::ops) fn check_out<O: MapElement>(
    operation: &str,
    values: usize,
    batch: usize,
    to: [usize; 3],
    normalized: bool,
) -> Result<()> {
    check_map(operation, "out", values, batch, to)?;
    if O::UNIT_RANGE && !normalized {
        return Err(Error::input(
            operation,
            format!("out: {} holds normalised maps alone; give their ranges, or take f32", O::NAME),
        ));
    }
    Ok(())
}

/// Refuses ranges that are not one for each sample, or none at all.
pub(in crate::ops) fn check_ranges(
    operation: &str,
    ranges: Option<&[Range]>,
    batch: usize,
) -> Result<()> {
    check_samples(operation, "ranges", ranges.map(<[Range]>::len), batch)?;
    let finite = |range: &Range| range.minimum.is_finite() && range.maximum.is_finite();
    let is_range = |range: &Range| finite(range) && range.minimum <= range.maximum;
    match ranges.into_iter().flatten().enumerate().find(|(_, range)| !is_range(range)) {
        Some((b, Range { minimum, maximum })) => Err(Error::input(
            operation,
            format!(
                "ranges: that of sample {b} goes from {minimum} to {maximum}; give those that \
                 extremes() finds"
            ),
        )),
        None => Ok(()),
    }
}

/// Refuses grids that the kernels cannot make.
#[cfg(feature = "cuda")]
pub(in crate::ops) fn check_launch(
    operation: &str,
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
) -> Result<()> {
    check_grids(operation, batch, from, to)?;
    check_batch(operation, batch)
}

/// Refuses more samples than a grid has blocks along z.
#[cfg(feature = "cuda")]
pub(super) fn check_batch(operation: &str, batch: usize) -> Result<()> {
    if batch > MOST_BLOCKS {
        return Err(Error::input(
            operation,
            format!("batch: {batch} samples, the limit is {MOST_BLOCKS}; part the batch"),
        ));
    }
    Ok(())
}

/// Refuses what is not one for each sample.
pub(in crate::ops) fn check_samples(
    operation: &str,
    argument: &str,
    given: Option<usize>,
    batch: usize,
) -> Result<()> {
    match given {
        Some(given) if given != batch => Err(Error::input(
            operation,
            format!("{argument}: {batch} samples take as many, got {given}"),
        )),
        _ => Ok(()),
    }
}
