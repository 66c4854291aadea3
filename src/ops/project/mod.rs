//! Grad-CAM's projection: the weighted sum of the channels, rectified.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub(super) use cpu::project as with_extremes;
pub use cpu::{channel_mean_reference, reference, weighted_sum_reference};

use crate::element::Element;
use crate::error::Result;
use crate::ops::View;
use crate::ops::check::check_length;
use crate::shape::Shape;

/// How far a voxel may lie from its [`reference()`], relative to `sum_c |w[b,c]·A[b,c,n]|`, and from
/// its [`channel_mean_reference()`], relative to `1/C · sum_c |A[b,c,n]|`.
///
/// The same for `f32`, `f16` and `bf16`, which are widened exactly before the first product. Four
/// channels are summed at a time, and these sums one after the other in f32: for up to 2048
/// channels the bound is `(2048/4 + 4)·2⁻²⁴ = 3.1e-5`; the errors of real sums are some 10 times
/// smaller.
pub const TOLERANCE: f64 = 3.2e-5;

/// Grad-CAM's projection: the weighted sum of the channels, rectified.
///
/// `L[b,n] = ReLU(sum_c w[b,c]·A[b,c,n])`
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `weights` | `(B, C)` | f32 | from [`channel_weights`](crate::ops::channel_weights()) |
/// | `activation` | `(B, C, D, H, W)`, either layout | f32, f16, bf16 | of the layer |
/// | returns | `(B, D, H, W)` | f32 | at least 0; summed in f32 |
///
/// A sum that is NaN stays NaN. One that is `-∞` becomes 0, as ReLU says;
/// [`cam`](crate::ops::cam()) refuses both.
///
/// # Errors
///
/// If `weights` does not have `B·C` values.
///
/// # Example
///
/// ```
/// use medcam::ops::{View, project};
/// use medcam::{Layout, Shape};
///
/// let activation = [1.0_f32, 2.0, 3.0, /* channel 1 */ 4.0, 0.0, 1.0];
/// let view = View::new(&activation, Shape::new(1, 2, [1, 1, 3])?, Layout::Contiguous)?;
/// assert_eq!(project(&[2.0, -1.0], &view)?, [0.0, 4.0, 5.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn project<T: Element>(weights: &[f32], activation: &View<T>) -> Result<Vec<f32>> {
    let Shape { batch, channels, .. } = activation.shape();
    let expected = (batch * channels, "B·C");
    check_length("project", "weights", weights.len(), expected, activation.shape())?;
    Ok(cpu::project(weights, activation).map)
}

/// The weighted sum of the channels, not rectified: what Captum's `LayerGradCam` gives.
///
/// `S[b,n] = sum_c w[b,c]·A[b,c,n]`
///
/// Arguments, types and [`TOLERANCE`] are those of [`project()`]; a sum that is not finite stays.
///
/// # Errors
///
/// If `weights` does not have `B·C` values.
///
/// # Example
///
/// ```
/// use medcam::ops::{View, weighted_sum};
/// use medcam::{Layout, Shape};
///
/// let activation = [1.0_f32, 2.0, 3.0, /* channel 1 */ 4.0, 0.0, 1.0];
/// let view = View::new(&activation, Shape::new(1, 2, [1, 1, 3])?, Layout::Contiguous)?;
/// assert_eq!(weighted_sum(&[2.0, -1.0], &view)?, [-2.0, 4.0, 5.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn weighted_sum<T: Element>(weights: &[f32], activation: &View<T>) -> Result<Vec<f32>> {
    let Shape { batch, channels, .. } = activation.shape();
    let expected = (batch * channels, "B·C");
    check_length("weighted_sum", "weights", weights.len(), expected, activation.shape())?;
    Ok(cpu::weighted_sum(weights, activation).map)
}

/// The mean over the channels, not rectified: the map of Guided Backpropagation from the gradient at
/// the input.
///
/// `L[b,n] = 1/C · sum_c A[b,c,n]`
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `tensor` | `(B, C, D, H, W)`, either layout | f32, f16, bf16 | `A` |
/// | returns | `(B, D, H, W)` | f32 | summed in f32 |
///
/// # Errors
///
/// None at present; what a [`View`] holds can always be averaged.
///
/// # Example
///
/// ```
/// use medcam::ops::{View, channel_mean};
/// use medcam::{Layout, Shape};
///
/// let gradient = [1.0_f32, -2.0, 3.0, /* channel 1 */ 4.0, 0.0, 1.0];
/// let view = View::new(&gradient, Shape::new(1, 2, [1, 1, 3])?, Layout::Contiguous)?;
/// assert_eq!(channel_mean(&view)?, [2.5, -1.0, 2.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn channel_mean<T: Element>(tensor: &View<T>) -> Result<Vec<f32>> {
    Ok(cpu::channel_mean(tensor).map)
}
