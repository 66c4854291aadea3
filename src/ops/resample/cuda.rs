//! Resampling on a GPU.

use super::Interpolation;
use super::check::{MOST_BLOCKS, check_batch, check_launch, check_map, check_out, check_samples};
use crate::device::{Argument, KernelBudget, Launch, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::check_devices;

/// Eight of them fill a multiprocessor, with the registers and shared memory that the kernels take.
pub(in crate::ops) const BLOCK_THREADS: u32 = 256;
/// Of a tile, at most: a group of four for each thread; and room for rows that are shorter.
const TILE_COLUMNS: u32 = 1024;
const TILE_ROWS: u32 = 64;
/// Values that a run keeps: two for each column of the widest tile.
const TILE_SOURCE: u32 = 2 * TILE_COLUMNS;
/// Voxels of a tile where there are enough of them: four groups for each thread, so that the taps of
/// the tile pay.
const TILE_VOXELS: usize = 16 * BLOCK_THREADS as usize;
/// Loads of a thread that are under way at once.
const FOURS_PER_THREAD: u32 = 4;
/// Blocks that a multiprocessor gets before blocks make several planes each: two times what it
/// holds.
const BLOCKS_PER_MULTIPROCESSOR: usize = 16;
/// What `kernels/lib/resample.cuh` takes.
pub(in crate::ops) const DEFINES: [(&str, u32); 4] = [
    ("BLOCK_THREADS", BLOCK_THREADS),
    ("TILE_COLUMNS", TILE_COLUMNS),
    ("TILE_ROWS", TILE_ROWS),
    ("TILE_SOURCE", TILE_SOURCE),
];
/// Static shared memory of a block that makes tiles, at most.
pub(in crate::ops) const SHARED_BYTES: u32 =
    8 * TILE_COLUMNS + 8 * (TILE_ROWS + 1) + 4 * (TILE_SOURCE + 1) + 160;

/// `kernels/resample.cu`.
pub static PROGRAM: Program = Program {
    stem: "resample",
    source: include_str!("../../../kernels/resample.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::U8],
    defines: &[
        DEFINES[0],
        DEFINES[1],
        DEFINES[2],
        DEFINES[3],
        ("FOURS_PER_THREAD", FOURS_PER_THREAD),
    ],
    kernels: &[
        KernelBudget { entry: "resample_extremes", registers: 64, shared_bytes: SHARED_BYTES },
        KernelBudget { entry: "resample", registers: 64, shared_bytes: SHARED_BYTES },
        KernelBudget { entry: "rescale", registers: 64, shared_bytes: 0 },
    ],
};

/// From which grid to which: maps of `(B, D, H, W)` with `[D, H, W] = from` become `(B, D', H', W')`
/// with `[D', H', W'] = to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grids {
    /// `B`, at most 65535.
    pub batch: usize,
    /// The extents that there are.
    pub from: [usize; 3],
    /// The extents that are wanted.
    pub to: [usize; 3],
}

/// `struct Axis` of `kernels/lib/resample.cuh`.
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

/// `struct Resampling` of `kernels/lib/resample.cuh`.
#[repr(C)]
pub(in crate::ops) struct Resampling {
    axes: [Axis; 3],
    tile_rows: i32,
    tile_columns: i32,
    column_tiles: i32,
    run_rows: i32,
    dense: i32,
}

// SAFETY: the fields of the struct in the kernel, in its order.
unsafe impl Argument for Resampling {}

/// Which voxels of the new grid are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Wanted {
    All,
    /// Those among which the extremes are.
    Corners,
}

/// How the blocks of a grid share the work: `resampling` for the kernel.
pub(in crate::ops) struct Tiling {
    pub(in crate::ops) resampling: Resampling,
    pub(in crate::ops) launch: Launch,
}

impl Tiling {
    /// The grids have been checked.
    pub(in crate::ops) fn new(
        operation: &str,
        stream: &Stream,
        Grids { batch, from, to }: Grids,
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
        // Smaller tiles, rather than multiprocessors with nothing to do.
        while batch * planes * tiles(rows) < 2 * multiprocessors
            && rows * columns > 4 * BLOCK_THREADS as usize
        {
            rows = rows.div_ceil(2);
        }
        let dense = from[2] <= to[2];
        // Values that a row keeps, at most.
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

    /// Room for what each block finds.
    pub(in crate::ops) fn partial<'a>(
        &self,
        stream: &'a Stream,
    ) -> Result<SliceMut<'a, DeviceExtremes>> {
        stream.scratch(self.launch.grid.iter().map(|&blocks| blocks as usize).product())
    }
}

/// [`extremes()`](super::extremes()) in device memory. Enqueued, not waited for.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | |
/// | `source` | `(B)` | [`DeviceExtremes`] | of `map`; its `not_finite` is passed on |
/// | `extremes` | `(B)` | [`DeviceExtremes`] | written: the range of the resampled maps |
///
/// Without `source`, `not_finite` is above 0 where a voxel of the resampled map is not finite.
///
/// # Errors
///
/// If an extent of `grids` is 0 or above 2³⁰, or `batch` above 65535, a length does not agree with
/// them, memory is not on the stream's device, or the launch fails. Values that are not finite are
/// counted, and no error.
pub fn extremes(
    stream: &Stream,
    map: Slice<f32>,
    grids: Grids,
    interpolation: Interpolation,
    source: Option<Slice<DeviceExtremes>>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    const OPERATION: &str = "resample";
    check_launch(OPERATION, grids.batch, grids.from, grids.to)?;
    check_map(OPERATION, "map", map.len(), grids.batch, grids.from)?;
    check_samples(OPERATION, "source", source.map(|source| source.len()), grids.batch)?;
    check_samples(OPERATION, "extremes", Some(extremes.len()), grids.batch)?;
    let source = source.unwrap_or(nothing(map.ordinal()));
    check_devices(
        OPERATION,
        stream,
        &[("map", map.ordinal()), ("source", source.ordinal()), ("extremes", extremes.ordinal())],
    )?;
    let tiling = Tiling::new(OPERATION, stream, grids, interpolation, Wanted::Corners)?;
    let kernel = stream.gpu().kernel(&PROGRAM, Scalar::F32, "resample_extremes")?;
    let (partial, counters) = (tiling.partial(stream)?, stream.counters(grids.batch)?);
    // SAFETY: `resample_extremes(const float*, const Extremes*, Extremes*, unsigned*, Extremes*,
    // Resampling)`. `map` has the voxels of the old grid for each block along z, `source`, unless it
    // is null, and `extremes` have one for each, as have the counters, which the kernel puts back to
    // 0; `partial` has one for each block.
    unsafe {
        stream.launch(
            &kernel,
            tiling.launch,
            &[&map, &source, &partial, &counters, &extremes, &tiling.resampling],
        )
    }
}

/// [`resample_into()`](super::resample_into()) in device memory. Enqueued, not waited for.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | |
/// | `extremes` | `(B)` | [`DeviceExtremes`] | for maps in `[0, 1]`: what [`extremes()`] found |
/// | `out` | `(B, D', H', W')` | f32, f16 or u8 | written |
///
/// Where nothing of a sample is finite it becomes 0, and where it is not finite in places, these
/// become 0: look at `not_finite`.
///
/// # Errors
///
/// If an extent of `grids` is 0 or above 2³⁰, or `batch` above 65535, a length does not agree with
/// them, `out` is of u8 and there are no `extremes`, memory is not on the stream's device, or the
/// launch fails.
pub fn resample<O: MapElement>(
    stream: &Stream,
    map: Slice<f32>,
    grids: Grids,
    interpolation: Interpolation,
    extremes: Option<Slice<DeviceExtremes>>,
    out: SliceMut<O>,
) -> Result<()> {
    const OPERATION: &str = "resample";
    check_launch(OPERATION, grids.batch, grids.from, grids.to)?;
    let Grids { batch, from, to } = grids;
    check_map(OPERATION, "map", map.len(), batch, from)?;
    check_samples(OPERATION, "extremes", extremes.map(|extremes| extremes.len()), batch)?;
    check_out::<O>(OPERATION, out.len(), batch, to, extremes.is_some())?;
    if from == to {
        return rescale(OPERATION, stream, map, batch, extremes, &out);
    }
    let extremes = extremes.unwrap_or(nothing(map.ordinal()));
    check_devices(
        OPERATION,
        stream,
        &[("map", map.ordinal()), ("extremes", extremes.ordinal()), ("out", out.ordinal())],
    )?;
    let tiling = Tiling::new(OPERATION, stream, grids, interpolation, Wanted::All)?;
    let kernel = stream.gpu().kernel(&PROGRAM, O::SCALAR, "resample")?;
    // SAFETY: `resample(const float*, const Extremes*, O*, Resampling)`. For each block along z,
    // `map` has the voxels of the old grid, `out` those of the new, and `extremes`, unless it is
    // null, one; a tile ends where the grid does.
    unsafe { stream.launch(&kernel, tiling.launch, &[&map, &extremes, &out, &tiling.resampling]) }
}

/// Maps that stay on their grid, narrowed, and in `[0, 1]` if there are `extremes`. The lengths have
/// been checked; `out` may be the memory of `map`.
pub(in crate::ops) fn rescale<O: MapElement>(
    operation: &str,
    stream: &Stream,
    map: Slice<f32>,
    batch: usize,
    extremes: Option<Slice<DeviceExtremes>>,
    out: &SliceMut<O>,
) -> Result<()> {
    let extremes = extremes.unwrap_or(nothing(map.ordinal()));
    check_devices(
        operation,
        stream,
        &[("map", map.ordinal()), ("extremes", extremes.ordinal()), ("out", out.ordinal())],
    )?;
    check_batch(operation, batch)?;
    let voxels = map.len() / batch;
    // Three more, as the first group may begin in front of the sample.
    let stretch = (4 * FOURS_PER_THREAD * BLOCK_THREADS) as usize;
    let blocks = (voxels + 3).div_ceil(stretch);
    let (Ok(blocks), Ok(samples)) = (u32::try_from(blocks), u32::try_from(batch)) else {
        return Err(Error::input(
            operation,
            format!("map: {voxels} voxels are too many to launch"),
        ));
    };
    let kernel = stream.gpu().kernel(&PROGRAM, O::SCALAR, "rescale")?;
    let launch =
        Launch { grid: [blocks, 1, samples], block_threads: BLOCK_THREADS, shared_bytes: 0 };
    // SAFETY: `rescale(const float*, const Extremes*, O*, long long)`. For each block along z, `map`
    // and `out` have `voxels` values, of which a thread takes those whose place is below that, and
    // `extremes`, unless it is null, has one. Where `out` is `map`, a thread writes what it alone
    // has read.
    unsafe { stream.launch(&kernel, launch, &[&map, &extremes, out, &(voxels as u64)]) }
}

/// What kernels take as no extremes at all.
pub(in crate::ops) fn nothing<'a>(ordinal: usize) -> Slice<'a, DeviceExtremes> {
    // SAFETY: no memory at all, which the kernels do not read.
    unsafe { Slice::from_raw(ordinal, 0, 0) }
}

/// What divides by `2·from` and by `2·to`, see `divide` in `kernels/lib/resample.cuh`: factors, then
/// shifts. The extents are at most [`LONGEST_AXIS`](super::LONGEST_AXIS).
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
