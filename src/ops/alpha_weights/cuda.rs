//! Grad-CAM++'s weights on a GPU.

use super::{Denominator, check};
use crate::device::{Argument, KernelBudget, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::DeviceView;
use crate::ops::channel_sums::{BLOCK_THREADS, ChannelSums};
use crate::ops::launch::{check_devices, check_length};

/// `kernels/alpha_weights.cu`.
pub static PROGRAM: Program = Program {
    stem: "alpha_weights",
    source: include_str!("../../../kernels/alpha_weights.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[("BLOCK_THREADS", BLOCK_THREADS)],
    kernels: &[
        KernelBudget { entry: "alpha_weights_totals_short", registers: 64, shared_bytes: 0 },
        KernelBudget { entry: "alpha_weights_totals_rows", registers: 64, shared_bytes: 256 },
        KernelBudget { entry: "alpha_weights_totals_columns", registers: 64, shared_bytes: 20480 },
        KernelBudget { entry: "alpha_weights_paper_short", registers: 80, shared_bytes: 0 },
        KernelBudget { entry: "alpha_weights_paper_rows", registers: 80, shared_bytes: 256 },
        KernelBudget { entry: "alpha_weights_paper_columns", registers: 80, shared_bytes: 20480 },
        KernelBudget { entry: "alpha_weights_cubes_short", registers: 80, shared_bytes: 0 },
        KernelBudget { entry: "alpha_weights_cubes_rows", registers: 80, shared_bytes: 256 },
        KernelBudget { entry: "alpha_weights_cubes_columns", registers: 80, shared_bytes: 20480 },
        KernelBudget { entry: "alpha_weights_m3d_cam_short", registers: 80, shared_bytes: 0 },
        KernelBudget { entry: "alpha_weights_m3d_cam_rows", registers: 80, shared_bytes: 256 },
        KernelBudget { entry: "alpha_weights_m3d_cam_columns", registers: 80, shared_bytes: 20480 },
    ],
};

/// [`alpha_weights()`](super::alpha_weights()) in device memory. Enqueued, not waited for.
///
/// `score_weight` is `(B, D, H, W)`, or none for 1, and `weights` `(B, C)`. `Denominator::Paper` reads
/// `activation` and `gradient` once each, `Denominator::M3dCam` `gradient` twice.
///
/// A weight lies within [`bound()`](super::bound) of the reference: a thread adds up to 64 terms or
/// sums of a pack, of up to 8 terms, in f32, and with them 8 times as a tree of its block; f64 takes
/// over from there: at most `(64 + 8)·2⁻²⁴ = 4.3e-6`, and a few roundings within a term. Magnitudes of
/// `activation` above `f32::MAX / 2¹⁸ = 1e33` may make the weight of their channel not finite.
///
/// # Errors
///
/// If shape or layout of `gradient` is not that of `activation`, `score_weight` or `weights` does not
/// have as many values as the shape says, memory is not on the stream's device, or a launch fails.
pub fn alpha_weights<T: Element>(
    stream: &Stream,
    denominator: Denominator,
    activation: &DeviceView<T>,
    gradient: &DeviceView<T>,
    score_weight: Option<Slice<f32>>,
    weights: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "alpha_weights";
    let (shape, layout) = (activation.shape(), activation.layout());
    check(NAME, (shape, layout), (gradient.shape(), gradient.layout()))?;
    let rows = shape.batch * shape.channels;
    check_length(NAME, "weights", shape, (rows, "B·C"), weights.len())?;
    if let Some(score_weight) = score_weight {
        let expected = (shape.batch * shape.voxels(), "B·D·H·W");
        check_length(NAME, "score_weight", shape, expected, score_weight.len())?;
    }
    let (activation, gradient) = (activation.slice(), gradient.slice());
    // SAFETY: no memory at all; null says that there is no score.
    let no_score = unsafe { Slice::from_raw(gradient.ordinal(), 0, 0) };
    let score = score_weight.unwrap_or(no_score);
    let memory = [
        ("activation", activation.ordinal()),
        ("gradient", gradient.ordinal()),
        ("score_weight", score.ordinal()),
        ("weights", weights.ordinal()),
    ];
    check_devices(NAME, stream, &memory)?;
    let of_channel = match denominator {
        Denominator::Paper => stream.scratch::<f32>(rows)?,
        // A scale and a value.
        Denominator::M3dCam => stream.scratch::<f32>(2 * rows)?,
    };
    let enqueue = |part: &str, own: &[&dyn Argument]| -> Result<()> {
        let sums = ChannelSums::new::<T>(NAME, stream, shape, layout, 1)?;
        let entry = format!("{NAME}_{part}_{}", sums.suffix);
        let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, &entry)?;
        // SAFETY: `own` are the first arguments of the entry, see below, the others those of `sums`.
        // Tensors are as long as the shape says, as every view; the score, if any, is B·D·H·W, weights
        // and what is known of each channel B·C. No thread reads or writes behind them. Partial sums
        // and counters are those of this shape; the second launch begins when the first is done.
        unsafe { stream.launch(&kernel, sums.launch, &sums.arguments(own)) }
    };
    match denominator {
        Denominator::Paper => {
            // `(const T* activation, float* totals, ...)`
            enqueue("totals", &[&activation, &of_channel])?;
            // `(const T* gradient, const float* score, const float* totals, float* weights, ...)`
            enqueue("paper", &[&gradient, &score, &of_channel, &weights])
        }
        Denominator::M3dCam => {
            // `(const T* activation, const T* gradient, Scaled* scaled, ...)`
            enqueue("cubes", &[&activation, &gradient, &of_channel])?;
            // `(const T* gradient, const float* score, const Scaled* scaled, float* weights, ...)`
            enqueue("m3d_cam", &[&gradient, &score, &of_channel, &weights])
        }
    }
}
