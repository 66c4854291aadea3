//! The tensors of a network's run that a map is computed from, and the steps that finish a map.

use std::fmt;

use tch::Tensor;

use super::compat::{Compat, grad_cam_plus_plus};
use crate::bridge::{LayerMaps, MapMaker, MapValues};
use crate::error::{Error, Result};
use crate::ops::{Method, Recipe};

/// The tensors of a network's run from which the maps of one layer are computed: see
/// [`Attention`](crate::Attention).
pub struct Evidence<'a> {
    maker: &'a mut MapMaker,
    layer: Option<(&'a Tensor, &'a Tensor)>,
    guided: Option<&'a Guided>,
    finish: &'a Finish,
    weights_cancel: bool,
}

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
pub(crate) struct Guided(MapValues);

impl Guided {
    /// `gradient` is `(B, C, [D,] H, W)`.
    pub(crate) fn new(maker: &mut MapMaker, gradient: &Tensor) -> Result<Self> {
        maker.channel_mean(gradient).map(Self)
    }
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(
        maker: &'a mut MapMaker,
        layer: Option<(&'a Tensor, &'a Tensor)>,
        guided: Option<&'a Guided>,
        finish: &'a Finish,
    ) -> Self {
        Self { maker, layer, guided, finish, weights_cancel: false }
    }

    /// Sets whether the layer's Grad-CAM weights are known to cancel, which leaves rounding noise.
    pub(crate) fn weights_cancel(self, weights_cancel: bool) -> Self {
        Self { weights_cancel, ..self }
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

    /// The maps of a [`Method`], resampled and normalised: see [`ops::cam`](crate::ops::cam()).
    ///
    /// # Errors
    ///
    /// If activation or gradient is not finite, or is not among the method's needs. Of maps on a GPU
    /// values that are not finite are an error of [`Explainer::explain`](crate::Explainer::explain), which
    /// waits for them.
    pub fn cam(&mut self, method: Method) -> Result<LayerMaps> {
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
        self.resized(maps)
    }

    /// The guided gradient at the input, averaged over its channels, resampled and normalised.
    ///
    /// # Errors
    ///
    /// If it is not finite, or is not among the method's needs.
    pub fn guided(&mut self) -> Result<LayerMaps> {
        let guided = self.guided_gradient()?;
        self.normalized(guided)
    }

    /// The maps of a [`Method`] times the guided gradient, normalised: see
    /// [`ops::guided_cam`](crate::ops::guided_cam()).
    ///
    /// # Errors
    ///
    /// If activation, gradient or guided gradient is not finite, or is not among the method's
    /// needs.
    pub fn guided_cam(&mut self, method: Method) -> Result<LayerMaps> {
        let (activation, gradient) = self.layer()?;
        let guided = self.guided_gradient()?;
        // Without a requested size, the map keeps the input's grid: at the layer's size, the detail
        // of the guided gradient would be lost.
        let to = self.normalized_at().unwrap_or(guided.form().1);
        let normalized = self.finish.compat == Compat::M3dCam;
        let recipe = Recipe { to: None, normalized, ..Recipe::new(method) };
        let layer = self.weighted(&recipe, activation, gradient)?;
        let guided = self.maker.resample(guided.clone(), to)?;
        let product = self.maker.guided_product(layer, &guided)?;
        self.resized(product)
    }

    /// Finishes the maps of a method of your own. `map` is `(B, 1, [D,] H, W)` on any grid; it is
    /// resampled linearly to the requested size, and each sample is normalised.
    ///
    /// # Errors
    ///
    /// If `map` has another shape, or is not finite.
    pub fn finish(&mut self, map: &Tensor) -> Result<LayerMaps> {
        let map = self.maker.values(map)?;
        self.normalized(&map)
    }

    /// The maps of a layer, flagged if their weights cancel. The maps' own test compares magnitudes
    /// and misses noise of a gradient that is small itself, so what is known of the network is
    /// added. This concerns Grad-CAM alone, the only method that averages the gradient.
    fn weighted(
        &mut self,
        recipe: &Recipe,
        activation: &Tensor,
        gradient: &Tensor,
    ) -> Result<LayerMaps> {
        let maps = self.maker.maps(recipe, activation, gradient)?;
        if self.weights_cancel && recipe.method == Method::GradCam {
            let (batch, _) = maps.form();
            return Ok(maps.with_weights_cancel(vec![true; batch]));
        }
        Ok(maps)
    }

    /// Maps on a grid, resampled and normalised.
    fn normalized(&mut self, maps: &MapValues) -> Result<LayerMaps> {
        let to = self.normalized_at().unwrap_or(maps.form().1);
        let gradient = self.layer.map(|(_, gradient)| gradient);
        let maps = self.maker.resample_normalized(maps, to, gradient)?;
        self.resized(maps)
    }

    /// The grid on which maps are normalised; `None` for the grid on which they are computed.
    fn normalized_at(&self) -> Option<[usize; 3]> {
        match self.finish.compat {
            Compat::None => self.finish.size,
            Compat::M3dCam => None,
        }
    }

    /// Brings normalised maps to the requested size.
    fn resized(&mut self, maps: LayerMaps) -> Result<LayerMaps> {
        match self.finish.size {
            Some(to) => self.maker.resized(maps, to),
            None => Ok(maps),
        }
    }

    fn layer(&self) -> Result<(&'a Tensor, &'a Tensor)> {
        self.layer.ok_or_else(|| unasked("activation and gradient of a layer", "layer"))
    }

    fn guided_gradient(&self) -> Result<&'a MapValues> {
        self.guided.map(|guided| &guided.0).ok_or_else(|| unasked("guided gradient", "guided"))
    }
}

impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.layer.map(|(activation, gradient)| (activation.size(), gradient.size()));
        f.debug_struct("Evidence")
            .field("activation_and_gradient", &shapes)
            .field("guided", &self.guided.map(|guided| guided.0.form()))
            .field("size", &self.finish.size)
            .finish_non_exhaustive()
    }
}

fn unasked(what: &str, field: &str) -> Error {
    Error::usage(format!("the method has no {what}: its `needs()` must say `{field}: true`"))
}
