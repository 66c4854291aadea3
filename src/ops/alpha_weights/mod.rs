//! Grad-CAM++'s channel weights: the gradient's positive part, each voxel with its own factor.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::{bound, reference, sensitivity};

use crate::element::Element;
use crate::error::Result;
use crate::ops::View;
use crate::ops::check::check_same_form;

/// What the [`bound()`] on the error of a weight is made of: how far a sum may be off, relative to
/// the sum of the magnitudes of its terms.
///
/// The same for `f32`, `f16` and `bf16`, which are widened exactly before the first operation. At
/// most 64 values and a tree of 4 additions go into one f32 sum, f64 takes over from there:
/// `(64 + 4)·2⁻²⁴ = 4.1e-6`; the few roundings within a term make up the rest.
pub const TOLERANCE: f64 = 5e-6;

/// `D` and `ε` in the denominator `2·G² + D + ε` of Grad-CAM++'s `alpha`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Denominator {
    /// `D = (sum_m A[b,c,m])·G[b,c,n]³`, equation 19 of the paper (arXiv 1710.11063), and `ε = 0`.
    #[default]
    Paper,
    /// `D = sum_m A[b,c,m]·G[b,c,m]³`, one value per channel: M3d-CAM's and MONAI's; `ε = 0`.
    M3dCam,
    /// `D` of `Denominator::Paper` and `ε = 1e-6`: that of pytorch-grad-cam 1.5, which replaces no
    /// denominator.
    PaperEpsilon,
    /// `D` of `Denominator::M3dCam` and `ε = 1e-7`: that of M3d-CAM 0.1.22 and MONAI 1.6.
    ///
    /// Both replace `2·G² + D` by 1 where it is exactly 0, and then add `ε`. Here `ε` belongs to the
    /// denominator that is compared with 0, so at such voxels `alpha` is `G² / 1e-7`, and theirs is
    /// `G² / (1 + 1e-7)`. Where `2·G² + D` is exactly `-ε`, `alpha` is `G²`, and theirs is infinite.
    /// Elsewhere both are equal.
    M3dCamEpsilon,
}

impl Denominator {
    /// `ε`, what is added to `2·G² + D`, in the units of `G²`.
    #[must_use]
    pub const fn epsilon(self) -> f64 {
        match self {
            Self::Paper | Self::M3dCam => 0.0,
            Self::PaperEpsilon => 1e-6,
            Self::M3dCamEpsilon => 1e-7,
        }
    }
}

/// Grad-CAM++'s channel weights (arXiv 1710.11063).
///
/// `w[b,c] = sum_n alpha[b,c,n]·ReLU(G[b,c,n])` with `alpha = G² / (2·G² + D + ε)`; [`Denominator`]
/// says what `D` and `ε` are.
///
/// Where `G = 0`, `alpha = 0`. Elsewhere the paper's `alpha` is `1 / (2 + G·sum_m A + ε/G²)`. Where
/// `G` is not 0 but the denominator with its `ε` is, it is replaced by 1: `alpha = G²`.
///
/// Without an `ε`, a score times a constant gives weights times that constant. An `ε` breaks this: it
/// outweighs `2·G²` where `G` is below 2e-4 (`ε = 1e-7`) or 7e-4 (`ε = 1e-6`), and weights of smaller
/// gradients fall with their third power. The two denominators with an `ε` are for maps that must
/// match those of M3d-CAM, MONAI or pytorch-grad-cam.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `activation` | `(B, C, D, H, W)`, either layout | f32, f16, bf16 | `A`, of the layer |
/// | `gradient` | `(B, C, D, H, W)`, layout of `activation` | as `activation` | `G`, of the score |
/// | returns | `(B, C)` | f32 | summed in f32 by blocks, across them in f64 |
///
/// The paper's two read `A` and `G` once each, M3d-CAM's two `G` twice. An `alpha` below 1.2e-38,
/// f32's least normal value, may count as 0. Nothing else leaves the range of f32 on the way: instead
/// of `G²`, f32 holds the square of `G / sqrt(D + ε)`.
///
/// A value of `A` or `G` that is not finite makes the weight of its channel not finite, and so do
/// magnitudes of `A` above `f32::MAX / 1024 = 3e35`, or whose sum is above `f32::MAX`.
///
/// The paper's factor `exp(score)` is left out: for a class score it is one positive constant, which
/// normalisation cancels, and it overflows at scores near 89.
///
/// The denominator can pass through 0 where activations are negative; [`bound()`] says how far each
/// weight may then lie from its [`reference()`], and [`sensitivity()`] how far the map moves.
///
/// # Errors
///
/// If shape or layout of `gradient` is not that of `activation`.
///
/// # Example
///
/// ```
/// use medcam::ops::{Denominator, View, alpha_weights};
/// use medcam::{Layout, Shape};
///
/// let shape = Shape::new(1, 1, [1, 1, 3])?;
/// let activation = View::new(&[0.5_f32, 1.0, 0.5], shape, Layout::Contiguous)?;
/// let gradient = View::new(&[1.0_f32, -1.0, 0.0], shape, Layout::Contiguous)?;
/// // The activations add up to 2: alpha is 1/4 where G = 1, and where G = -1 ReLU leaves nothing.
/// let weights = alpha_weights(&activation, &gradient, Denominator::Paper)?;
/// assert_eq!(weights, [0.25]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn alpha_weights<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    denominator: Denominator,
) -> Result<Vec<f32>> {
    let form = |view: &View<T>| (view.shape(), view.layout());
    check_same_form("alpha_weights", form(activation), form(gradient))?;
    Ok(cpu::alpha_weights(activation, gradient, denominator))
}
