//! The projection on a GPU.

use crate::device::{KernelBudget, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::DeviceView;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::{check_devices, check_length};
use crate::ops::voxel_sums::{BLOCK_THREADS, VOXEL_READS, VoxelSums};
use crate::shape::Shape;

/// `kernels/project.cu`.
pub static PROGRAM: Program = Program {
    stem: "project",
    source: include_str!("../../../kernels/project.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[("BLOCK_THREADS", BLOCK_THREADS), ("VOXEL_READS", VOXEL_READS)],
    kernels: &[
        KernelBudget { entry: "project_rows", registers: 64, shared_bytes: 9472 },
        KernelBudget { entry: "project_columns", registers: 64, shared_bytes: 256 },
        KernelBudget { entry: "project_few", registers: 64, shared_bytes: 256 },
    ],
};

/// [`project()`](super::project()) in device memory, and the extremes of each sample. Enqueued, not
/// waited for.
///
/// `map[b,n] = sum_c w[b,c]·A[b,c,n]`, with ReLU if `rectify`. `weights` is `(B, C)`, `map` `(B, D, H, W)`
/// and `extremes` `(B)`: the range of the finite values of the map, and how many sums were not finite
/// before ReLU. A sum that is NaN stays NaN, one of `-∞` becomes 0 under ReLU.
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
    rectify: bool,
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    let Shape { batch, channels, .. } = activation.shape();
    let expected = (batch * channels, "B·C");
    check_length("project", "weights", activation.shape(), expected, weights.len())?;
    check_devices("project", stream, &[("weights", weights.ordinal())])?;
    enqueue("project", stream, Some(weights), ("activation", activation), rectify, map, extremes)
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
    enqueue("channel_mean", stream, None, ("tensor", tensor), false, map, extremes)
}

fn enqueue<T: Element>(
    operation: &str,
    stream: &Stream,
    weights: Option<Slice<f32>>,
    (argument, tensor): (&str, &DeviceView<T>),
    rectify: bool,
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    let shape = tensor.shape();
    let memory = [
        (argument, tensor.slice().ordinal()),
        ("map", map.ordinal()),
        ("extremes", extremes.ordinal()),
    ];
    check_devices(operation, stream, &memory)?;
    let sums =
        VoxelSums::new::<T>(operation, stream, shape, tensor.layout(), VOXEL_READS, map, extremes)?;
    let entry = format!("project_{}", sums.suffix);
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, &entry)?;
    let tensor = tensor.slice();
    // SAFETY: no memory at all; null says that there are no weights.
    let weights = weights.unwrap_or(unsafe { Slice::from_raw(tensor.ordinal(), 0, 0) });
    #[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
    let weight = (1.0 / shape.channels as f64) as f32;
    let rectify = i32::from(rectify);
    // SAFETY: `(const T* activation, const float* weights, float weight, int rectify, ...)`, and what
    // `sums` adds. The tensor is as long as its shape says, as every view; weights, if any, are B·C,
    // map and extremes are B·D·H·W and B. No thread reads or writes behind them, and what blocks hand
    // over has the size that this shape takes.
    unsafe {
        let arguments = sums.arguments(&[&tensor, &weights, &weight, &rectify]);
        stream.launch(&kernel, sums.launch, &arguments)
    }
}
