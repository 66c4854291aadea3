//! Grad-CAM's channel weights: the spatial mean of each channel's gradient.

mod cpu;

pub use cpu::reference;

use crate::element::Element;
use crate::error::Result;
use crate::ops::View;

/// How far a weight may lie from its [`reference`], relative to `mean_n |G[b,c,n]|`.
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
