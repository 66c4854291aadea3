//! The projection on a GPU.

use crate::device::{KernelBudget, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::DeviceView;
use crate::ops::check::check_length;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::{check_devices, registers_for};
use crate::ops::voxel_sums::cuda::{
    BLOCK_THREADS, PACK_CHANNELS, Split, VALUE_CHANNELS, VOXEL_READS, VoxelSums,
};
use crate::shape::Shape;

/// Blocks on a multiprocessor.
const RESIDENT_BLOCKS: u32 = 4;

/// `kernels/project.cu`.
pub static PROGRAM: Program = Program {
    stem: "project",
    source: include_str!("../../../kernels/project.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[
        ("BLOCK_THREADS", BLOCK_THREADS),
        ("VOXEL_READS", VOXEL_READS),
        ("PACK_CHANNELS", PACK_CHANNELS),
        ("VALUE_CHANNELS", VALUE_CHANNELS),
        ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
        ("ROWS_RESIDENT_BLOCKS", RESIDENT_BLOCKS),
    ],
    kernels: &[kernel(Split::Rows), kernel(Split::Columns), kernel(Split::FewColumns)],
};

const fn kernel(split: Split) -> KernelBudget {
    let (entry, shared_bytes) = match split {
        Split::Rows => ("project_rows", 9472),
        Split::Columns => ("project_columns", 256),
        Split::FewColumns => ("project_few_columns", 256),
    };
    KernelBudget { entry, registers: registers_for(RESIDENT_BLOCKS, BLOCK_THREADS), shared_bytes }
}

/// [`project()`](super::project()) in device memory, and the extremes of each sample. Enqueued, not
/// waited for.
///
/// `map[b,n] = ReLU(sum_c w[b,c]·A[b,c,n])`. `weights` is `(B, C)`, `map` `(B, D, H, W)` and `extremes`
/// `(B)`: the range of the finite values of the map, and how many sums were not finite before ReLU. A
/// sum that is NaN stays NaN, one of `-∞` becomes 0.
///
/// A value lies within [`TOLERANCE`](super::TOLERANCE) of the reference: as on the CPU four channels
/// are summed at a time, and these sums one after the other or by parts.
///
/// # Errors
///
/// If an argument does not have as many values as the shape of `activation` says, memory is not on
/// the stream's device, or the launch fails.
pub fn project<T: Element>(
    stream: &Stream,
    weights: Slice<f32>,
    activation: &DeviceView<T>,
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    let Shape { batch, channels, .. } = activation.shape();
    let expected = (batch * channels, "B·C");
    check_length("project", "weights", weights.len(), expected, activation.shape())?;
    enqueue("project", stream, (Some(weights), true), ("activation", activation), map, extremes)
}

/// [`weighted_sum()`](super::weighted_sum()) in device memory, and the extremes of each sample, as
/// [`project()`] without ReLU. Enqueued, not waited for.
///
/// # Errors
///
/// As for [`project()`].
pub fn weighted_sum<T: Element>(
    stream: &Stream,
    weights: Slice<f32>,
    activation: &DeviceView<T>,
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    const NAME: &str = "weighted_sum";
    let Shape { batch, channels, .. } = activation.shape();
    let expected = (batch * channels, "B·C");
    check_length(NAME, "weights", weights.len(), expected, activation.shape())?;
    enqueue(NAME, stream, (Some(weights), false), ("activation", activation), map, extremes)
}

/// The mean of the channels, Guided Backpropagation's map, and its extremes, as [`project()`] with
/// weights of `1/C` and without ReLU. Enqueued, not waited for.
///
/// # Errors
///
/// As for [`project()`].
pub fn channel_mean<T: Element>(
    stream: &Stream,
    tensor: &DeviceView<T>,
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    enqueue("channel_mean", stream, (None, false), ("tensor", tensor), map, extremes)
}

/// The weighted sum, rectified or not; without weights the mean.
fn enqueue<T: Element>(
    operation: &str,
    stream: &Stream,
    (weights, rectified): (Option<Slice<f32>>, bool),
    (argument, tensor): (&str, &DeviceView<T>),
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    let (shape, layout, tensor) = (tensor.shape(), tensor.layout(), tensor.slice());
    check_devices(
        operation,
        stream,
        &[("weights", &weights), (argument, &tensor), ("map", &map), ("extremes", &extremes)],
    )?;
    let sums = VoxelSums::new::<T>(operation, stream, shape, layout, VOXEL_READS, map, extremes)?;
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, kernel(sums.split).entry)?;
    #[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
    let weight = (1.0 / shape.channels as f64) as f32;
    let rectify = i32::from(rectified);
    // SAFETY: `(const T* activation, const float* weights, float weight, int rectify, ...)`, and what
    // `sums` adds. The tensor is as long as its shape says, as every view; weights, unless they are
    // null, are B·C, map and extremes are B·D·H·W and B. No thread reads or writes behind them, and
    // what blocks hand over has the size that this shape takes.
    unsafe {
        let arguments = sums.arguments(&[&tensor, &weights, &weight, &rectify]);
        stream.launch(&kernel, sums.launch, &arguments)
    }
}
