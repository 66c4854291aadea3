//! Normalisation on a GPU.

use super::check_parts;
use crate::device::{KernelBudget, Launch, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::{check_devices, registers_for};
use crate::ops::resampling::cuda::check_batch;

const BLOCK_THREADS: u32 = 256;
/// Blocks on a multiprocessor.
const RESIDENT_BLOCKS: u32 = 4;
/// Groups of four values that a thread loads before it stores the first.
const FOURS_PER_THREAD: u32 = 4;

const KERNEL: KernelBudget = KernelBudget {
    entry: "rescale",
    registers: registers_for(RESIDENT_BLOCKS, BLOCK_THREADS),
    shared_bytes: 0,
};

/// `kernels/normalize.cu`.
pub static PROGRAM: Program = Program {
    stem: "normalize",
    source: include_str!("../../../kernels/normalize.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::U8],
    defines: &[
        ("BLOCK_THREADS", BLOCK_THREADS),
        ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
        ("FOURS_PER_THREAD", FOURS_PER_THREAD),
    ],
    kernels: &[KERNEL],
};

/// [`normalize()`](super::normalize()) in device memory, in place, with the range of each map found
/// before. Enqueued, not waited for.
///
/// `map` is `(B, N)` with one of `extremes` for each sample. Where nothing of a sample is finite it
/// becomes 0, and where it is not finite in places, these become 0: look at `not_finite`.
///
/// # Errors
///
/// If `map` cannot be parted into as many maps as there are `extremes`, these are more than 65535,
/// memory is not on the stream's device, or the launch fails.
pub fn normalize(
    stream: &Stream,
    map: SliceMut<f32>,
    extremes: Slice<DeviceExtremes>,
) -> Result<()> {
    check_parts(map.len(), extremes.len())?;
    rescale("normalize", stream, map.as_slice(), extremes.len(), Some(extremes), &map)
}

/// Writes maps that stay on their grid to `out`, rescaled to `[0, 1]` if there are `extremes`. The
/// caller has checked the lengths; `out` may be the memory of `map`.
pub(in crate::ops) fn rescale<O: MapElement>(
    operation: &str,
    stream: &Stream,
    map: Slice<f32>,
    batch: usize,
    extremes: Option<Slice<DeviceExtremes>>,
    out: &SliceMut<O>,
) -> Result<()> {
    check_devices(operation, stream, &[("map", &map), ("extremes", &extremes), ("out", out)])?;
    check_batch(operation, batch)?;
    let voxels = map.len() / batch;
    // Three more: the first group of four may begin before the sample.
    let stretch = (4 * FOURS_PER_THREAD * BLOCK_THREADS) as usize;
    let blocks = (voxels + 3).div_ceil(stretch);
    let (Ok(blocks), Ok(samples)) = (u32::try_from(blocks), u32::try_from(batch)) else {
        return Err(Error::input(
            operation,
            format!("map: {voxels} voxels are too many to launch"),
        ));
    };
    let kernel = stream.gpu().kernel(&PROGRAM, O::SCALAR, KERNEL.entry)?;
    let launch =
        Launch { grid: [blocks, 1, samples], block_threads: BLOCK_THREADS, shared_bytes: 0 };
    // SAFETY: `rescale(const float*, const Extremes*, O*, long long)`. For each block along z, `map`
    // and `out` have `voxels` values, of which a thread takes those whose place is below that, and
    // `extremes`, unless it is null, has one. Where `out` is `map`, a thread writes what it alone
    // has read.
    unsafe { stream.launch(&kernel, launch, &[&map, &extremes, out, &(voxels as u64)]) }
}
