//! What one run of a network gives for a map, and the ways from there to the finished map.

use std::fmt;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::ops::{self, Interpolation, Maps, Method, Recipe, guided_product};
use crate::torch::{Grids, MapMaker, channel_mean, to_array};

/// What one run of a network gives for the maps of one layer: see [`Attention`](crate::Attention).
pub struct Evidence<'a> {
    maker: &'a mut MapMaker,
    layer: Option<(&'a Tensor, &'a Tensor)>,
    guided: Option<&'a Guided>,
    /// The size of the maps; that of the layer (of the input, where guided), if `None`.
    size: Option<[usize; 3]>,
}

/// The guided gradient at the input, mean over the input's channels.
#[derive(Debug)]
pub(crate) struct Guided {
    values: Vec<f32>,
    batch: usize,
    spatial: [usize; 3],
}

impl Guided {
    /// `gradient` is `(B, C, [D,] H, W)`.
    pub(crate) fn new(gradient: &Tensor) -> Result<Self> {
        let (values, Grids { batch, spatial }) = channel_mean(gradient)?;
        Ok(Self { values, batch, spatial })
    }
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(
        maker: &'a mut MapMaker,
        layer: Option<(&'a Tensor, &'a Tensor)>,
        guided: Option<&'a Guided>,
        size: Option<[usize; 3]>,
    ) -> Self {
        Self { maker, layer, guided, size }
    }

    /// The activation of the layer, `(B, C, [D,] H, W)`.
    ///
    /// # Errors
    ///
    /// If the method does not say that it [needs](crate::Needs) a layer.
    pub fn activation(&self) -> Result<&'a Tensor> {
        self.layer().map(|(activation, _)| activation)
    }

    /// The gradient of the score with respect to the activation, of the same shape.
    ///
    /// # Errors
    ///
    /// If the method does not say that it [needs](crate::Needs) a layer.
    pub fn gradient(&self) -> Result<&'a Tensor> {
        self.layer().map(|(_, gradient)| gradient)
    }

    /// The maps of a method of the ops, resampled and normalised: see [`ops::cam`](ops::cam()).
    ///
    /// # Errors
    ///
    /// If activation or gradient are not finite, or were not asked for.
    pub fn cam(&mut self, method: Method) -> Result<Maps> {
        let (activation, gradient) = self.layer()?;
        let recipe = Recipe { to: self.size, ..Recipe::new(method) };
        self.maker.maps(&recipe, activation, gradient)
    }

    /// The guided gradient at the input, mean over its channels, resampled and normalised.
    ///
    /// # Errors
    ///
    /// If it is not finite, or was not asked for.
    pub fn guided(&mut self) -> Result<Maps> {
        let Guided { values, batch, spatial } = self.guided_gradient()?;
        finished(values, *batch, *spatial, self.size)
    }

    /// The maps of a method of the ops times the guided gradient, normalised: see
    /// [`ops::guided_cam`](ops::guided_cam()).
    ///
    /// # Errors
    ///
    /// If activation, gradient or guided gradient are not finite, or were not asked for.
    pub fn guided_cam(&mut self, method: Method) -> Result<Maps> {
        let (activation, gradient) = self.layer()?;
        let Guided { values, batch, spatial } = self.guided_gradient()?;
        // Of the layer's size there is nothing to see in a guided gradient.
        let to = self.size.unwrap_or(*spatial);
        let recipe = Recipe { to: None, normalized: false, ..Recipe::new(method) };
        let layer = self.maker.maps(&recipe, activation, gradient)?;
        let resampled;
        let values = if to == *spatial {
            values
        } else {
            resampled = ops::resample(values, *batch, *spatial, to, Interpolation::Linear)?;
            &resampled
        };
        let (values, ranges) = guided_product(&layer.values, values, *batch, layer.spatial, to)?;
        Ok(Maps { values, spatial: to, ranges, ..layer })
    }

    /// Finished maps of a method of your own: `map` is `(B, 1, [D,] H, W)` on any grid; it is
    /// resampled linearly to the size that was asked for, and each sample is normalised.
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
        finished(map.as_slice().unwrap_or(&[]), batch, spatial, self.size)
    }

    fn layer(&self) -> Result<(&'a Tensor, &'a Tensor)> {
        self.layer.ok_or_else(|| unasked("activation and gradient of a layer", "layer"))
    }

    fn guided_gradient(&self) -> Result<&'a Guided> {
        self.guided.ok_or_else(|| unasked("guided gradient", "guided"))
    }
}

impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.layer.map(|(activation, gradient)| (activation.size(), gradient.size()));
        f.debug_struct("Evidence")
            .field("activation_and_gradient", &shapes)
            .field("guided", &self.guided.map(|guided| guided.spatial))
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn unasked(what: &str, field: &str) -> Error {
    Error::usage(format!("the method has no {what}: its `needs()` must say `{field}: true`"))
}

/// Maps on a grid, resampled and normalised.
fn finished(
    values: &[f32],
    batch: usize,
    from: [usize; 3],
    size: Option<[usize; 3]>,
) -> Result<Maps> {
    let spatial = size.unwrap_or(from);
    let (values, ranges) =
        ops::resample::resample_normalized(values, batch, from, spatial, Interpolation::Linear)?;
    Ok(Maps { values, batch, spatial, ranges, weights_cancel: vec![false; batch] })
}
