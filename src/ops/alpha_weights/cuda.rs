//! Grad-CAM++'s weights on a GPU.

use super::Denominator;
use crate::device::{Argument, KernelBudget, Program, Scalar, SliceMut, Stream};
use crate::element::Element;
use crate::error::Result;
use crate::ops::DeviceView;
use crate::ops::channel_sums::cuda::{BLOCK_THREADS, ChannelSums, PACK_READS, Split, VALUE_READS};
use crate::ops::check::{check_length, check_same_form};
use crate::ops::launch::{check_devices, registers_for};

/// Blocks on a multiprocessor. Three: the values of 8 channels, or sums in double, take 16 registers
/// more than a plain sum, and with 4 blocks these would spill.
const RESIDENT_BLOCKS: u32 = 3;
/// Blocks of `Sum::Totals`, a plain sum, on a multiprocessor.
const TOTALS_RESIDENT_BLOCKS: u32 = 4;

/// `kernels/alpha_weights.cu`.
pub static PROGRAM: Program = Program {
    stem: "alpha_weights",
    source: include_str!("../../../kernels/alpha_weights.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[
        ("BLOCK_THREADS", BLOCK_THREADS),
        ("PACK_READS", PACK_READS),
        ("VALUE_READS", VALUE_READS),
        ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
        ("TOTALS_RESIDENT_BLOCKS", TOTALS_RESIDENT_BLOCKS),
    ],
    kernels: &[
        kernel(Sum::Totals, Split::Short),
        kernel(Sum::Totals, Split::Rows),
        kernel(Sum::Totals, Split::Columns),
        kernel(Sum::Paper, Split::Short),
        kernel(Sum::Paper, Split::Rows),
        kernel(Sum::Paper, Split::Columns),
        kernel(Sum::Cubes, Split::Short),
        kernel(Sum::Cubes, Split::Rows),
        kernel(Sum::Cubes, Split::Columns),
        kernel(Sum::M3dCam, Split::Short),
        kernel(Sum::M3dCam, Split::Rows),
        kernel(Sum::M3dCam, Split::Columns),
    ],
};

/// What a launch sums over the voxels of each channel.
#[derive(Debug, Clone, Copy)]
enum Sum {
    /// `A`, for the paper's denominator.
    Totals,
    /// The weights, with the paper's denominator and its epsilon.
    Paper,
    /// `A·G³`, for M3d-CAM's denominator; the epsilon is added to the sum.
    Cubes,
    /// The weights, with M3d-CAM's denominator.
    M3dCam,
}

const fn kernel(sum: Sum, split: Split) -> KernelBudget {
    let entry = match (sum, split) {
        (Sum::Totals, Split::Short) => "alpha_weights_totals_short",
        (Sum::Totals, Split::Rows) => "alpha_weights_totals_rows",
        (Sum::Totals, Split::Columns) => "alpha_weights_totals_columns",
        (Sum::Paper, Split::Short) => "alpha_weights_paper_short",
        (Sum::Paper, Split::Rows) => "alpha_weights_paper_rows",
        (Sum::Paper, Split::Columns) => "alpha_weights_paper_columns",
        (Sum::Cubes, Split::Short) => "alpha_weights_cubes_short",
        (Sum::Cubes, Split::Rows) => "alpha_weights_cubes_rows",
        (Sum::Cubes, Split::Columns) => "alpha_weights_cubes_columns",
        (Sum::M3dCam, Split::Short) => "alpha_weights_m3d_cam_short",
        (Sum::M3dCam, Split::Rows) => "alpha_weights_m3d_cam_rows",
        (Sum::M3dCam, Split::Columns) => "alpha_weights_m3d_cam_columns",
    };
    let resident_blocks = match sum {
        Sum::Totals => TOTALS_RESIDENT_BLOCKS,
        Sum::Paper | Sum::Cubes | Sum::M3dCam => RESIDENT_BLOCKS,
    };
    let shared_bytes = match split {
        Split::Short => 0,
        Split::Rows => 256,
        Split::Columns => 20_480,
    };
    KernelBudget { entry, registers: registers_for(resident_blocks, BLOCK_THREADS), shared_bytes }
}

/// [`alpha_weights()`](super::alpha_weights()) in device memory. Enqueued, not waited for.
///
/// `weights` is `(B, C)`. The paper's two denominators read `activation` and `gradient` once each,
/// M3d-CAM's two `gradient` twice.
///
/// A weight lies within [`bound()`](super::bound) of the reference: a thread adds up to 64 terms or
/// sums of a pack, of up to 8 terms, in f32, and with them 8 times as a tree of its block; f64 takes
/// over from there: at most `(64 + 8)·2⁻²⁴ = 4.3e-6`, and a few roundings within a term. Magnitudes of
/// `activation` above `f32::MAX / 2¹⁸ = 1e33` may make the weight of their channel not finite.
///
/// # Errors
///
/// If shape or layout of `gradient` is not that of `activation`, `weights` does not have `B·C` values,
/// memory is not on the stream's device, or a launch fails.
pub fn alpha_weights<T: Element>(
    stream: &Stream,
    activation: &DeviceView<T>,
    gradient: &DeviceView<T>,
    denominator: Denominator,
    weights: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "alpha_weights";
    let (shape, layout) = (activation.shape(), activation.layout());
    check_same_form(NAME, (shape, layout), (gradient.shape(), gradient.layout()))?;
    let rows = shape.batch * shape.channels;
    check_length(NAME, "weights", weights.len(), (rows, "B·C"), shape)?;
    let (activation, gradient) = (activation.slice(), gradient.slice());
    check_devices(
        NAME,
        stream,
        &[("activation", &activation), ("gradient", &gradient), ("weights", &weights)],
    )?;
    // What the second launch needs of each channel.
    let of_channel = match denominator {
        Denominator::Paper | Denominator::PaperEpsilon => stream.scratch::<f32>(rows)?,
        // `struct Scaled`: two floats.
        Denominator::M3dCam | Denominator::M3dCamEpsilon => stream.scratch::<f32>(2 * rows)?,
    };
    let enqueue = |sum: Sum, own: &[&dyn Argument]| -> Result<()> {
        let sums = ChannelSums::new::<T>(NAME, stream, shape, layout, 1)?;
        let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, kernel(sum, sums.split).entry)?;
        // SAFETY: `own` are the first arguments of the entry, see below, the others those of `sums`.
        // Tensors are as long as the shape says, as every view; weights and what is known of each
        // channel are B·C. No thread reads or writes behind them. Partial sums and counters are those
        // of this shape; the second launch begins when the first is done.
        unsafe { stream.launch(&kernel, sums.launch, &sums.arguments(own)) }
    };
    let epsilon = denominator.epsilon();
    match denominator {
        Denominator::Paper | Denominator::PaperEpsilon => {
            // `(const T* activation, float* totals, ...)`
            enqueue(Sum::Totals, &[&activation, &of_channel])?;
            #[expect(clippy::cast_possible_truncation, reason = "to the nearest, as on the CPU")]
            let half_epsilon = (epsilon / 2.0) as f32;
            // `(const T* gradient, const float* totals, float* weights, float half_epsilon, ...)`
            enqueue(Sum::Paper, &[&gradient, &of_channel, &weights, &half_epsilon])
        }
        Denominator::M3dCam | Denominator::M3dCamEpsilon => {
            // `(const T* activation, const T* gradient, Scaled* scaled, double epsilon, ...)`
            enqueue(Sum::Cubes, &[&activation, &gradient, &of_channel, &epsilon])?;
            // `(const T* gradient, const Scaled* scaled, float* weights, ...)`
            enqueue(Sum::M3dCam, &[&gradient, &of_channel, &weights])
        }
    }
}
