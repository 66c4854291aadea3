//! HiResCAM and LayerCAM on a GPU.

use super::Elementwise;
use crate::device::{KernelBudget, Program, Scalar, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::check_devices;
use crate::ops::voxel_sums::{BLOCK_THREADS, VOXEL_READS, VoxelSums};
use crate::ops::{DeviceView, alpha_weights};

/// Loads of 16 bytes under way for each of the two tensors: as many as elsewhere for the one.
const READS: u32 = VOXEL_READS / 2;

/// `kernels/elementwise.cu`.
pub static PROGRAM: Program = Program {
    stem: "elementwise",
    source: include_str!("../../../kernels/elementwise.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[("BLOCK_THREADS", BLOCK_THREADS), ("VOXEL_READS", READS)],
    kernels: &[
        KernelBudget { entry: "elementwise_rows", registers: 80, shared_bytes: 9472 },
        KernelBudget { entry: "elementwise_columns", registers: 64, shared_bytes: 256 },
        KernelBudget { entry: "elementwise_few", registers: 64, shared_bytes: 256 },
    ],
};

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
    method: Elementwise,
    activation: &DeviceView<T>,
    gradient: &DeviceView<T>,
    map: SliceMut<f32>,
    extremes: SliceMut<DeviceExtremes>,
) -> Result<()> {
    const NAME: &str = "elementwise";
    let (shape, layout) = (activation.shape(), activation.layout());
    alpha_weights::check(NAME, (shape, layout), (gradient.shape(), gradient.layout()))?;
    let memory = [
        ("activation", activation.slice().ordinal()),
        ("gradient", gradient.slice().ordinal()),
        ("map", map.ordinal()),
        ("extremes", extremes.ordinal()),
    ];
    check_devices(NAME, stream, &memory)?;
    let sums = VoxelSums::new::<T>(NAME, stream, shape, layout, READS, map, extremes)?;
    let entry = format!("{NAME}_{}", sums.suffix);
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, &entry)?;
    let (activation, gradient) = (activation.slice(), gradient.slice());
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
