//! Computes maps of tensors, which are read in libtorch's memory if their layout allows.

use half::{bf16, f16};
use tch::{Kind, Tensor};

use super::arrays::{extents, to_array};
#[cfg(feature = "cuda")]
use super::gpu::{self, GpuMaps};
#[cfg(feature = "cuda")]
use super::layer_maps::Negative;
use super::layer_maps::{Facts, LayerMaps};
use super::layout::{gapless, layout, shape_and_layout, view};
use super::readback::Readback;
use super::sensitivity::alpha_sensitivity;
use super::values::MapValues;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::{self, Interpolation, Maps, Method, Recipe, Resize};
use crate::shape::Shape;
use crate::torch::in_libtorch;

/// Computes the maps of layers on the device of their tensors, the CPU or a GPU.
///
/// On a GPU everything is enqueued, and nothing waits. Reused from forward to forward, as it holds the GPU's
/// streams and memory.
#[derive(Debug, Default)]
pub(crate) struct MapMaker {
    #[cfg(feature = "cuda")]
    gpu: GpuMaps,
    /// What the maps of this forward want to know when they are done.
    pub(crate) readback: Readback,
}

impl MapMaker {
    /// The maps of one layer: see [`ops::cam`].
    ///
    /// `activation` and `gradient` are `(B, C, [D,] H, W)` of any floating type, contiguous or
    /// channels-last (anything else is copied once), on one device.
    pub(crate) fn maps(
        &mut self,
        recipe: &Recipe,
        activation: &Tensor,
        gradient: &Tensor,
    ) -> Result<LayerMaps> {
        let activation = gapless(activation)?;
        let gradient = in_libtorch("maps", || gradient.f_to_kind(activation.kind()))?;
        let gradient = gapless(&gradient)?;
        // Grad-CAM alone never combines activation and gradient voxel by voxel; all other methods
        // need both in one layout.
        let (activation, gradient) =
            if recipe.method == Method::GradCam || layout(&activation) == layout(&gradient) {
                (activation, gradient)
            } else {
                in_libtorch("maps", || Ok((activation.f_contiguous()?, gradient.f_contiguous()?)))?
            };
        let is_alpha = matches!(recipe.method, Method::GradCamPlusPlus(_));
        #[cfg(feature = "cuda")]
        {
            let readback = &mut self.readback;
            let made = self.gpu.attempt(&activation, |stream| {
                gpu::cam(stream, recipe, &activation, &gradient, readback)
            })?;
            if let Some(mut made) = made {
                if is_alpha {
                    let least = in_libtorch("maps", || activation.f_min()?.f_to_kind(Kind::Float))?;
                    let least = self.readback.ask(&least)?;
                    made.negative = Some(Negative { least, activation, gradient });
                }
                return Ok(made);
            }
        }
        let on_host =
            |tensor: &Tensor| in_libtorch("maps", || tensor.f_to_device(tch::Device::Cpu));
        let (activation, gradient) = (on_host(&activation)?, on_host(&gradient)?);
        let maps = match activation.kind() {
            Kind::Half => typed::<f16>(recipe, &activation, &gradient),
            Kind::BFloat16 => typed::<bf16>(recipe, &activation, &gradient),
            _ => typed::<f32>(recipe, &activation, &gradient),
        }?;
        let sensitivity = if is_alpha { alpha_sensitivity(&activation, &gradient)? } else { None };
        of_host(maps, sensitivity)
    }

    /// The mean over the channels of `tensor` `(B, C, [D,] H, W)`: see [`ops::channel_mean`].
    pub(crate) fn channel_mean(&mut self, tensor: &Tensor) -> Result<MapValues> {
        let tensor = gapless(tensor)?;
        #[cfg(feature = "cuda")]
        {
            let made = self.gpu.attempt(&tensor, |stream| gpu::channel_mean(stream, &tensor))?;
            if let Some(made) = made {
                return Ok(made);
            }
        }
        let tensor = in_libtorch("channel_mean", || tensor.f_to_device(tch::Device::Cpu))?;
        let (Shape { batch, spatial, .. }, _) = shape_and_layout(&tensor)?;
        // SAFETY: the tensor is on the CPU, `gapless` made it of one of these types, and it is borrowed
        // while the view lives.
        let values = unsafe {
            match tensor.kind() {
                Kind::Half => ops::channel_mean(&view::<f16>(&tensor)?),
                Kind::BFloat16 => ops::channel_mean(&view::<bf16>(&tensor)?),
                _ => ops::channel_mean(&view::<f32>(&tensor)?),
            }
        }?;
        MapValues::of_vec(values, batch, spatial)
    }

    /// Maps `(B, 1, [D,] H, W)` of any type as values, where they are.
    pub(crate) fn values(&mut self, maps: &Tensor) -> Result<MapValues> {
        let (batch, spatial) = match extents(maps)[..] {
            [batch, 1, h, w] => (batch, [1, h, w]),
            [batch, 1, d, h, w] => (batch, [d, h, w]),
            ref shape => {
                return Err(Error::input(
                    "map",
                    format!("shape {shape:?}; a method gives (B, 1, [D,] H, W)"),
                ));
            }
        };
        #[cfg(feature = "cuda")]
        if gpu::ordinal(maps).is_some() {
            let [d, h, w] = spatial.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
            return in_libtorch("map", || {
                let maps = maps.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?;
                Ok(MapValues::on_device(maps.f_reshape([maps.size()[0], 1, d, h, w])?))
            });
        }
        let values = to_array(maps)?;
        MapValues::of_vec(values.into_raw_vec_and_offset().0, batch, spatial)
    }

    /// Maps brought to the grid `to` and normalised: see [`ops::resample::resample_normalized`]. `gradient`
    /// is that of the layer, if they are of one.
    pub(crate) fn resample_normalized(
        &mut self,
        maps: &MapValues,
        to: [usize; 3],
        gradient: Option<&Tensor>,
    ) -> Result<LayerMaps> {
        let (batch, from) = maps.form();
        let resize = Resize { batch, from, to };
        #[cfg(feature = "cuda")]
        if let Some(there) = maps.device() {
            let gradient = gradient.map(gapless).transpose()?;
            let readback = &mut self.readback;
            let made = self.gpu.attempt(there, |stream| {
                gpu::resample_normalized(stream, there, resize, gradient.as_ref(), readback)
            })?;
            if let Some(made) = made {
                return Ok(made);
            }
        }
        let _ = gradient;
        let (values, ranges) = ops::resample::resample_normalized(
            maps.array()?.as_slice().unwrap_or(&[]),
            resize,
            Interpolation::Linear,
        )?;
        of_host(
            Maps { values, batch, spatial: to, ranges, weights_cancel: vec![false; batch] },
            None,
        )
    }

    /// Maps brought to the grid `to`, as they are: see [`ops::resample`](ops::resample()).
    pub(crate) fn resample(&mut self, maps: MapValues, to: [usize; 3]) -> Result<MapValues> {
        let (batch, from) = maps.form();
        if from == to {
            return Ok(maps);
        }
        let resize = Resize { batch, from, to };
        #[cfg(feature = "cuda")]
        if let Some(there) = maps.device() {
            let made = self.gpu.attempt(there, |stream| gpu::resample(stream, there, resize))?;
            if let Some(made) = made {
                return Ok(made);
            }
        }
        let values = maps.array()?.as_slice().unwrap_or(&[]);
        MapValues::of_vec(ops::resample(values, resize, Interpolation::Linear)?, batch, to)
    }

    /// The maps of a layer at another size.
    pub(crate) fn resized(&mut self, maps: LayerMaps, to: [usize; 3]) -> Result<LayerMaps> {
        let values = self.resample(maps.values, to)?;
        Ok(LayerMaps { values, ..maps })
    }

    /// The product of a layer's maps, brought to the grid of guided maps, with these, normalised: see
    /// [`ops::guided_product`](ops::guided_product()).
    pub(crate) fn guided_product(
        &mut self,
        layer: LayerMaps,
        guided: &MapValues,
    ) -> Result<LayerMaps> {
        let ((batch, from), (_, to)) = (layer.form(), guided.form());
        let resize = Resize { batch, from, to };
        let LayerMaps { values, told, weights_cancel, .. } = layer;
        let of = |values, told| LayerMaps { weights_cancel, ..LayerMaps::new(values, told) };
        #[cfg(feature = "cuda")]
        if let (Some(maps), Some(guided)) = (values.device(), guided.device()) {
            let readback = &mut self.readback;
            let made = self.gpu.attempt(maps, |stream| {
                gpu::guided_product(stream, maps, guided, resize, readback)
            })?;
            if let (Some((values, summaries)), Facts::Later(mut all)) = (made, told) {
                all.push(summaries);
                return Ok(of(values, Facts::Later(all)));
            }
            return Err(Error::device("guided_product: the maps are on a device without kernels"));
        }
        let (maps, guided) = (values.array()?, guided.array()?);
        let (maps, guided) = (maps.as_slice().unwrap_or(&[]), guided.as_slice().unwrap_or(&[]));
        let (product, ranges) = ops::guided_product(maps, guided, resize)?;
        let told = match told {
            Facts::Now { weights_cancel, .. } => {
                Facts::Now { ranges, weights_cancel, sensitivity: None }
            }
            #[cfg(feature = "cuda")]
            Facts::Later(_) => return Err(Error::device("guided_product: maps on two devices")),
        };
        Ok(of(MapValues::of_vec(product, batch, to)?, told))
    }
}

fn of_host(maps: Maps, sensitivity: Option<Vec<f32>>) -> Result<LayerMaps> {
    let Maps { values, batch, spatial, ranges, weights_cancel } = maps;
    let values = MapValues::of_vec(values, batch, spatial)?;
    Ok(LayerMaps::new(values, Facts::Now { ranges, weights_cancel, sensitivity }))
}

fn typed<T: Element>(recipe: &Recipe, activation: &Tensor, gradient: &Tensor) -> Result<Maps> {
    // SAFETY: both are on the CPU by now, `gapless` made them of type T (the caller matched the
    // kind), and both are borrowed for as long as the views live.
    let (activation, gradient) = unsafe { (view::<T>(activation)?, view::<T>(gradient)?) };
    ops::cam(&activation, &gradient, recipe)
}
