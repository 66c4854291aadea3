//! Grad-CAM's channel weights: the spatial mean of each channel's gradient.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::reference;

use crate::element::Element;
use crate::error::Result;
use crate::ops::View;
use crate::ops::check::check_length;
use crate::shape::Shape;

/// How far a weight may lie from its [`reference()`], relative to `mean_n |G[b,c,n]|`.
///
/// The same for `f32`, `f16` and `bf16`, which are widened exactly before the first sum. At most
/// 64 values and a tree of 4 additions go into one f32 sum, f64 takes over from there:
/// `(64 + 4)·2⁻²⁴ = 4.1e-6`.
pub const TOLERANCE: f64 = 5e-6;

/// Grad-CAM's channel weights: the spatial mean of each channel's gradient.
///
/// `w[b,c] = 1/N · sum_n G[b,c,n]` with `N = D·H·W`.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `gradient` | `(B, C, D, H, W)`, either layout | f32, f16, bf16 | of the score, at the layer |
/// | returns | `(B, C)` | f32 | summed in f32 by blocks of 1024, across them in f64 |
///
/// A value that is not finite makes the weight of its channel not finite, and so do magnitudes
/// above `f32::MAX / 1024 = 3e35`.
///
/// # Errors
///
/// None at present; what a [`View`] holds can always be averaged.
///
/// # Example
///
/// ```
/// use medcam::ops::{View, channel_weights};
/// use medcam::{Layout, Shape};
///
/// let gradient = [1.0_f32, 2.0, 3.0, /* channel 1 */ -1.0, 0.0, 4.0];
/// let view = View::new(&gradient, Shape::new(1, 2, [1, 1, 3])?, Layout::Contiguous)?;
/// assert_eq!(channel_weights(&view)?, [2.0, 1.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn channel_weights<T: Element>(gradient: &View<T>) -> Result<Vec<f32>> {
    Ok(cpu::channel_weights(gradient))
}

/// The weights of a sample are rounding noise if the greatest of them, over the mean magnitude of
/// its channel's gradient, is below this. Measured over 14 networks: up to 2e-5 where weights cancel
/// (above 1e-4 in one layer, which the analysis of the graph finds), above 7e-4 elsewhere.
const NOISE: f64 = 1e-4;

/// For each sample, whether its weights are nothing but rounding noise: whether the greatest of
/// them, of channel `c`, is below `max(1e-4, 4·eps/sqrt(N)) · mean_n |G[b,c,n]|`.
///
/// In front of an instance norm they are, as it takes the mean out of every channel, and so they are
/// in front of 1x1 convolutions, sums and concatenations that lead to one. A map made with such
/// weights means nothing. A gradient of zeros is not noise.
///
/// `weights`: `(B, C)`, those of `gradient`. The mean magnitude is taken over at most 4096 voxels.
///
/// # Errors
///
/// If `weights` does not have `B·C` values.
///
/// # Example
///
/// ```
/// use medcam::ops::{View, channel_weights};
/// use medcam::{Layout, Shape};
///
/// let gradient = [1.0_f32, -1.0 + 1e-7, /* sample 1 */ 1.0, -0.5];
/// let view = View::new(&gradient, Shape::new(2, 1, [1, 1, 2])?, Layout::Contiguous)?;
/// let weights = channel_weights(&view)?;
/// assert_eq!(channel_weights::cancel(&view, &weights)?, [true, false]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn cancel<T: Element>(gradient: &View<T>, weights: &[f32]) -> Result<Vec<bool>> {
    let shape = gradient.shape();
    let Shape { batch, channels, .. } = shape;
    let expected = (batch * channels, "B·C");
    check_length("channel_weights::cancel", "weights", weights.len(), expected, shape)?;
    let voxels = shape.voxels();
    let step = voxels.div_ceil(4096);
    let cancel = (0..batch)
        .zip(weights.chunks(channels))
        .map(|(b, weights)| {
            are_noise(weights, noise(T::EPSILON, voxels), |c| {
                let magnitudes = (0..voxels).step_by(step).map(|n| gradient.value(b, c, n).abs());
                magnitudes.sum::<f64>() / voxels.div_ceil(step) as f64
            })
        })
        .collect();
    Ok(cancel)
}

/// The ratio of weight to mean magnitude below which a mean of `voxels` values is noise.
pub(super) fn noise(epsilon: f32, voxels: usize) -> f64 {
    NOISE.max(4.0 * f64::from(epsilon) / (voxels as f64).sqrt())
}

/// Whether the greatest of the weights of a sample is below `noise` times its channel's magnitude.
pub(super) fn are_noise(
    weights: &[f32],
    noise: f64,
    mean_magnitude: impl Fn(usize) -> f64,
) -> bool {
    let greatest = weights.iter().map(|weight| weight.abs()).enumerate();
    greatest
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .is_some_and(|(c, weight)| f64::from(weight) < noise * mean_magnitude(c))
}
