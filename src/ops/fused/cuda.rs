//! The chains on a GPU: enqueued as one, with no wait in between and, from the second call
//! of a size on, no allocation.
//!
//! | method | launches | why so many |
//! |---|---|---|
//! | Grad-CAM | weights, project, extremes, resample | each needs all of what the one before gives |
//! | Grad-CAM++ | two for the weights | the second needs each channel's sum over all voxels |
//! | HiResCAM, LayerCAM | elementwise, extremes, resample | no weights |
//!
//! Where the map stays on the layer's grid, its extremes come with the map, and there is one launch
//! fewer. Guided Grad-CAM has the extremes of the product in place of those of the map.

use super::{Method, PRODUCTS, Recipe, Summary, check, check_reach, limit, refuse};
use crate::device::{Slice, SliceMut, Stream};
use crate::element::{Element, MapElement};
use crate::error::{Error, Result};
use crate::ops::extremes::DeviceExtremes;
use crate::ops::{DeviceView, Interpolation, Range, Resize};
use crate::ops::{
    Elementwise, alpha_weights, channel_weights, elementwise, guided_product, project, resample,
};
use crate::shape::Shape;

/// A chain that has been enqueued. [`finish`](Self::finish) waits for the map, and tells whether it may
/// be used.
#[derive(Debug)]
#[must_use = "a map whose values are not finite shows only here"]
pub struct Pending<'a> {
    stream: &'a Stream,
    method: Method,
    shape: Shape,
    /// Those of the maps on the layer's grid, then, if that is another one, of the finished maps.
    extremes: SliceMut<'a, DeviceExtremes>,
    /// The `(B, C)` weights, and with Grad-CAM's the mean magnitude of each channel's gradient.
    weights: Option<(SliceMut<'a, f32>, Option<SliceMut<'a, f32>>)>,
    epsilon: f32,
    /// The greatest magnitude that the type of the finished map holds.
    limit: f32,
}

impl Pending<'_> {
    /// Waits for the map; returns its ranges.
    ///
    /// # Errors
    ///
    /// If the gradient, the activation or a sum of their products is not finite, or an f16 map that is
    /// not normalised goes beyond 65504 (the message names the sample), or a kernel failed.
    pub fn finish(self) -> Result<Summary> {
        let Shape { batch, channels, .. } = self.shape;
        let voxels = self.shape.voxels();
        let mut weights_cancel = vec![false; batch];
        if let Some((weights, magnitudes)) = &self.weights {
            let weights = self.stream.download(weights.as_slice())?;
            for (b, weights) in weights.chunks(channels).enumerate() {
                let count = weights.iter().filter(|weight| !weight.is_finite()).count();
                refuse(self.method, count, "channels", channels, b, "gradient")?;
            }
            if let Some(magnitudes) = magnitudes {
                let magnitudes = self.stream.download(magnitudes.as_slice())?;
                let noise = channel_weights::noise(self.epsilon, voxels);
                let samples = weights.chunks(channels).zip(magnitudes.chunks(channels));
                weights_cancel = samples
                    .map(|(weights, means)| {
                        channel_weights::are_noise(weights, noise, |c| f64::from(means[c]))
                    })
                    .collect();
            }
        }
        let extremes = self.stream.download(self.extremes.as_slice())?;
        let (layer, finished) = (&extremes[..batch], &extremes[extremes.len() - batch..]);
        for (b, (layer, finished)) in layer.iter().zip(finished).enumerate() {
            refuse(self.method, layer.not_finite as usize, "voxels", voxels, b, PRODUCTS)?;
            if finished.not_finite > 0 {
                return Err(Error::input(
                    self.method.name(),
                    format!("the finished map of sample {b} is not finite everywhere"),
                ));
            }
        }
        let range = |DeviceExtremes { minimum, maximum, .. }| Range { minimum, maximum };
        let ranges: Vec<Range> = finished.iter().copied().map(range).collect();
        check_reach(self.method, &ranges, self.limit)?;
        Ok(Summary { ranges, weights_cancel })
    }
}

/// [`cam()`](crate::ops::cam) on a GPU: enqueues all of it and returns at once.
///
/// `map` takes the finished maps, `(B, D', H', W')`. The scratch memory of the call before is used
/// again, so finish (or drop) that first; the borrow of `stream` sees to it.
///
/// # Errors
///
/// Those of [`cam()`](crate::ops::cam) that depend on shapes alone; if `map` is not as long as its grid
/// says, or something is on another device than `stream`. Errors that depend on values come from
/// [`Pending::finish`].
///
/// # Example
///
/// ```no_run
/// use medcam::device::{Gpu, Stream};
/// use medcam::ops::{DeviceView, Method, Recipe, fused};
/// use medcam::{Layout, Shape};
///
/// let mut stream = Stream::new(Gpu::get(0)?)?;
/// let shape = Shape::new(1, 2, [1, 1, 2])?;
/// let activation = stream.upload(&[1.0_f32, 3.0, 0.0, 1.0])?;
/// let gradient = stream.upload(&[1.0_f32, 3.0, -1.0, -3.0])?;
/// let mut map = stream.allocate::<u8>(4)?;
///
/// let recipe = Recipe { to: Some([1, 1, 4]), ..Recipe::new(Method::GradCam) };
/// let pending = fused::cuda::cam(
///     &mut stream,
///     &DeviceView::new(activation.slice(), shape, Layout::Contiguous)?,
///     &DeviceView::new(gradient.slice(), shape, Layout::Contiguous)?,
///     &recipe,
///     map.slice_mut(),
/// )?;
/// let summary = pending.finish()?;
/// assert_eq!((summary.ranges[0].minimum, summary.ranges[0].maximum), (2.0, 4.0));
/// assert_eq!(stream.download(map.slice())?, [0, 64, 191, 255]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn cam<'a, T: Element, O: MapElement>(
    stream: &'a mut Stream,
    activation: &DeviceView<T>,
    gradient: &DeviceView<T>,
    recipe: &Recipe,
    map: SliceMut<O>,
) -> Result<Pending<'a>> {
    let to = check(recipe, O::UNIT_RANGE, activation.shape(), gradient.shape())?;
    let other_grid = to != activation.shape().spatial;
    let (mut pending, small) = layer_map(stream, activation, gradient, recipe.method, other_grid)?;
    pending.limit = limit::<O>(recipe);
    let (stream, small) = (pending.stream, small.as_slice());
    let Shape { batch, spatial: from, .. } = activation.shape();
    let resize = Resize { batch, from, to };
    let finished = pending.extremes.len() - batch..pending.extremes.len();
    if finished.start > 0 {
        let ranges = pending.extremes.part(finished.clone())?;
        resample::cuda::extremes(stream, small, resize, Interpolation::Linear, ranges)?;
    }
    let ranges = pending.extremes.as_slice().part(finished)?;
    let ranges = recipe.normalized.then_some(ranges);
    resample::cuda::resample_into(stream, small, resize, Interpolation::Linear, ranges, map)?;
    Ok(pending)
}

/// [`guided_cam()`](crate::ops::guided_cam) on a GPU: enqueues all of it and returns at once, as
/// [`cam()`]. `guided` is `(B, D', H', W')`, and so is `map`.
///
/// # Errors
///
/// As [`cam()`], and if `guided` is not as long as its grid says.
pub fn guided_cam<'a, T: Element, O: MapElement>(
    stream: &'a mut Stream,
    activation: &DeviceView<T>,
    gradient: &DeviceView<T>,
    guided: Slice<f32>,
    recipe: &Recipe,
    map: SliceMut<O>,
) -> Result<Pending<'a>> {
    let to = check(recipe, O::UNIT_RANGE, activation.shape(), gradient.shape())?;
    let (mut pending, small) = layer_map(stream, activation, gradient, recipe.method, true)?;
    pending.limit = limit::<O>(recipe);
    let (stream, small) = (pending.stream, small.as_slice());
    let Shape { batch, spatial: from, .. } = activation.shape();
    let resize = Resize { batch, from, to };
    let ranges = pending.extremes.part(batch..2 * batch)?;
    guided_product::cuda::extremes(stream, small, guided, resize, ranges)?;
    let ranges = pending.extremes.as_slice().part(batch..2 * batch)?;
    let ranges = recipe.normalized.then_some(ranges);
    guided_product::cuda::guided_product_into(stream, small, guided, resize, ranges, map)?;
    Ok(pending)
}

/// The map on the layer's grid with its extremes, and, for a map on another grid, room for the
/// extremes of the finished maps behind them.
fn layer_map<'a, T: Element>(
    stream: &'a mut Stream,
    activation: &DeviceView<T>,
    gradient: &DeviceView<T>,
    method: Method,
    other_grid: bool,
) -> Result<(Pending<'a>, SliceMut<'a, f32>)> {
    stream.release_scratch();
    let stream: &Stream = stream;
    let shape = activation.shape();
    let Shape { batch, channels, .. } = shape;
    let rows = batch * channels;
    let mut map = stream.scratch::<f32>(batch * shape.voxels())?;
    let mut all = stream.scratch::<DeviceExtremes>(if other_grid { 2 * batch } else { batch })?;
    let extremes = all.part(0..batch)?;
    let weights = match method {
        Method::GradCam => {
            let (mut weights, mut magnitudes) = stream.scratch(2 * rows)?.split_at(rows)?;
            channel_weights::cuda::channel_weights(
                stream,
                gradient,
                weights.reborrow(),
                magnitudes.reborrow(),
            )?;
            Some((weights, Some(magnitudes)))
        }
        Method::GradCamPlusPlus(denominator) => {
            let mut weights = stream.scratch(rows)?;
            alpha_weights::cuda::alpha_weights(
                stream,
                activation,
                gradient,
                denominator,
                weights.reborrow(),
            )?;
            Some((weights, None))
        }
        Method::HiResCam | Method::LayerCam => None,
    };
    let small = map.reborrow();
    match (&weights, method) {
        (Some((weights, _)), _) => {
            let weights = weights.as_slice();
            project::cuda::project(stream, weights, activation, small, extremes)?;
        }
        (None, method) => {
            let kind = if method == Method::LayerCam {
                Elementwise::LayerCam
            } else {
                Elementwise::HiResCam
            };
            elementwise::cuda::elementwise(stream, activation, gradient, kind, small, extremes)?;
        }
    }
    let (epsilon, limit) = (T::EPSILON, f32::INFINITY);
    Ok((Pending { stream, method, shape, extremes: all, weights, epsilon, limit }, map))
}
