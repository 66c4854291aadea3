//! HiResCAM and LayerCAM on a GPU.

use super::Elementwise;
use crate::device::{KernelBudget, Program, Scalar, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::DeviceView;
use crate::ops::check::check_same_form;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::{check_devices, registers_for};
use crate::ops::voxel_sums::cuda::{
    BLOCK_THREADS, PACK_CHANNELS, Split, VALUE_CHANNELS, VOXEL_READS, VoxelSums,
};

/// Loads under way of each of the two tensors: together as many as [`VOXEL_READS`].
const READS: u32 = VOXEL_READS / 2;
/// Blocks on a multiprocessor.
const RESIDENT_BLOCKS: u32 = 4;
/// The same for rows. Three: a thread loads four channels of both tensors at a time, 128 bytes, which
/// takes up to 80 registers.
const ROWS_RESIDENT_BLOCKS: u32 = 3;

/// `kernels/elementwise.cu`.
pub static PROGRAM: Program = Program {
    stem: "elementwise",
    source: include_str!("../../../kernels/elementwise.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[
        ("BLOCK_THREADS", BLOCK_THREADS),
        ("VOXEL_READS", READS),
        ("PACK_CHANNELS", PACK_CHANNELS),
        ("VALUE_CHANNELS", VALUE_CHANNELS),
        ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
        ("ROWS_RESIDENT_BLOCKS", ROWS_RESIDENT_BLOCKS),
    ],
    kernels: &[kernel(Split::Rows), kernel(Split::Columns), kernel(Split::FewColumns)],
};

const fn kernel(split: Split) -> KernelBudget {
    let (entry, resident_blocks, shared_bytes) = match split {
        Split::Rows => ("elementwise_rows", ROWS_RESIDENT_BLOCKS, 9472),
        Split::Columns => ("elementwise_columns", RESIDENT_BLOCKS, 256),
        Split::FewColumns => ("elementwise_few_columns", RESIDENT_BLOCKS, 256),
    };
    KernelBudget { entry, registers: registers_for(resident_blocks, BLOCK_THREADS), shared_bytes }
}

/// [`elementwise()`](super::elementwise()) in device memory, and the extremes of each sample.
/// Enqueued, not waited for.
///
/// `map` is `(B, D, H, W)` and `extremes` `(B)`: the range of the finite values of the map, and how
/// many sums were not finite before ReLU. A sum that is NaN stays NaN, one of `-∞` becomes 0.
///
/// A value lies within [`TOLERANCE`](super::TOLERANCE) of the reference: as on the CPU four channels
/// are summed at a time, and these sums one after the other or by parts.
///
/// # Errors
///
/// If shape or layout of `gradient` is not that of `activation`, `map` or `extremes` does not have as
/// many values as the shape says, memory is not on the stream's device, or the launch fails.
pub fn elementwise<T: Element>(
    stream: &Stream,
    activation: &DeviceView<T>,
    gradient: &DeviceView<T>,
    method: Elementwise,
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    const NAME: &str = "elementwise";
    let (shape, layout) = (activation.shape(), activation.layout());
    check_same_form(NAME, (shape, layout), (gradient.shape(), gradient.layout()))?;
    let (activation, gradient) = (activation.slice(), gradient.slice());
    check_devices(
        NAME,
        stream,
        &[
            ("activation", &activation),
            ("gradient", &gradient),
            ("map", &map),
            ("extremes", &extremes),
        ],
    )?;
    let sums = VoxelSums::new::<T>(NAME, stream, shape, layout, READS, map, extremes)?;
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, kernel(sums.split).entry)?;
    let positive_gradients = i32::from(method == Elementwise::LayerCam);
    // SAFETY: `(const T* activation, const T* gradient, int positive_gradients, ...)`, and what `sums`
    // adds. Both tensors are as long as the shape says, as every view; map and extremes are B·D·H·W
    // and B. No thread reads or writes behind them, and what blocks hand over has the size that this
    // shape takes.
    unsafe {
        let arguments = sums.arguments(&[&activation, &gradient, &positive_gradients]);
        stream.launch(&kernel, sums.launch, &arguments)
    }
}
