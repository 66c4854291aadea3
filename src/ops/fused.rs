//! Grad-CAM from the raw gradient to the finished map.

use super::normalize::cpu as normalize_cpu;
use super::project::cpu::{self as project_cpu, Projection};
use super::resample::cpu as resample_cpu;
use super::resample::rows::Plan;
use super::{Interpolation, Range, View, channel_weights, normalize, project, resample};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::shape::Shape;

/// How far a voxel of a map that is not normalised may lie from its [`reference()`], relative to the
/// greatest `sum_c mean_n |G[b,c,n]|·|A[b,c,n]|` of the sample.
///
/// The sum of the tolerances of [`channel_weights()`], [`project()`] and [`resample()`], for the
/// same reasons and all three types of `A` and `G`. A normalised voxel may be off by twice that
/// over `maximum - minimum`, and by the tolerance of [`normalize()`].
pub const TOLERANCE: f64 = channel_weights::TOLERANCE + project::TOLERANCE + resample::TOLERANCE;

/// One map per sample, and what the maps spanned before they were normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct Maps {
    /// The maps, `(B, D, H, W)`.
    pub values: Vec<f32>,
    /// `B`, the number of maps.
    pub batch: usize,
    /// `D, H, W`, the extents of each map in voxels.
    pub spatial: [usize; 3],
    /// For each map the least and greatest value before normalisation.
    pub ranges: Vec<Range>,
    /// For each map whether its channel weights are rounding noise, see
    /// [`channel_weights::cancel`]: then so is the map.
    pub weights_cancel: Vec<bool>,
}

/// Grad-CAM: [`channel_weights()`], [`project()`], [`resample()`] and [`normalize()`] in one.
///
/// `L[b,n] = ReLU(sum_c mean_n(G[b,c,n])·A[b,c,n])`, then linear resampling to the grid `to`
/// (none, if `to` is `None` or the grid of `A`), then, if `normalized`, each map to `[0, 1]`.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `activation` | `(B, C, D, H, W)`, either layout | f32, f16, bf16 | `A`, of the layer |
/// | `gradient` | `(B, C, D, H, W)`, either layout | as `activation` | `G`, of the score |
///
/// `G` and `A` are read once each, and the finished map is written once: its least and greatest
/// values are found beforehand, see [`resample::extremes()`].
///
/// # Errors
///
/// If the shapes differ; if an extent of `to` is 0, or memory does not hold that grid; if the gradient, the activation or a sum of
/// their products is not finite, normalised or not. The message names the sample.
///
/// # Example
///
/// ```
/// use medcam::ops::{View, grad_cam};
/// use medcam::{Layout, Shape};
///
/// let shape = Shape::new(1, 2, [1, 1, 2])?;
/// let activation = View::new(&[1.0_f32, 3.0, 0.0, 1.0], shape, Layout::Contiguous)?;
/// let gradient = View::new(&[1.0_f32, 3.0, -1.0, -3.0], shape, Layout::Contiguous)?;
///
/// let maps = grad_cam(&activation, &gradient, None, false)?;
/// assert_eq!(maps.values, [2.0, 4.0]);
///
/// let maps = grad_cam(&activation, &gradient, Some([1, 1, 4]), true)?;
/// assert_eq!(maps.values, [0.0, 0.25, 0.75, 1.0]);
/// assert_eq!((maps.ranges[0].minimum, maps.ranges[0].maximum), (2.0, 4.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn grad_cam<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    to: Option<[usize; 3]>,
    normalized: bool,
) -> Result<Maps> {
    let shape = activation.shape();
    let Shape { batch, channels, spatial: from } = shape;
    if gradient.shape() != shape {
        let given = gradient.shape();
        return Err(Error::input(
            "grad_cam",
            format!("gradient: its shape {given} is not that of the activation, {shape}"),
        ));
    }
    let to = to.unwrap_or(from);
    resample::check("grad_cam", batch, from, to)?;

    let weights = channel_weights(gradient)?;
    for (b, weights) in weights.chunks(channels).enumerate() {
        let count = weights.iter().filter(|weight| !weight.is_finite()).count();
        refuse(count, "channels", channels, b, "gradient")?;
    }
    let weights_cancel = channel_weights::cancel(gradient, &weights);
    let Projection { map, not_finite, extremes } = project_cpu::project(&weights, activation);
    for (b, count) in not_finite.into_iter().enumerate() {
        refuse(count, "voxels", shape.voxels(), b, "activation, or its product with the gradient")?;
    }
    let plan = Plan::new(from, to, Interpolation::Linear);
    let extremes = if to == from { extremes } else { resample_cpu::extremes(&plan, &map) };
    let voxels = to.iter().product::<usize>();
    for (b, extremes) in extremes.iter().enumerate() {
        // Finite values mix to finite ones, but for a rounding beyond the greatest f32.
        refuse(usize::from(!extremes.all_finite()) * voxels, "voxels", voxels, b, "resampled map")?;
    }
    let ranges: Vec<Range> = extremes.iter().map(|extremes| extremes.range).collect();
    let mut values = map;
    if to != from {
        let mut on_grid = vec![0.0; batch * voxels];
        let ends = normalized.then_some(&ranges[..]);
        resample_cpu::resample(&plan, &values, ends, &mut on_grid);
        values = on_grid;
    } else if normalized {
        normalize_cpu::rescale(&mut values, &ranges);
    }
    Ok(Maps { values, batch, spatial: to, ranges, weights_cancel })
}

/// An error if any of the things that a sample has `all` of is not finite.
fn refuse(count: usize, things: &str, all: usize, sample: usize, of: &str) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    Err(Error::input(
        "grad_cam",
        format!("{count} of the {all} {things} of sample {sample} are not finite in the {of}"),
    ))
}

/// The written truth of [`grad_cam()`]: the references of its four ops, one after the other.
///
/// All values must be finite.
///
/// # Panics
///
/// If `gradient` has fewer samples, channels or voxels than `activation`, or `to` an extent of 0.
pub fn reference<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    to: Option<[usize; 3]>,
    normalized: bool,
) -> Vec<f64> {
    let Shape { batch, spatial: from, .. } = activation.shape();
    let weights = channel_weights::reference(gradient);
    let map = project::reference(&weights, activation);
    let to = to.unwrap_or(from);
    let map = resample::reference(&map, batch, from, to, Interpolation::Linear);
    if normalized { normalize::reference(&map, batch) } else { map }
}
