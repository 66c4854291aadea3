//! The guided product on a GPU.

use crate::device::{KernelBudget, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::MapElement;
use crate::error::Result;
use crate::ops::Interpolation;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::check_devices;
use crate::ops::resample::check::{check_launch, check_map, check_out, check_samples};
use crate::ops::resample::cuda::{DEFINES, Grids, SHARED_BYTES, Tiling, Wanted, nothing};

const OPERATION: &str = "guided_product";

/// `kernels/guided_product.cu`.
pub static PROGRAM: Program = Program {
    stem: "guided_product",
    source: include_str!("../../../kernels/guided_product.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::U8],
    defines: &DEFINES,
    kernels: &[
        KernelBudget {
            entry: "guided_product_extremes",
            registers: 64,
            shared_bytes: SHARED_BYTES,
        },
        KernelBudget { entry: "guided_product", registers: 64, shared_bytes: SHARED_BYTES },
    ],
};

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
/// If an extent of `grids` is 0 or above 2³⁰, or `batch` above 65535, a length does not agree with
/// them, memory is not on the stream's device, or the launch fails.
pub fn extremes(
    stream: &Stream,
    map: Slice<f32>,
    guided: Slice<f32>,
    grids: Grids,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    check_inputs(stream, map, guided, grids)?;
    check_samples(OPERATION, "extremes", Some(extremes.len()), grids.batch)?;
    check_devices(OPERATION, stream, &[("extremes", extremes.ordinal())])?;
    let tiling = Tiling::new(OPERATION, stream, grids, Interpolation::Linear, Wanted::All)?;
    let kernel = stream.gpu().kernel(&PROGRAM, Scalar::F32, "guided_product_extremes")?;
    let (partial, counters) = (tiling.partial(stream)?, stream.counters(grids.batch)?);
    // SAFETY: `guided_product_extremes(const float*, const float*, Extremes*, unsigned*, Extremes*,
    // Resampling)`. For each block along z, `map` has the voxels of the old grid and `guided` those
    // of the new; `extremes` has one, as have the counters, which the kernel puts back to 0;
    // `partial` has one for each block.
    unsafe {
        stream.launch(
            &kernel,
            tiling.launch,
            &[&map, &guided, &partial, &counters, &extremes, &tiling.resampling],
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
pub fn guided_product<O: MapElement>(
    stream: &Stream,
    map: Slice<f32>,
    guided: Slice<f32>,
    grids: Grids,
    extremes: Option<Slice<DeviceExtremes>>,
    out: SliceMut<O>,
) -> Result<()> {
    check_inputs(stream, map, guided, grids)?;
    let Grids { batch, to, .. } = grids;
    check_samples(OPERATION, "extremes", extremes.map(|extremes| extremes.len()), batch)?;
    check_out::<O>(OPERATION, out.len(), batch, to, extremes.is_some())?;
    let extremes = extremes.unwrap_or(nothing(map.ordinal()));
    check_devices(OPERATION, stream, &[("extremes", extremes.ordinal()), ("out", out.ordinal())])?;
    let tiling = Tiling::new(OPERATION, stream, grids, Interpolation::Linear, Wanted::All)?;
    let kernel = stream.gpu().kernel(&PROGRAM, O::SCALAR, "guided_product")?;
    // SAFETY: `guided_product(const float*, const float*, const Extremes*, O*, Resampling)`. For
    // each block along z, `map` has the voxels of the old grid, `guided` and `out` those of the
    // new, and `extremes`, unless it is null, one; a tile ends where the grid does.
    unsafe {
        stream.launch(&kernel, tiling.launch, &[&map, &guided, &extremes, &out, &tiling.resampling])
    }
}

fn check_inputs(stream: &Stream, map: Slice<f32>, guided: Slice<f32>, grids: Grids) -> Result<()> {
    check_launch(OPERATION, grids.batch, grids.from, grids.to)?;
    check_map(OPERATION, "map", map.len(), grids.batch, grids.from)?;
    check_map(OPERATION, "guided", guided.len(), grids.batch, grids.to)?;
    let memory = [("map", map.ordinal()), ("guided", guided.ordinal())];
    check_devices(OPERATION, stream, &memory)
}
