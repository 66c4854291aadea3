//! Checks of resampling, and of the ops that build on it.

use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::ops::check::{check_length, check_samples};
use crate::ops::{Range, Resize};
use crate::shape::Shape;

/// The longest axis, before or after: positions in half voxels of one axis, times the length of the
/// other, must fit into 62 bits.
pub const LONGEST_RESIZED_AXIS: usize = 1 << 30;

/// Refuses grids without a voxel, or with more than can be counted or held; `operation` is named in
/// the message.
pub fn check(operation: &str, resize: Resize) -> Result<()> {
    check_grids(operation, resize)?;
    // A map is held up to four times on its way to disk.
    check_memory(operation, resize, size_of::<[f32; 4]>() as u128 * resize.new_voxels() as u128)
}

/// Refuses a grid for which memory does not hold `bytes`: an allocation that fails ends the process.
pub fn check_memory(operation: &str, Resize { batch, to, .. }: Resize, bytes: u128) -> Result<()> {
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

/// Refuses grids without a voxel, or with more than can be counted.
pub fn check_grids(operation: &str, Resize { batch, from, to }: Resize) -> Result<()> {
    for (name, grid) in [("from", from), ("to", to)] {
        let place = format!("{operation}: {name}");
        Shape::new(batch, 1, grid).map_err(|error| error.within(&place))?;
        if let Some(extent) = grid.iter().find(|&&extent| extent > LONGEST_RESIZED_AXIS) {
            return Err(Error::input(
                &place,
                format!("an extent of {extent} is above the limit of {LONGEST_RESIZED_AXIS}"),
            ));
        }
    }
    Ok(())
}

/// Refuses an argument that does not have a value for each voxel of its grid.
pub fn check_map(
    operation: &str,
    argument: &str,
    given: usize,
    batch: usize,
    [d, h, w]: [usize; 3],
) -> Result<()> {
    let expected = (batch * d * h * w, "B·D·H·W");
    check_length(operation, argument, given, expected, format_args!("({batch}, {d}, {h}, {w})"))
}

/// Refuses an `out` that is not as long as the new maps, or whose type holds `[0, 1]` alone although
/// the result is not `normalized`.
pub fn check_out<O: MapElement>(
    operation: &str,
    given: usize,
    Resize { batch, to, .. }: Resize,
    normalized: bool,
) -> Result<()> {
    check_map(operation, "out", given, batch, to)?;
    if O::UNIT_RANGE && !normalized {
        return Err(Error::input(
            operation,
            format!("out: {} holds normalised maps alone; give their ranges, or take f32", O::NAME),
        ));
    }
    Ok(())
}

/// Refuses ranges that are not one for each sample, or whose ends are not in order.
pub fn check_ranges(operation: &str, ranges: Option<&[Range]>, batch: usize) -> Result<()> {
    let Some(ranges) = ranges else { return Ok(()) };
    check_samples(operation, "ranges", ranges.len(), batch)?;
    let finite = |range: &Range| range.minimum.is_finite() && range.maximum.is_finite();
    let is_range = |range: &Range| finite(range) && range.minimum <= range.maximum;
    match ranges.iter().enumerate().find(|(_, range)| !is_range(range)) {
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
