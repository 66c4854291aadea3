//! Channel weights on a GPU.

use crate::device::{KernelBudget, Program, Scalar, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::DeviceView;
use crate::ops::channel_sums::{BLOCK_THREADS, ChannelSums};
use crate::ops::launch::{check_devices, check_length};
use crate::shape::Shape;

/// `kernels/channel_weights.cu`.
pub static PROGRAM: Program = Program {
    stem: "channel_weights",
    source: include_str!("../../../kernels/channel_weights.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[("BLOCK_THREADS", BLOCK_THREADS)],
    kernels: &[
        KernelBudget { entry: "channel_weights_short", registers: 64, shared_bytes: 0 },
        KernelBudget { entry: "channel_weights_rows", registers: 64, shared_bytes: 256 },
        KernelBudget { entry: "channel_weights_columns", registers: 64, shared_bytes: 20480 },
    ],
};

/// [`channel_weights()`](super::channel_weights()) in device memory, and the mean magnitudes that
/// tell whether they [cancel](super::cancel) from the same pass. Enqueued, not waited for.
///
/// `weights[b,c] = 1/N · sum_n G[b,c,n]`, `magnitudes[b,c] = 1/N · sum_n |G[b,c,n]|`, both `(B, C)`.
///
/// A weight lies within [`TOLERANCE`](super::TOLERANCE) of the reference: a thread adds up to 64
/// values or sums of a pack, of up to 8 values, in f32, and with them 8 times as a tree of its block;
/// f64 takes over from there: at most `(64 + 8)·2⁻²⁴ = 4.3e-6`. Magnitudes above
/// `f32::MAX / 2¹⁸ = 1e33` may make the weight of their channel not finite.
///
/// # Errors
///
/// If `weights` or `magnitudes` does not have `B·C` values, memory is not on the stream's device, or
/// the launch fails.
pub fn channel_weights<T: Element>(
    stream: &Stream,
    gradient: &DeviceView<T>,
    weights: SliceMut<f32>,
    magnitudes: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "channel_weights";
    let shape = gradient.shape();
    let Shape { batch, channels, .. } = shape;
    for (argument, given) in [("weights", weights.len()), ("magnitudes", magnitudes.len())] {
        check_length(NAME, argument, shape, (batch * channels, "B·C"), given)?;
    }
    let memory = [
        ("gradient", gradient.slice().ordinal()),
        ("weights", weights.ordinal()),
        ("magnitudes", magnitudes.ordinal()),
    ];
    check_devices(NAME, stream, &memory)?;
    let sums = ChannelSums::new::<T>(NAME, stream, shape, gradient.layout(), 2)?;
    let entry = format!("{NAME}_{}", sums.suffix);
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, &entry)?;
    let gradient = gradient.slice();
    // SAFETY: `(const T* gradient, float* weights, float* magnitudes, ...)`, and what `sums` adds.
    // The gradient is as long as its shape says, as every view, and the other two are B·C values; no
    // thread reads or writes behind them. Partial sums and counters are those of this shape.
    unsafe {
        let arguments = sums.arguments(&[&gradient, &weights, &magnitudes]);
        stream.launch(&kernel, sums.launch, &arguments)
    }
}
