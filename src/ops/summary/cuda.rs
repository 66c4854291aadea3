//! Summaries on a GPU.

use super::SampleSummary;
use crate::device::{KernelBudget, Launch, Plain, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::DeviceView;
use crate::ops::channel_weights::noise;
use crate::ops::check::{check_length, check_samples};
use crate::ops::extremes::DeviceExtremes;
use crate::ops::launch::{check_devices, registers_for};
use crate::shape::Shape;

/// One for each channel of most layers; a sample whose map is not 0 has no more work than that.
const BLOCK_THREADS: u32 = 256;
/// Blocks on a multiprocessor.
const RESIDENT_BLOCKS: u32 = 4;

/// `kernels/summary.cu`.
pub static PROGRAM: Program = Program {
    stem: "summary",
    source: include_str!("../../../kernels/summary.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[("BLOCK_THREADS", BLOCK_THREADS), ("RESIDENT_BLOCKS", RESIDENT_BLOCKS)],
    kernels: &[KERNEL],
};

const KERNEL: KernelBudget = KernelBudget {
    entry: "summary",
    registers: registers_for(RESIDENT_BLOCKS, BLOCK_THREADS),
    shared_bytes: 256,
};

// SAFETY: numbers of four bytes, one behind the other.
unsafe impl Plain for SampleSummary {}

/// What is true of each sample's map, in device memory: see [`SampleSummary`]. Enqueued, not waited for.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `gradient` | `(B, ...)` | f32, f16, bf16 | if there is one, of the layer: for `zero_gradient` |
/// | `weights` | `(B, C)`, and the same | f32 | if there are any, with their mean magnitudes if they can cancel |
/// | `layer`, `finished` | `(B)` | [`DeviceExtremes`] | of the map on the layer's grid, and of the finished one |
/// | `summaries` | `(B)` | [`SampleSummary`] | written |
///
/// `shape` is that of the layer; of maps without one, that of the map with one channel. `epsilon` is that of
/// the type of the gradient that the weights are made of ([`Element::EPSILON`]), by which noise is told.
///
/// # Errors
///
/// If a length does not agree with `shape`, memory is not on the stream's device, or the launch fails.
pub fn summary<T: Element>(
    stream: &Stream,
    shape: Shape,
    gradient: Option<&DeviceView<T>>,
    weights: Option<(Slice<f32>, Option<Slice<f32>>)>,
    epsilon: f32,
    (layer, finished): (Slice<DeviceExtremes>, Slice<DeviceExtremes>),
    summaries: SliceMut<SampleSummary>,
) -> Result<()> {
    const NAME: &str = "summary";
    let Shape { batch, channels, .. } = shape;
    let (weights, magnitudes) = weights.map_or((None, None), |(w, m)| (Some(w), m));
    for (argument, given) in [("weights", weights), ("magnitudes", magnitudes)] {
        if let Some(given) = given {
            check_length(NAME, argument, given.len(), (batch * channels, "B·C"), shape)?;
        }
    }
    let elements = gradient.map_or(0, |gradient| gradient.shape().elements() / batch) as u64;
    if let Some(other) = gradient.map(|gradient| gradient.shape().batch).filter(|&b| b != batch) {
        return Err(Error::input(NAME, format!("gradient: {other} samples of a batch of {batch}")));
    }
    for (argument, given) in
        [("layer", layer.len()), ("finished", finished.len()), ("summaries", summaries.len())]
    {
        check_samples(NAME, argument, given, batch)?;
    }
    let gradient = gradient.map(DeviceView::slice);
    check_devices(
        NAME,
        stream,
        &[
            ("gradient", &gradient),
            ("weights", &weights),
            ("magnitudes", &magnitudes),
            ("layer", &layer),
            ("finished", &finished),
            ("summaries", &summaries),
        ],
    )?;
    let Ok(blocks) = u32::try_from(batch) else {
        return Err(Error::input(NAME, format!("summaries: {batch} samples are too many")));
    };
    let channels = channels as u64;
    let noise = noise(epsilon, shape.voxels());
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, KERNEL.entry)?;
    let launch = Launch { grid: [blocks, 1, 1], block_threads: BLOCK_THREADS, shared_bytes: 0 };
    // SAFETY: `summary(const T* gradient, const float* weights, const float* magnitudes, const Extremes*
    // layer, const Extremes* finished, SampleSummary*, long long, long long, double)`. For each block, the
    // first three, unless they are null, have C·N, C and C values, and the others one.
    unsafe {
        stream.launch(
            &kernel,
            launch,
            &[
                &gradient,
                &weights,
                &magnitudes,
                &layer,
                &finished,
                &summaries,
                &channels,
                &elements,
                &noise,
            ],
        )
    }
}
