//! Resampling on a GPU.

use crate::device::{KernelBudget, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::MapElement;
use crate::error::Result;
use crate::ops::check::check_samples;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::check_devices;
use crate::ops::normalize::cuda::rescale;
use crate::ops::resampling::check::{check_map, check_out};
use crate::ops::resampling::cuda::{
    DEFINES, KERNEL_REGISTERS, SHARED_BYTES, Tiling, Wanted, check_launch,
};
use crate::ops::{Interpolation, Resize};

const OPERATION: &str = "resample";

/// `kernels/resample.cu`.
pub static PROGRAM: Program = Program {
    stem: "resample",
    source: include_str!("../../../kernels/resample.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::U8],
    defines: &DEFINES,
    kernels: &[kernel(Entry::Extremes), kernel(Entry::Resample)],
};

#[derive(Debug, Clone, Copy)]
enum Entry {
    Extremes,
    Resample,
}

const fn kernel(entry: Entry) -> KernelBudget {
    let entry = match entry {
        Entry::Extremes => "resample_extremes",
        Entry::Resample => "resample",
    };
    KernelBudget { entry, registers: KERNEL_REGISTERS, shared_bytes: SHARED_BYTES }
}

/// [`extremes()`](super::extremes()) in device memory. Enqueued, not waited for.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | |
/// | `extremes` | `(B)` | [`DeviceExtremes`] | written: the range of the resampled maps |
///
/// `not_finite` is above 0 where a voxel of the resampled map is not finite.
///
/// # Errors
///
/// If an extent of `resize` is 0 or above 2³⁰, or its batch above 65535, a length does not agree with
/// it, memory is not on the stream's device, or the launch fails. Values that are not finite are
/// counted, and no error.
pub fn extremes(
    stream: &Stream,
    map: Slice<f32>,
    resize: Resize,
    interpolation: Interpolation,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    check_launch(OPERATION, resize)?;
    check_map(OPERATION, "map", map.len(), resize.batch, resize.from)?;
    check_samples(OPERATION, "extremes", extremes.len(), resize.batch)?;
    check_devices(OPERATION, stream, &[("map", &map), ("extremes", &extremes)])?;
    let tiling = Tiling::new(OPERATION, stream, resize, interpolation, Wanted::Corners)?;
    let kernel = stream.gpu().kernel(&PROGRAM, Scalar::F32, kernel(Entry::Extremes).entry)?;
    let (partials, counters) = (tiling.partials(stream)?, stream.counters(resize.batch)?);
    // SAFETY: `resample_extremes(const float*, Extremes*, unsigned*, Extremes*, Resampling)`. `map` has
    // the voxels of the old grid for each block along z, `extremes` has one for each, as have the
    // counters, which the kernel puts back to 0; `partials` has one for each block.
    unsafe {
        stream.launch(
            &kernel,
            tiling.launch,
            &[&map, &partials, &counters, &extremes, &tiling.resampling],
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
/// If an extent of `resize` is 0 or above 2³⁰, or its batch above 65535, a length does not agree with
/// it, `out` is of u8 and there are no `extremes`, memory is not on the stream's device, or the launch
/// fails.
pub fn resample_into<O: MapElement>(
    stream: &Stream,
    map: Slice<f32>,
    resize: Resize,
    interpolation: Interpolation,
    extremes: Option<Slice<DeviceExtremes>>,
    out: SliceMut<O>,
) -> Result<()> {
    check_launch(OPERATION, resize)?;
    let Resize { batch, from, to } = resize;
    check_map(OPERATION, "map", map.len(), batch, from)?;
    if let Some(extremes) = extremes {
        check_samples(OPERATION, "extremes", extremes.len(), batch)?;
    }
    check_out::<O>(OPERATION, out.len(), resize, extremes.is_some())?;
    if from == to {
        return rescale(OPERATION, stream, map, batch, extremes, &out);
    }
    check_devices(OPERATION, stream, &[("map", &map), ("extremes", &extremes), ("out", &out)])?;
    let tiling = Tiling::new(OPERATION, stream, resize, interpolation, Wanted::All)?;
    let kernel = stream.gpu().kernel(&PROGRAM, O::SCALAR, kernel(Entry::Resample).entry)?;
    // SAFETY: `resample(const float*, const Extremes*, O*, Resampling)`. For each block along z,
    // `map` has the voxels of the old grid, `out` those of the new, and `extremes`, unless it is
    // null, one; a tile ends where the grid does.
    unsafe { stream.launch(&kernel, tiling.launch, &[&map, &extremes, &out, &tiling.resampling]) }
}
