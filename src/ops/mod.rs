//! Grad-CAM's numerics on plain slices, without libtorch.
//!
//! | op | computes |
//! |---|---|
//! | [`channel_weights()`] | `w[b,c] = mean_n G[b,c,n]` |
//! | [`alpha_weights()`] | Grad-CAM++'s weights |
//! | [`project()`] | `L[b,n] = ReLU(sum_c w[b,c]·A[b,c,n])` |
//! | [`weighted_sum()`] | the same without ReLU, Captum's map |
//! | [`elementwise()`] | HiResCAM's and LayerCAM's `ReLU(sum_c G·A)`, the latter of `ReLU(G)` |
//! | [`channel_mean()`] | `1/C · sum_c A[b,c,n]`, Guided Backpropagation's map |
//! | [`resample()`] | the map on another grid, linear or nearest |
//! | [`normalize()`] | the map of each sample to `[0, 1]` |
//! | [`guided_product()`] | Guided Grad-CAM: the map, resampled, times a guided map, normalised |
//! | [`cam()`], [`guided_cam()`] | the chain of a [`Method`], from the raw gradient to the finished map |
//! | [`guided_activation()`] | `g_in = g_out · (g_out > 0) · (x > 0)` |
//! | [`summary`] | what a chain tells of its maps: ranges, what is not finite, whether they are noise |
//! | [`evaluation_sums()`] | Otsu's threshold, and what lies above it inside and outside a mask |
//!
//! Tensors come in as [`View`]s in either [`Layout`](crate::Layout) and are never copied. The
//! functions here are fast and use the threads of the current rayon pool; the module of each op
//! has a `reference` beside it: the plain f64 loop that says what is right, and the `TOLERANCE`
//! between the two.
//!
//! **Deterministic**: an op gives the same bits on each run, for any number of threads, and a
//! batch gives the bits that its samples give one by one.

pub mod alpha_weights;
mod channel_sums;
pub mod channel_weights;
mod check;
#[cfg(feature = "cuda")]
mod device_view;
pub mod elementwise;
pub mod evaluation_sums;
pub mod extremes;
pub mod fused;
pub mod guided_activation;
pub mod guided_product;
mod lanes;
#[cfg(feature = "cuda")]
mod launch;
pub mod normalize;
pub mod project;
mod relu;
pub mod resample;
mod resampling;
mod rescale;
pub mod summary;
mod tasks;
mod view;
mod voxel_sums;

pub use alpha_weights::{Denominator, alpha_weights};
pub use channel_weights::channel_weights;
#[cfg(feature = "cuda")]
pub use device_view::DeviceView;
pub use elementwise::{Elementwise, elementwise};
pub use evaluation_sums::{EvaluationSums, Sums, evaluation_sums};
pub use extremes::Range;
pub use fused::{Maps, Method, Recipe, cam, guided_cam};
pub use guided_activation::guided_activation;
pub use guided_product::guided_product;
pub use normalize::normalize;
pub use project::{channel_mean, project, weighted_sum};
pub use resample::resample;
pub use resampling::{Interpolation, Resize};
pub use view::View;

/// All programs of `kernels/`, for the tests that compile and run each of them.
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub fn programs() -> &'static [&'static crate::device::Program] {
    static PROGRAMS: &[&crate::device::Program] = &[
        &alpha_weights::cuda::PROGRAM,
        &channel_weights::cuda::PROGRAM,
        &elementwise::cuda::PROGRAM,
        &evaluation_sums::cuda::PROGRAM,
        &guided_activation::cuda::PROGRAM,
        &guided_product::cuda::PROGRAM,
        &normalize::cuda::PROGRAM,
        &project::cuda::PROGRAM,
        &resample::cuda::PROGRAM,
        &summary::cuda::PROGRAM,
    ];
    PROGRAMS
}
