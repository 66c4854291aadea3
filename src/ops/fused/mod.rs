//! From the raw gradient to the finished map: the chain of ops behind each method, as one call.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "cuda")]
mod pending;

pub use cpu::{cam, cam_into, guided_cam, guided_cam_into, reference};

use super::{Denominator, Range, Resize, channel_weights, project, resample, resampling};
use crate::element::MapElement;
use crate::error::{Error, Result};
use crate::shape::Shape;

/// How far a voxel of a Grad-CAM map that is not normalised may lie from its [`reference()`],
/// relative to the greatest `sum_c mean_n |G[b,c,n]|·|A[b,c,n]|` of the sample.
///
/// The sum of the tolerances of [`channel_weights()`](fn@channel_weights), [`project()`](fn@project)
/// and [`resample()`](fn@resample), for the same reasons and all three types of `A` and `G`. A
/// normalised voxel may be off by twice that over `maximum - minimum`, and by the tolerance of
/// [`normalize()`](fn@super::normalize).
pub const TOLERANCE: f64 = channel_weights::TOLERANCE + project::TOLERANCE + resample::TOLERANCE;

/// How the activation `A` and the gradient `G` of a layer become its map `L[b,n]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// Grad-CAM: `ReLU(sum_c w·A)` with `w[b,c] = mean_n G` (arXiv 1610.02391, eqs. 1 and 2).
    #[default]
    GradCam,
    /// Grad-CAM++: the same with the weights of [`alpha_weights()`](super::alpha_weights())
    /// (arXiv 1710.11063).
    GradCamPlusPlus(Denominator),
    /// HiResCAM: `ReLU(sum_c G·A)`, see [`elementwise()`](super::elementwise()).
    HiResCam,
    /// LayerCAM: `ReLU(sum_c ReLU(G)·A)`, see [`elementwise()`](super::elementwise()).
    LayerCam,
}

impl Method {
    /// As messages name it.
    fn name(self) -> &'static str {
        match self {
            Self::GradCam => "grad_cam",
            Self::GradCamPlusPlus(_) => "grad_cam_plus_plus",
            Self::HiResCam => "hires_cam",
            Self::LayerCam => "layer_cam",
        }
    }
}

/// A method, and the grid and range of the finished map.
///
/// # Example
///
/// ```
/// use medcam::ops::{Method, Recipe};
///
/// let recipe = Recipe { to: Some([1, 224, 224]), ..Recipe::new(Method::GradCam) };
/// assert!(recipe.normalized);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// The method.
    pub method: Method,
    /// The grid `D, H, W` that the map is resampled to, linearly; that of the layer, if `None`.
    pub to: Option<[usize; 3]>,
    /// Whether each map is brought to `[0, 1]`.
    pub normalized: bool,
}

impl Recipe {
    /// Normalised, on the layer's grid.
    pub fn new(method: Method) -> Self {
        Self { method, to: None, normalized: true }
    }
}

/// One map per sample, and what the maps spanned before they were normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct Maps<O = f32> {
    /// The maps, `(B, D, H, W)`.
    pub values: Vec<O>,
    /// `B`, the number of maps.
    pub batch: usize,
    /// `D, H, W`, the extents of each map in voxels.
    pub spatial: [usize; 3],
    /// For each map the least and greatest value before normalisation.
    pub ranges: Vec<Range>,
    /// For each map whether its channel weights are rounding noise, see
    /// [`channel_weights::cancel`]: then so is the map. Grad-CAM's alone can be.
    pub weights_cancel: Vec<bool>,
}

/// What a chain says of the maps that it writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// For each map the least and greatest value before normalisation.
    pub ranges: Vec<Range>,
    /// For each map whether its channel weights are rounding noise, as in [`Maps`].
    pub weights_cancel: Vec<bool>,
}

/// Refuses shapes, a grid or an output type that do not fit; returns the grid of the finished map.
fn check(
    recipe: &Recipe,
    unit_range: bool,
    activation: Shape,
    gradient: Shape,
) -> Result<[usize; 3]> {
    let operation = recipe.method.name();
    if gradient != activation {
        return Err(Error::input(
            operation,
            format!("gradient: its shape {gradient} is not that of the activation, {activation}"),
        ));
    }
    if unit_range && !recipe.normalized {
        return Err(Error::input(
            operation,
            "recipe: u8 holds [0, 1] alone; ask for a normalised map, or for f32 or f16",
        ));
    }
    let to = recipe.to.unwrap_or(activation.spatial);
    let from = activation.spatial;
    resampling::check::check(operation, Resize { batch: activation.batch, from, to })?;
    Ok(to)
}

/// The greatest magnitude that the type of the finished map holds.
fn limit<O: MapElement>(recipe: &Recipe) -> f32 {
    if recipe.normalized { f32::INFINITY } else { O::GREATEST }
}

/// Refuses a map that reaches beyond `limit`.
fn check_reach(operation: &str, ranges: &[Range], limit: f32) -> Result<()> {
    let reach = |range: &Range| range.maximum.max(-range.minimum);
    match ranges.iter().enumerate().find(|(_, range)| reach(range) > limit) {
        Some((b, Range { minimum, maximum })) => Err(Error::input(
            operation,
            format!(
                "the map of sample {b} goes from {minimum} to {maximum}, and its type up to {limit}; \
                 ask for a normalised map, or for f32"
            ),
        )),
        None => Ok(()),
    }
}

/// Refuses a sample of which `count` of `all` `things` are not finite.
fn refuse(
    operation: &str,
    count: usize,
    things: &str,
    all: usize,
    sample: usize,
    of: &str,
) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    Err(Error::input(
        operation,
        format!("{count} of the {all} {things} of sample {sample} are not finite in the {of}"),
    ))
}

/// Where sums that are not finite come from, for the message.
const PRODUCTS: &str = "activation, or its product with the gradient";
