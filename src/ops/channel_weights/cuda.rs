//! Channel weights on a GPU.

use crate::device::{KernelBudget, Program, Scalar, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::DeviceView;
use crate::ops::channel_sums::cuda::{BLOCK_THREADS, ChannelSums, PACK_READS, Split, VALUE_READS};
use crate::ops::check::check_length;
use crate::ops::launch::{check_devices, registers_for};
use crate::shape::Shape;

/// Blocks on a multiprocessor.
const RESIDENT_BLOCKS: u32 = 4;

/// `kernels/channel_weights.cu`.
pub static PROGRAM: Program = Program {
    stem: "channel_weights",
    source: include_str!("../../../kernels/channel_weights.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[
        ("BLOCK_THREADS", BLOCK_THREADS),
        ("PACK_READS", PACK_READS),
        ("VALUE_READS", VALUE_READS),
        ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
    ],
    kernels: &[kernel(Split::Short), kernel(Split::Rows), kernel(Split::Columns)],
};

const fn kernel(split: Split) -> KernelBudget {
    let (entry, shared_bytes) = match split {
        Split::Short => ("channel_weights_short", 0),
        Split::Rows => ("channel_weights_rows", 256),
        Split::Columns => ("channel_weights_columns", 20_480),
    };
    KernelBudget { entry, registers: registers_for(RESIDENT_BLOCKS, BLOCK_THREADS), shared_bytes }
}

/// [`channel_weights()`](super::channel_weights()) in device memory. The same pass gives the mean
/// magnitudes, which tell whether the weights [cancel](super::cancel). Enqueued, not waited for.
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
        check_length(NAME, argument, given, (batch * channels, "B·C"), shape)?;
    }
    let sums = ChannelSums::new::<T>(NAME, stream, shape, gradient.layout(), 2)?;
    let gradient = gradient.slice();
    check_devices(
        NAME,
        stream,
        &[("gradient", &gradient), ("weights", &weights), ("magnitudes", &magnitudes)],
    )?;
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, kernel(sums.split).entry)?;
    // SAFETY: `(const T* gradient, float* weights, float* magnitudes, ...)`, and what `sums` adds.
    // The gradient is as long as its shape says, as every view, and the other two are B·C values; no
    // thread reads or writes behind them. Partial sums and counters are those of this shape.
    unsafe {
        let arguments = sums.arguments(&[&gradient, &weights, &magnitudes]);
        stream.launch(&kernel, sums.launch, &arguments)
    }
}
