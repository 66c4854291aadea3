//! How the kernels of `kernels/lib/resampling.cuh` share the work among blocks.

use super::check::check_grids;
use super::{Interpolation, Resize};
use crate::device::{Argument, Launch, SliceMut, Stream};
use crate::error::{Error, Result};
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::registers_for;

pub const BLOCK_THREADS: u32 = 256;
/// Blocks on a multiprocessor: what the registers of the kernels allow, and with that their shared
/// memory, up to 17 KiB each.
const RESIDENT_BLOCKS: u32 = 4;
/// The register budget that follows.
pub const KERNEL_REGISTERS: u32 = registers_for(RESIDENT_BLOCKS, BLOCK_THREADS);
/// Columns of a tile, at most: a group of four for each thread.
const TILE_COLUMNS: u32 = 1024;
/// Rows of a tile, at most, if they are short.
const TILE_ROWS: u32 = 64;
/// Old values that a run keeps in shared memory: two for each column of the widest tile.
const TILE_SOURCE: u32 = 2 * TILE_COLUMNS;
/// Voxels of a tile if the grid has enough of them: four groups for each thread, so that computing the
/// tile's taps pays.
const TILE_VOXELS: usize = 16 * BLOCK_THREADS as usize;
/// Blocks for each multiprocessor from which on a block makes several planes: four times those that
/// are resident.
const BLOCKS_PER_MULTIPROCESSOR: usize = 4 * RESIDENT_BLOCKS as usize;
/// The most blocks along the second and third axis of a launch.
const MOST_BLOCKS: usize = 65_535;
/// The `-D` that `kernels/lib/resampling.cuh` needs.
pub const DEFINES: [(&str, u32); 5] = [
    ("BLOCK_THREADS", BLOCK_THREADS),
    ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
    ("TILE_COLUMNS", TILE_COLUMNS),
    ("TILE_ROWS", TILE_ROWS),
    ("TILE_SOURCE", TILE_SOURCE),
];
/// Static shared memory of a block, at most: a `Tile`, and what reductions take.
pub const SHARED_BYTES: u32 = 8 * TILE_COLUMNS + 8 * (TILE_ROWS + 1) + 4 * (TILE_SOURCE + 1) + 160;

/// Refuses sizes that the kernels cannot make.
pub fn check_launch(operation: &str, resize: Resize) -> Result<()> {
    check_grids(operation, resize)?;
    check_batch(operation, resize.batch)
}

/// Refuses more samples than a launch has blocks along z.
pub fn check_batch(operation: &str, batch: usize) -> Result<()> {
    if batch > MOST_BLOCKS {
        return Err(Error::input(
            operation,
            format!("batch: {batch} samples, the limit is {MOST_BLOCKS}; part the batch"),
        ));
    }
    Ok(())
}

/// `struct Axis` of `kernels/lib/resampling.cuh`.
#[repr(C)]
struct Axis {
    by_from: u64,
    by_to: u64,
    shift_from: i32,
    shift_to: i32,
    from: i32,
    to: i32,
    count: i32,
    nearest: i32,
}

/// `struct Resampling` of `kernels/lib/resampling.cuh`.
#[repr(C)]
pub struct Resampling {
    axes: [Axis; 3],
    tile_rows: i32,
    tile_columns: i32,
    column_tiles: i32,
    run_rows: i32,
    dense: i32,
}

// SAFETY: the fields of the struct in the kernel, in its order.
unsafe impl Argument for Resampling {}

/// Which voxels of the new grid a kernel makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    All,
    /// The corners of the linear pieces, among which the extremes are; see `taps::corners`.
    Corners,
}

/// How blocks share the work: the launch, and the argument that tells the kernel.
pub struct Tiling {
    pub resampling: Resampling,
    pub launch: Launch,
}

impl Tiling {
    /// For sizes that have been checked.
    pub fn new(
        operation: &str,
        stream: &Stream,
        Resize { batch, from, to }: Resize,
        interpolation: Interpolation,
        wanted: Wanted,
    ) -> Result<Self> {
        let count = |axis: usize| match wanted {
            Wanted::All => to[axis],
            Wanted::Corners => to[axis].min(2 * from[axis]),
        };
        let [planes, height, width] = [0, 1, 2].map(count);
        let columns = width.min(TILE_COLUMNS as usize);
        let column_tiles = width.div_ceil(columns);
        let multiprocessors = stream.gpu().multiprocessors() as usize;
        let tiles = |rows: usize| height.div_ceil(rows) * column_tiles;
        let mut rows = (TILE_VOXELS / columns).clamp(1, TILE_ROWS as usize).min(height);
        // Halve the tiles while there are fewer than two for each multiprocessor.
        while batch * planes * tiles(rows) < 2 * multiprocessors
            && rows * columns > 4 * BLOCK_THREADS as usize
        {
            rows = rows.div_ceil(2);
        }
        let dense = from[2] <= to[2];
        // The most values that a row of the tile keeps in shared memory.
        let span = if dense { from[2].min(columns + 2) } else { 2 * columns };
        let run_rows = if column_tiles == 1 { rows.min(TILE_SOURCE as usize / span) } else { 1 };
        let blocks = batch * planes * tiles(rows);
        let planes_per_block = blocks.div_ceil(BLOCKS_PER_MULTIPROCESSOR * multiprocessors);
        let groups = planes.div_ceil(planes_per_block).min(MOST_BLOCKS);
        let int = |value: usize| {
            i32::try_from(value).map_err(|_| {
                Error::input(operation, format!("to: a grid of {to:?} is too large to launch"))
            })
        };
        let axis = |axis: usize| {
            let ([by_from, by_to], [shift_from, shift_to]) = divisors(from[axis], to[axis]);
            Ok::<_, Error>(Axis {
                by_from,
                by_to,
                shift_from,
                shift_to,
                from: int(from[axis])?,
                to: int(to[axis])?,
                count: int(count(axis))?,
                nearest: i32::from(interpolation == Interpolation::Nearest),
            })
        };
        let resampling = Resampling {
            axes: [axis(0)?, axis(1)?, axis(2)?],
            tile_rows: int(rows)?,
            tile_columns: int(columns)?,
            column_tiles: int(column_tiles)?,
            run_rows: int(run_rows)?,
            dense: i32::from(dense),
        };
        let grid = [int(tiles(rows))?, int(groups)?, int(batch)?].map(i32::cast_unsigned);
        let launch = Launch { grid, block_threads: BLOCK_THREADS, shared_bytes: 0 };
        Ok(Self { resampling, launch })
    }

    /// Scratch for the extremes that each block finds.
    pub fn partials<'a>(&self, stream: &'a Stream) -> Result<SliceMut<'a, DeviceExtremes>> {
        stream.scratch(self.launch.grid.iter().map(|&blocks| blocks as usize).product())
    }
}

/// The factors and shifts that divide by `2·from` and by `2·to`, see `divide` in
/// `kernels/lib/resampling.cuh`. Both are at most `check::LONGEST_RESIZED_AXIS`.
#[expect(clippy::cast_possible_truncation, reason = "at most 2⁶² + 1")]
fn divisors(from: usize, to: usize) -> ([u64; 2], [i32; 2]) {
    // With a factor of 2ᵏ / d, rounded up, the quotient of n is exact if n·d ≤ 2ᵏ; n is below 2⁶².
    let shift = |divisor: u128| divisor.next_power_of_two().trailing_zeros().saturating_sub(2);
    let factor = |divisor: u128| (1_u128 << (64 + shift(divisor))).div_ceil(divisor) as u64;
    let divisors = [2 * from as u128, 2 * to as u128];
    (divisors.map(factor), divisors.map(|divisor| shift(divisor).cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_divide_exactly() {
        let extents = [1, 2, 3, 5, 7, 128, 181, 217, 1000, 65_535, 65_537, (1 << 30) - 1, 1 << 30];
        for from in extents {
            let ([factor, _], [shift, _]) = divisors(from, 1);
            let divisor = 2 * from as u64;
            for quotient in [0, 1, 2, 3, 1000, 1 << 20, ((1 << 62) - 1) / divisor] {
                for number in [quotient * divisor, quotient * divisor + divisor - 1] {
                    let product = u128::from(number) * u128::from(factor);
                    assert_eq!(product >> (64 + shift), u128::from(quotient), "{number} {divisor}");
                }
            }
        }
    }
}
