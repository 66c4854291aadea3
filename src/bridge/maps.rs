//! Computes maps of tensors, which are read in libtorch's memory if their layout allows.

use half::{bf16, f16};
use tch::{Kind, Tensor};

#[cfg(feature = "cuda")]
use super::gpu::GpuMaps;
use super::layout::{gapless, layout, shape_and_layout};
use crate::element::Element;
use crate::error::Result;
use crate::ops::{self, Maps, Method, Recipe, View};
use crate::shape::Shape;
use crate::torch::in_libtorch;

/// Computes the maps of layers on the device of their tensors, the CPU or a GPU.
///
/// Reused from forward to forward, as it holds the GPU's stream and memory.
#[derive(Debug, Default)]
pub(crate) struct MapMaker {
    #[cfg(feature = "cuda")]
    gpu: GpuMaps,
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
    ) -> Result<Maps> {
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
        #[cfg(feature = "cuda")]
        if let tch::Device::Cuda(ordinal) = activation.device()
            && let Some(maps) = self.gpu.maps(ordinal, recipe, &activation, &gradient)?
        {
            return Ok(maps);
        }
        let on_host =
            |tensor: &Tensor| in_libtorch("maps", || tensor.f_to_device(tch::Device::Cpu));
        let (activation, gradient) = (on_host(&activation)?, on_host(&gradient)?);
        match activation.kind() {
            Kind::Half => typed::<f16>(recipe, &activation, &gradient),
            Kind::BFloat16 => typed::<bf16>(recipe, &activation, &gradient),
            _ => typed::<f32>(recipe, &activation, &gradient),
        }
    }
}

/// How sensitive to rounding each sample's map of Grad-CAM++ is, `(B)`: see
/// [`ops::alpha_weights::sensitivity`]. `None` where no activation is negative: then it is not.
///
/// Of tensors on a GPU those with a negative activation are copied to the CPU.
pub(crate) fn alpha_sensitivity(
    activation: &Tensor,
    gradient: &Tensor,
) -> Result<Option<Vec<f32>>> {
    let is_negative =
        in_libtorch("alpha_sensitivity", || activation.f_min()?.f_double_value(&[]))? < 0.0;
    if !is_negative {
        return Ok(None);
    }
    let on_host = |tensor: &Tensor| {
        let kind = if activation.kind() == Kind::Double { Kind::Float } else { activation.kind() };
        in_libtorch("alpha_sensitivity", || {
            tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(kind)?.f_contiguous()
        })
    };
    let (activation, gradient) = (on_host(activation)?, on_host(gradient)?);
    // SAFETY: both are on the CPU, without gaps and of the type that is matched, and both are borrowed while
    // the views live.
    let sensitivity = unsafe {
        match activation.kind() {
            Kind::Half => {
                ops::alpha_weights::sensitivity::<f16>(&view(&activation)?, &view(&gradient)?)
            }
            Kind::BFloat16 => {
                ops::alpha_weights::sensitivity::<bf16>(&view(&activation)?, &view(&gradient)?)
            }
            _ => ops::alpha_weights::sensitivity::<f32>(&view(&activation)?, &view(&gradient)?),
        }
    }?;
    Ok(Some(sensitivity))
}

/// A mean over channels, `(B, D, H, W)`.
#[derive(Debug)]
pub(crate) struct ChannelMean {
    pub values: Vec<f32>,
    pub batch: usize,
    /// `D, H, W`; 2D has `D = 1`.
    pub spatial: [usize; 3],
}

/// The mean over the channels of `tensor` `(B, C, [D,] H, W)`: see [`ops::channel_mean`].
pub(crate) fn channel_mean(tensor: &Tensor) -> Result<ChannelMean> {
    let tensor = in_libtorch("channel_mean", || tensor.f_to_device(tch::Device::Cpu))?;
    let tensor = gapless(&tensor)?;
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
    Ok(ChannelMean { values, batch, spatial })
}

fn typed<T: Element>(recipe: &Recipe, activation: &Tensor, gradient: &Tensor) -> Result<Maps> {
    // SAFETY: both are on the CPU by now, `gapless` made them of type T (the caller matched the
    // kind), and both are borrowed for as long as the views live.
    let (activation, gradient) = unsafe { (view::<T>(activation)?, view::<T>(gradient)?) };
    ops::cam(&activation, &gradient, recipe)
}

/// The memory of a tensor as a view.
///
/// # Safety
///
/// The tensor is on the CPU, its elements are of type `T`, and nothing writes to it while the view
/// lives.
unsafe fn view<T: Element>(tensor: &Tensor) -> Result<View<'_, T>> {
    let (shape, layout) = shape_and_layout(tensor)?;
    // SAFETY: a gapless tensor on the CPU has exactly `elements` values of type T behind its data
    // pointer, which libtorch aligns; `Shape::new` keeps their number above 0 and below isize::MAX
    // bytes, since libtorch allocated them; the tensor is borrowed while the slice lives.
    let data = unsafe {
        std::slice::from_raw_parts(tensor.data_ptr().cast::<T>().cast_const(), shape.elements())
    };
    View::new(data, shape, layout)
}
