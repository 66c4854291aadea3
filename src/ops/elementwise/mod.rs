//! Maps without channel weights: each voxel's activation times its own gradient.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub(super) use cpu::elementwise as with_extremes;
pub use cpu::reference;

use crate::element::Element;
use crate::error::Result;
use crate::ops::check::check_same_form;
use crate::ops::{View, project};

/// How far a voxel may lie from its [`reference()`], relative to `sum_c |G[b,c,n]·A[b,c,n]|`; as for
/// [`project()`](crate::ops::project()), and for the same reasons.
pub const TOLERANCE: f64 = project::TOLERANCE;

/// Which gradients count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Elementwise {
    /// HiResCAM (arXiv 2011.08891): all, `L[b,n] = ReLU(sum_c G[b,c,n]·A[b,c,n])`.
    HiResCam,
    /// LayerCAM (doi 10.1109/TIP.2021.3089943): the positive ones,
    /// `L[b,n] = ReLU(sum_c ReLU(G[b,c,n])·A[b,c,n])`.
    LayerCam,
}

/// HiResCAM's or LayerCAM's map: the activation times the gradient, voxel by voxel, summed over the
/// channels and rectified; see [`Elementwise`] for the formulas.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `activation` | `(B, C, D, H, W)`, either layout | f32, f16, bf16 | `A`, of the layer |
/// | `gradient` | `(B, C, D, H, W)`, layout of `activation` | as `activation` | `G`, of the score |
/// | returns | `(B, D, H, W)` | f32 | at least 0; summed in f32 |
///
/// A sum that is NaN stays NaN, and where a gradient of `-∞` meets LayerCAM's ReLU it becomes NaN.
/// A sum that is `-∞` becomes 0, as ReLU says.
///
/// # Errors
///
/// If shape or layout of `gradient` is not that of `activation`.
///
/// # Example
///
/// ```
/// use medcam::ops::{Elementwise, View, elementwise};
/// use medcam::{Layout, Shape};
///
/// let shape = Shape::new(1, 2, [1, 1, 2])?;
/// let activation = View::new(&[1.0_f32, 3.0, 2.0, 1.0], shape, Layout::Contiguous)?;
/// let gradient = View::new(&[2.0_f32, 1.0, -0.5, -4.0], shape, Layout::Contiguous)?;
/// assert_eq!(elementwise(&activation, &gradient, Elementwise::HiResCam)?, [1.0, 0.0]);
/// assert_eq!(elementwise(&activation, &gradient, Elementwise::LayerCam)?, [2.0, 3.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn elementwise<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    method: Elementwise,
) -> Result<Vec<f32>> {
    let form = |view: &View<T>| (view.shape(), view.layout());
    check_same_form("elementwise", form(activation), form(gradient))?;
    Ok(cpu::elementwise(activation, gradient, method).map)
}
