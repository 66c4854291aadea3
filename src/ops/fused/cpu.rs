//! The chains on the CPU.

use super::{Maps, Method, PRODUCTS, Recipe, Summary, check, check_reach, limit, refuse};
use crate::element::{Element, MapElement};
use crate::error::Result;
use crate::ops::extremes::cpu::Extremes;
use crate::ops::resampling::{self, Plan};
use crate::ops::voxel_sums::cpu::VoxelSums;
use crate::ops::{
    Elementwise, Interpolation, Range, Resize, View, alpha_weights, channel_weights, elementwise,
    guided_product, normalize, project, resample,
};
use crate::shape::Shape;

/// The map of one layer, from the raw gradient to the finished map.
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `activation` | `(B, C, D, H, W)`, either layout | f32, f16, bf16 | `A`, of the layer |
/// | `gradient` | `(B, C, D, H, W)`, either layout | as `activation` | `G`, of the score |
/// | `recipe` | | [`Recipe`] | method, grid `to`, and whether to normalise |
/// | returns | `(B, D', H', W')` | f32, f16 or u8 | in `[0, 1]` if the recipe says so |
///
/// Grad-CAM takes the two in different layouts, the other methods in the same.
///
/// The [`Method`]'s map, then linear resampling to the grid `to`, then, if `normalized`, each map to
/// `[0, 1]`; a `u8` holds 255ths. `G` and `A` are read once each (`A` twice by Grad-CAM++), and the
/// finished map is written once: its least and greatest values are found beforehand, see
/// [`resample::extremes()`].
///
/// # Errors
///
/// If the shapes differ, or, but for Grad-CAM, the layouts; if an extent of `to` is 0 or above 2³⁰, or
/// memory does not hold that grid; if a u8 map is not to be normalised, or an f16 map that is not
/// normalised goes beyond 65504; if the gradient, the activation or a sum of their products is not
/// finite, normalised or not. The message names the sample.
///
/// # Example
///
/// ```
/// use medcam::ops::{Maps, Method, Recipe, View, cam};
/// use medcam::{Layout, Shape};
///
/// let shape = Shape::new(1, 2, [1, 1, 2])?;
/// let activation = View::new(&[1.0_f32, 3.0, 0.0, 1.0], shape, Layout::Contiguous)?;
/// let gradient = View::new(&[1.0_f32, 3.0, -1.0, -3.0], shape, Layout::Contiguous)?;
/// let recipe = Recipe::new(Method::GradCam);
///
/// let maps: Maps = cam(&activation, &gradient, &Recipe { normalized: false, ..recipe })?;
/// assert_eq!(maps.values, [2.0, 4.0]);
///
/// let maps: Maps<u8> = cam(&activation, &gradient, &Recipe { to: Some([1, 1, 4]), ..recipe })?;
/// assert_eq!(maps.values, [0, 64, 191, 255]);
/// assert_eq!((maps.ranges[0].minimum, maps.ranges[0].maximum), (2.0, 4.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn cam<T: Element, O: MapElement>(
    activation: &View<T>,
    gradient: &View<T>,
    recipe: &Recipe,
) -> Result<Maps<O>> {
    let shape = activation.shape();
    let to = check(recipe, O::UNIT_RANGE, shape, gradient.shape())?;
    let mut values = O::zeros(shape.batch * to.iter().product::<usize>());
    let Summary { ranges, weights_cancel } = cam_into(activation, gradient, recipe, &mut values)?;
    Ok(Maps { values, batch: shape.batch, spatial: to, ranges, weights_cancel })
}

/// [`cam()`] into memory that is there already: `map` takes the finished maps, `(B, D', H', W')`.
///
/// # Errors
///
/// As [`cam()`], and if `map` does not have as many values as its grid says. It is as before then.
///
/// # Example
///
/// ```
/// use medcam::ops::{Method, Recipe, View, fused};
/// use medcam::{Layout, Shape};
///
/// let shape = Shape::new(1, 2, [1, 1, 2])?;
/// let activation = View::new(&[1.0_f32, 3.0, 0.0, 1.0], shape, Layout::Contiguous)?;
/// let gradient = View::new(&[1.0_f32, 3.0, -1.0, -3.0], shape, Layout::Contiguous)?;
/// let mut map = [0.0_f32; 2];
/// let summary = fused::cam_into(&activation, &gradient, &Recipe::new(Method::GradCam), &mut map)?;
/// assert_eq!((map, summary.ranges[0].maximum), ([0.0, 1.0], 4.0));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn cam_into<T: Element, O: MapElement>(
    activation: &View<T>,
    gradient: &View<T>,
    recipe: &Recipe,
    map: &mut [O],
) -> Result<Summary> {
    let shape = activation.shape();
    let to = check(recipe, O::UNIT_RANGE, shape, gradient.shape())?;
    let name = recipe.method.name();
    let resize = Resize { batch: shape.batch, from: shape.spatial, to };
    resampling::check::check_out::<O>(name, map.len(), resize, recipe.normalized)?;
    let (small, layer, weights_cancel) = layer_map(activation, gradient, recipe.method)?;
    let plan = Plan::new(name, resize, Interpolation::Linear)?;
    let source = plan.source(&small);
    let extremes = if to == shape.spatial { layer } else { resampling::extremes(&source) };
    let voxels = to.iter().product::<usize>();
    for (b, extremes) in extremes.iter().enumerate() {
        // Finite values mix to finite ones, but for a rounding beyond the greatest f32.
        let count = usize::from(!extremes.all_finite()) * voxels;
        refuse(name, count, "voxels", voxels, b, "resampled map")?;
    }
    let ranges: Vec<Range> = extremes.iter().map(|extremes| extremes.range).collect();
    check_reach(recipe.method.name(), &ranges, limit::<O>(recipe))?;
    resample::from_source(&source, recipe.normalized.then_some(&ranges[..]), map);
    Ok(Summary { ranges, weights_cancel })
}

/// Guided Grad-CAM (arXiv 1610.02391, section 3.2): the method's map, resampled to the grid of the
/// guided map, times that, see [`guided_product()`](crate::ops::guided_product()).
///
/// `guided` is `(B, D', H', W')`, on the grid `to` of the recipe; everything else as in [`cam()`].
///
/// # Errors
///
/// As [`cam()`], and if `guided` is not as long as its grid says, or is not finite.
///
/// # Example
///
/// ```
/// use medcam::ops::{Maps, Method, Recipe, View, guided_cam};
/// use medcam::{Layout, Shape};
///
/// let shape = Shape::new(1, 1, [1, 1, 2])?;
/// let activation = View::new(&[0.0_f32, 4.0], shape, Layout::Contiguous)?;
/// let gradient = View::new(&[1.0_f32, 1.0], shape, Layout::Contiguous)?;
/// let recipe = Recipe { to: Some([1, 1, 4]), ..Recipe::new(Method::GradCam) };
/// // The map 0, 1, 3, 4 times this is 0, -1, 3, 2.
/// let guided = [5.0, -1.0, 1.0, 0.5];
/// let maps: Maps = guided_cam(&activation, &gradient, &guided, &recipe)?;
/// assert_eq!(maps.values, [0.25, 0.0, 1.0, 0.75]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn guided_cam<T: Element, O: MapElement>(
    activation: &View<T>,
    gradient: &View<T>,
    guided: &[f32],
    recipe: &Recipe,
) -> Result<Maps<O>> {
    let Shape { batch, spatial, .. } = activation.shape();
    let mut values = O::zeros(guided.len());
    let summary = guided_cam_into(activation, gradient, guided, recipe, &mut values)?;
    let Summary { ranges, weights_cancel } = summary;
    Ok(Maps { values, batch, spatial: recipe.to.unwrap_or(spatial), ranges, weights_cancel })
}

/// [`guided_cam()`] into memory that is there already: `map` is `(B, D', H', W')`.
///
/// # Errors
///
/// As [`guided_cam()`], and if `map` does not have as many values as its grid says.
pub fn guided_cam_into<T: Element, O: MapElement>(
    activation: &View<T>,
    gradient: &View<T>,
    guided: &[f32],
    recipe: &Recipe,
    map: &mut [O],
) -> Result<Summary> {
    let shape = activation.shape();
    let to = check(recipe, O::UNIT_RANGE, shape, gradient.shape())?;
    let (small, _, weights_cancel) = layer_map(activation, gradient, recipe.method)?;
    let resize = Resize { batch: shape.batch, from: shape.spatial, to };
    let ranges = guided_product::extremes(&small, guided, resize)?;
    check_reach(recipe.method.name(), &ranges, limit::<O>(recipe))?;
    let ends = recipe.normalized.then_some(&ranges[..]);
    guided_product::guided_product_into(&small, guided, resize, ends, map)?;
    Ok(Summary { ranges, weights_cancel })
}

/// The map on the layer's grid, and for each sample its extremes and whether its weights cancel.
fn layer_map<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    method: Method,
) -> Result<(Vec<f32>, Vec<Extremes>, Vec<bool>)> {
    let shape = activation.shape();
    let mut weights_cancel = vec![false; shape.batch];
    let project = |weights: &[f32]| -> Result<VoxelSums> {
        for (b, weights) in weights.chunks(shape.channels).enumerate() {
            let count = weights.iter().filter(|weight| !weight.is_finite()).count();
            refuse(method.name(), count, "channels", shape.channels, b, "gradient")?;
        }
        Ok(project::with_extremes(weights, activation))
    };
    let VoxelSums { map, not_finite, extremes } = match method {
        Method::GradCam => {
            let weights = channel_weights(gradient)?;
            let sums = project(&weights)?;
            weights_cancel = channel_weights::cancel(gradient, &weights)?;
            sums
        }
        Method::GradCamPlusPlus(denominator) => {
            project(&alpha_weights(activation, gradient, denominator)?)?
        }
        Method::HiResCam => elementwise::with_extremes(activation, gradient, Elementwise::HiResCam),
        Method::LayerCam => elementwise::with_extremes(activation, gradient, Elementwise::LayerCam),
    };
    for (b, count) in not_finite.into_iter().enumerate() {
        refuse(method.name(), count, "voxels", shape.voxels(), b, PRODUCTS)?;
    }
    Ok((map, extremes, weights_cancel))
}

/// The written truth of [`cam()`]: the references of its ops, one after the other.
///
/// All values must be finite.
///
/// # Panics
///
/// If `gradient` has fewer samples, channels or voxels than `activation`, or `to` an extent of 0.
pub fn reference<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    recipe: &Recipe,
) -> Vec<f64> {
    let Shape { batch, spatial: from, .. } = activation.shape();
    let map = match recipe.method {
        Method::GradCam => project::reference(&channel_weights::reference(gradient), activation),
        Method::GradCamPlusPlus(denominator) => {
            let weights = alpha_weights::reference(activation, gradient, denominator);
            project::reference(&weights, activation)
        }
        Method::HiResCam => elementwise::reference(activation, gradient, Elementwise::HiResCam),
        Method::LayerCam => elementwise::reference(activation, gradient, Elementwise::LayerCam),
    };
    let to = recipe.to.unwrap_or(from);
    let map = resample::reference(&map, Resize { batch, from, to }, Interpolation::Linear);
    if recipe.normalized { normalize::reference(&map, batch) } else { map }
}
