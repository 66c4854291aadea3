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

use super::{Method, Recipe, check};
use crate::device::{Slice, SliceMut, Stream};
use crate::element::{Element, MapElement};
use crate::error::Result;
use crate::ops::extremes::DeviceExtremes;
use crate::ops::guided_product::cuda as product;
use crate::ops::{
    DeviceView, Elementwise, Interpolation, Resize, alpha_weights, channel_weights, elementwise,
    project, resample,
};
use crate::shape::Shape;

pub use super::pending::{Pending, Reader};

const LINEAR: Interpolation = Interpolation::Linear;

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
    pending.reader = Reader::of::<O>(recipe, activation.shape());
    let (stream, small) = (pending.stream, small.as_slice());
    let Shape { batch, spatial: from, .. } = activation.shape();
    let resize = Resize { batch, from, to };
    let finished = pending.extremes.len() - batch..pending.extremes.len();
    if finished.start > 0 {
        let ranges = pending.extremes.part(finished.clone())?;
        resample::cuda::extremes(stream, small, resize, LINEAR, ranges)?;
    }
    let ranges = pending.extremes.as_slice().part(finished)?;
    let ranges = recipe.normalized.then_some(ranges);
    resample::cuda::resample_into(stream, small, resize, LINEAR, ranges, map)?;
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
    pending.reader = Reader::of::<O>(recipe, activation.shape());
    let (stream, small) = (pending.stream, small.as_slice());
    let Shape { batch, spatial: from, .. } = activation.shape();
    let resize = Resize { batch, from, to };
    let ranges = pending.extremes.part(batch..2 * batch)?;
    product::extremes(stream, small, guided, resize, ranges)?;
    let ranges = pending.extremes.as_slice().part(batch..2 * batch)?;
    let ranges = recipe.normalized.then_some(ranges);
    product::guided_product_into(stream, small, guided, resize, ranges, map)?;
    Ok(pending)
}

/// The mean over the channels, Guided Backpropagation's map, on a GPU: enqueued, as [`cam()`].
///
/// `map` takes the means, `(B, D, H, W)`, as they are.
///
/// # Errors
///
/// Those of [`project::cuda::channel_mean`].
pub fn channel_mean<T: Element>(
    stream: &mut Stream,
    tensor: &DeviceView<T>,
    map: SliceMut<f32>,
) -> Result<()> {
    stream.release_scratch();
    let extremes = stream.scratch(tensor.shape().batch)?;
    project::cuda::channel_mean(stream, tensor, map, extremes)
}

/// [`resample_normalized`](resample::resample_normalized) on a GPU: enqueued, as [`cam()`].
///
/// `map` is `(B, D, H, W)`, `out` takes the finished maps, `(B, D', H', W')`.
///
/// # Errors
///
/// Those of [`resample::cuda::resample_into`]. Errors that depend on values come from [`Pending::finish`].
pub fn resample_normalized<'a, O: MapElement>(
    stream: &'a mut Stream,
    map: Slice<f32>,
    resize: Resize,
    out: SliceMut<O>,
) -> Result<Pending<'a>> {
    let mut pending = of_map(stream, "resample", resize)?;
    let stream = pending.stream;
    resample::cuda::extremes(stream, map, resize, LINEAR, pending.extremes.reborrow())?;
    let ranges = Some(pending.extremes.as_slice());
    resample::cuda::resample_into(stream, map, resize, LINEAR, ranges, out)?;
    Ok(pending)
}

/// [`guided_product()`](crate::ops::guided_product()) on a GPU: enqueued, as [`cam()`].
///
/// `map` is `(B, D, H, W)`, `guided` and `out` `(B, D', H', W')`.
///
/// # Errors
///
/// Those of [`guided_product_into`](product::guided_product_into). Errors that depend on values come from
/// [`Pending::finish`].
pub fn guided_product<'a, O: MapElement>(
    stream: &'a mut Stream,
    map: Slice<f32>,
    guided: Slice<f32>,
    resize: Resize,
    out: SliceMut<O>,
) -> Result<Pending<'a>> {
    let mut pending = of_map(stream, "guided_product", resize)?;
    let stream = pending.stream;
    product::extremes(stream, map, guided, resize, pending.extremes.reborrow())?;
    let ranges = Some(pending.extremes.as_slice());
    product::guided_product_into(stream, map, guided, resize, ranges, out)?;
    Ok(pending)
}

/// A call on maps that have no layer, before its first launch.
fn of_map<'a>(
    stream: &'a mut Stream,
    operation: &'static str,
    Resize { batch, from, .. }: Resize,
) -> Result<Pending<'a>> {
    stream.release_scratch();
    let stream: &Stream = stream;
    let shape = Shape::new(batch, 1, from)?;
    let reader = Reader { operation, shape, limit: f32::INFINITY };
    let extremes = stream.scratch(batch)?;
    Ok(Pending { stream, extremes, weights: None, epsilon: f32::EPSILON, reader })
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
    let reader = Reader { operation: method.name(), shape, limit: f32::INFINITY };
    Ok((Pending { stream, extremes: all, weights, epsilon: T::EPSILON, reader }, map))
}
