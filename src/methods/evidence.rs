//! The tensors of a network's run that a map is computed from, and the steps that finish a map.

use std::fmt;

use tch::Tensor;

use super::compat::{Compat, grad_cam_plus_plus};
use crate::bridge::{ChannelMean, MapMaker, alpha_sensitivity, channel_mean, to_array};
use crate::error::{Error, Result};
use crate::ops::{self, Interpolation, Maps, Method, Range, Recipe, Resize, guided_product};

/// The tensors of a network's run from which the maps of one layer are computed: see
/// [`Attention`](crate::Attention).
pub struct Evidence<'a> {
    maker: &'a mut MapMaker,
    layer: Option<(&'a Tensor, &'a Tensor)>,
    guided: Option<&'a Guided>,
    finish: &'a Finish,
    weights_cancel: bool,
    unstable_weights: Vec<bool>,
}

/// The greatest part of its range by which the roundings of activations and gradients in f32 may move a
/// map of Grad-CAM++ before it is called unstable.
///
/// Of 2579 layers of the networks of the tests and of V-Nets, U-Nets and SegResNets with random
/// weights, none whose map by autograd in single precision is within 1e-4 of that in double comes to
/// more than 1/50.
const UNSTABLE: f32 = 1.0 / 32.0;

/// How a map is finished: its size, and whether by M3d-CAM's numbers.
#[derive(Debug)]
pub(crate) struct Finish {
    /// The size of the maps; `None` keeps that of the layer, or of the input for guided maps.
    pub size: Option<[usize; 3]>,
    pub compat: Compat,
    /// The score's [`parts`](super::compat::parts), for M3d-CAM's Grad-CAM++ in segmentation.
    pub parts: Option<Tensor>,
}

/// The guided gradient at the input, averaged over the input's channels.
#[derive(Debug)]
pub(crate) struct Guided(ChannelMean);

impl Guided {
    /// `gradient` is `(B, C, [D,] H, W)`.
    pub(crate) fn new(gradient: &Tensor) -> Result<Self> {
        channel_mean(gradient).map(Self)
    }
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(
        maker: &'a mut MapMaker,
        layer: Option<(&'a Tensor, &'a Tensor)>,
        guided: Option<&'a Guided>,
        finish: &'a Finish,
    ) -> Self {
        Self { maker, layer, guided, finish, weights_cancel: false, unstable_weights: Vec::new() }
    }

    /// Sets whether the layer's Grad-CAM weights are known to cancel, which leaves rounding noise.
    pub(crate) fn weights_cancel(self, weights_cancel: bool) -> Self {
        Self { weights_cancel, ..self }
    }

    /// Whether each sample's weights of Grad-CAM++ hang on rounding, so that the map does; empty if
    /// none do.
    pub(crate) fn unstable_weights(&self) -> &[bool] {
        &self.unstable_weights
    }

    /// The activation of the layer, `(B, C, [D,] H, W)`.
    ///
    /// # Errors
    ///
    /// If the method's [needs](crate::Needs) do not include a layer.
    pub fn activation(&self) -> Result<&'a Tensor> {
        self.layer().map(|(activation, _)| activation)
    }

    /// The gradient of the score with respect to the activation, of the same shape.
    ///
    /// # Errors
    ///
    /// If the method's [needs](crate::Needs) do not include a layer.
    pub fn gradient(&self) -> Result<&'a Tensor> {
        self.layer().map(|(_, gradient)| gradient)
    }

    /// The maps of a [`Method`], resampled and normalised: see [`ops::cam`](ops::cam()).
    ///
    /// # Errors
    ///
    /// If activation or gradient is not finite, or is not among the method's needs.
    pub fn cam(&mut self, method: Method) -> Result<Maps> {
        let (activation, gradient) = self.layer()?;
        if let (Compat::M3dCam, Method::GradCamPlusPlus(_)) = (self.finish.compat, method) {
            return self.finish(&grad_cam_plus_plus(
                activation,
                gradient,
                self.finish.parts.as_ref(),
            )?);
        }
        let recipe = Recipe { to: self.normalized_at(), ..Recipe::new(method) };
        let maps = self.weighted(&recipe, activation, gradient)?;
        self.resampled(maps)
    }

    /// The guided gradient at the input, averaged over its channels, resampled and normalised.
    ///
    /// # Errors
    ///
    /// If it is not finite, or is not among the method's needs.
    pub fn guided(&mut self) -> Result<Maps> {
        let ChannelMean { values, batch, spatial } = self.guided_gradient()?;
        self.finished(values, *batch, *spatial)
    }

    /// The maps of a [`Method`] times the guided gradient, normalised: see
    /// [`ops::guided_cam`](ops::guided_cam()).
    ///
    /// # Errors
    ///
    /// If activation, gradient or guided gradient is not finite, or is not among the method's
    /// needs.
    pub fn guided_cam(&mut self, method: Method) -> Result<Maps> {
        let (activation, gradient) = self.layer()?;
        let ChannelMean { values, batch, spatial } = self.guided_gradient()?;
        // Without a requested size, the map keeps the input's grid: at the layer's size, the detail
        // of the guided gradient would be lost.
        let to = self.normalized_at().unwrap_or(*spatial);
        let normalized = self.finish.compat == Compat::M3dCam;
        let recipe = Recipe { to: None, normalized, ..Recipe::new(method) };
        let layer = self.weighted(&recipe, activation, gradient)?;
        let resampled;
        let values = if to == *spatial {
            values
        } else {
            let resize = Resize { batch: *batch, from: *spatial, to };
            resampled = ops::resample(values, resize, Interpolation::Linear)?;
            &resampled
        };
        let resize = Resize { batch: *batch, from: layer.spatial, to };
        let (values, ranges) = guided_product(&layer.values, values, resize)?;
        self.resampled(Maps { values, spatial: to, ranges, ..layer })
    }

    /// Finishes the maps of a method of your own. `map` is `(B, 1, [D,] H, W)` on any grid; it is
    /// resampled linearly to the requested size, and each sample is normalised.
    ///
    /// # Errors
    ///
    /// If `map` has another shape, or is not finite.
    pub fn finish(&self, map: &Tensor) -> Result<Maps> {
        let map = to_array(map)?;
        let (batch, spatial) = match *map.shape() {
            [batch, 1, height, width] => (batch, [1, height, width]),
            [batch, 1, depth, height, width] => (batch, [depth, height, width]),
            ref shape => {
                return Err(Error::input(
                    "map",
                    format!("shape {shape:?}; a method gives (B, 1, [D,] H, W)"),
                ));
            }
        };
        self.finished(map.as_slice().unwrap_or(&[]), batch, spatial)
    }

    /// The maps of a layer, flagged if their weights cancel. The maps' own test compares magnitudes
    /// and misses noise of a gradient that is small itself, so what is known of the network is
    /// added. This concerns Grad-CAM alone, the only method that averages the gradient.
    fn weighted(
        &mut self,
        recipe: &Recipe,
        activation: &Tensor,
        gradient: &Tensor,
    ) -> Result<Maps> {
        let mut maps = self.maker.maps(recipe, activation, gradient)?;
        if self.weights_cancel && recipe.method == Method::GradCam {
            maps.weights_cancel.fill(true);
        }
        if matches!(recipe.method, Method::GradCamPlusPlus(_))
            && let Some(sensitivity) = alpha_sensitivity(activation, gradient)?
        {
            let is_unstable = |(range, sensitivity): (&Range, &f32)| {
                // A map that is the same everywhere is warned of as such.
                let span = range.maximum - range.minimum;
                span > 0.0 && sensitivity * (f32::EPSILON / 2.0) > UNSTABLE * span
            };
            self.unstable_weights = maps.ranges.iter().zip(&sensitivity).map(is_unstable).collect();
        }
        Ok(maps)
    }

    /// Maps on a grid, resampled and normalised.
    fn finished(&self, values: &[f32], batch: usize, from: [usize; 3]) -> Result<Maps> {
        let spatial = self.normalized_at().unwrap_or(from);
        let resize = Resize { batch, from, to: spatial };
        let (values, ranges) =
            ops::resample::resample_normalized(values, resize, Interpolation::Linear)?;
        self.resampled(Maps { values, batch, spatial, ranges, weights_cancel: vec![false; batch] })
    }

    /// The grid on which maps are normalised; `None` for the grid on which they are computed.
    fn normalized_at(&self) -> Option<[usize; 3]> {
        match self.finish.compat {
            Compat::None => self.finish.size,
            Compat::M3dCam => None,
        }
    }

    /// Resamples normalised maps to the requested size.
    fn resampled(&self, maps: Maps) -> Result<Maps> {
        let to = self.finish.size.unwrap_or(maps.spatial);
        if to == maps.spatial {
            return Ok(maps);
        }
        let resize = Resize { batch: maps.batch, from: maps.spatial, to };
        let values = ops::resample(&maps.values, resize, Interpolation::Linear)?;
        Ok(Maps { values, spatial: to, ..maps })
    }

    fn layer(&self) -> Result<(&'a Tensor, &'a Tensor)> {
        self.layer.ok_or_else(|| unasked("activation and gradient of a layer", "layer"))
    }

    fn guided_gradient(&self) -> Result<&'a ChannelMean> {
        self.guided.map(|guided| &guided.0).ok_or_else(|| unasked("guided gradient", "guided"))
    }
}

impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.layer.map(|(activation, gradient)| (activation.size(), gradient.size()));
        f.debug_struct("Evidence")
            .field("activation_and_gradient", &shapes)
            .field("guided", &self.guided.map(|guided| guided.0.spatial))
            .field("size", &self.finish.size)
            .finish_non_exhaustive()
    }
}

fn unasked(what: &str, field: &str) -> Error {
    Error::usage(format!("the method has no {what}: its `needs()` must say `{field}: true`"))
}
