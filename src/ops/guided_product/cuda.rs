//! The guided product on a GPU.

use crate::device::{KernelBudget, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::MapElement;
use crate::error::Result;
use crate::ops::check::check_samples;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::check_devices;
use crate::ops::resampling::check::{check_map, check_out};
use crate::ops::resampling::cuda::{
    DEFINES, KERNEL_REGISTERS, SHARED_BYTES, Tiling, Wanted, check_launch,
};
use crate::ops::{Interpolation, Resize};

const OPERATION: &str = "guided_product";

/// `kernels/guided_product.cu`.
pub static PROGRAM: Program = Program {
    stem: "guided_product",
    source: include_str!("../../../kernels/guided_product.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::U8],
    defines: &DEFINES,
    kernels: &[kernel(Entry::Extremes), kernel(Entry::Product)],
};

#[derive(Debug, Clone, Copy)]
enum Entry {
    Extremes,
    Product,
}

const fn kernel(entry: Entry) -> KernelBudget {
    let entry = match entry {
        Entry::Extremes => "guided_product_extremes",
        Entry::Product => "guided_product",
    };
    KernelBudget { entry, registers: KERNEL_REGISTERS, shared_bytes: SHARED_BYTES }
}

/// [`extremes()`](super::extremes()) in device memory. Enqueued, not waited for.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | |
/// | `guided` | `(B, D', H', W')` | f32 | |
/// | `extremes` | `(B)` | [`DeviceExtremes`] | written: the range of the products |
///
/// `not_finite` counts the products that are not finite.
///
/// # Errors
///
/// If an extent of `resize` is 0 or above 2³⁰, or its batch above 65535, a length does not agree with
/// it, memory is not on the stream's device, or the launch fails.
pub fn extremes(
    stream: &Stream,
    map: Slice<f32>,
    guided: Slice<f32>,
    resize: Resize,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    check_inputs(stream, map, guided, resize)?;
    check_samples(OPERATION, "extremes", extremes.len(), resize.batch)?;
    check_devices(OPERATION, stream, &[("extremes", &extremes)])?;
    let tiling = Tiling::new(OPERATION, stream, resize, Interpolation::Linear, Wanted::All)?;
    let kernel = stream.gpu().kernel(&PROGRAM, Scalar::F32, kernel(Entry::Extremes).entry)?;
    let (partials, counters) = (tiling.partials(stream)?, stream.counters(resize.batch)?);
    // SAFETY: `guided_product_extremes(const float*, const float*, Extremes*, unsigned*, Extremes*,
    // Resampling)`. For each block along z, `map` has the voxels of the old grid and `guided` those
    // of the new; `extremes` has one, as have the counters, which the kernel puts back to 0;
    // `partials` has one for each block.
    unsafe {
        stream.launch(
            &kernel,
            tiling.launch,
            &[&map, &guided, &partials, &counters, &extremes, &tiling.resampling],
        )
    }
}

/// [`guided_product_into()`](super::guided_product_into()) in device memory. Enqueued, not waited
/// for.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `map` | `(B, D, H, W)` | f32 | |
/// | `guided` | `(B, D', H', W')` | f32 | |
/// | `extremes` | `(B)` | [`DeviceExtremes`] | for products in `[0, 1]`: what [`extremes()`] found |
/// | `out` | `(B, D', H', W')` | f32, f16 or u8 | written |
///
/// # Errors
///
/// As for [`extremes()`], and if `out` is of u8 and there are no `extremes`.
pub fn guided_product_into<O: MapElement>(
    stream: &Stream,
    map: Slice<f32>,
    guided: Slice<f32>,
    resize: Resize,
    extremes: Option<Slice<DeviceExtremes>>,
    out: SliceMut<O>,
) -> Result<()> {
    check_inputs(stream, map, guided, resize)?;
    if let Some(extremes) = extremes {
        check_samples(OPERATION, "extremes", extremes.len(), resize.batch)?;
    }
    check_out::<O>(OPERATION, out.len(), resize, extremes.is_some())?;
    check_devices(OPERATION, stream, &[("extremes", &extremes), ("out", &out)])?;
    let tiling = Tiling::new(OPERATION, stream, resize, Interpolation::Linear, Wanted::All)?;
    let kernel = stream.gpu().kernel(&PROGRAM, O::SCALAR, kernel(Entry::Product).entry)?;
    // SAFETY: `guided_product(const float*, const float*, const Extremes*, O*, Resampling)`. For
    // each block along z, `map` has the voxels of the old grid, `guided` and `out` those of the
    // new, and `extremes`, unless it is null, one; a tile ends where the grid does.
    unsafe {
        stream.launch(&kernel, tiling.launch, &[&map, &guided, &extremes, &out, &tiling.resampling])
    }
}

fn check_inputs(
    stream: &Stream,
    map: Slice<f32>,
    guided: Slice<f32>,
    resize: Resize,
) -> Result<()> {
    check_launch(OPERATION, resize)?;
    check_map(OPERATION, "map", map.len(), resize.batch, resize.from)?;
    check_map(OPERATION, "guided", guided.len(), resize.batch, resize.to)?;
    check_devices(OPERATION, stream, &[("map", &map), ("guided", &guided)])
}
