//! From the tensors of a layer to its maps, straight from libtorch's memory where the layout allows.

use half::{bf16, f16};
use tch::{Kind, Tensor};

use super::bridge::extents;
#[cfg(feature = "cuda")]
use super::gpu::GpuMaps;
use super::in_libtorch;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::{self, Maps, Method, Recipe, View};
use crate::shape::{Layout, Shape};

/// How many maps there are, and their grid `D, H, W`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grids {
    pub batch: usize,
    pub spatial: [usize; 3],
}

/// Makes the maps of layers where their tensors are, on the CPU or on a GPU.
///
/// Kept from forward to forward, as the stream and the memory of the GPU are in it.
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
        // Grad-CAM alone never needs values of both at one place.
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

/// The mean over the channels of `tensor` `(B, C, [D,] H, W)`: see [`ops::channel_mean`].
pub(crate) fn channel_mean(tensor: &Tensor) -> Result<(Vec<f32>, Grids)> {
    let tensor = in_libtorch("channel_mean", || tensor.f_to_device(tch::Device::Cpu))?;
    let tensor = gapless(&tensor)?;
    let (Shape { batch, spatial, .. }, _) = form(&tensor)?;
    // SAFETY: the tensor is on the CPU, `gapless` made it of one of these types, and it is borrowed
    // while the view lives.
    let mean = unsafe {
        match tensor.kind() {
            Kind::Half => ops::channel_mean(&view::<f16>(&tensor)?),
            Kind::BFloat16 => ops::channel_mean(&view::<bf16>(&tensor)?),
            _ => ops::channel_mean(&view::<f32>(&tensor)?),
        }
    }?;
    Ok((mean, Grids { batch, spatial }))
}

fn typed<T: Element>(recipe: &Recipe, activation: &Tensor, gradient: &Tensor) -> Result<Maps> {
    // SAFETY: both are on the CPU by now, `gapless` made them of type T (the caller matched the kind),
    // and both are borrowed for as long as the views live.
    let (activation, gradient) = unsafe { (view::<T>(activation)?, view::<T>(gradient)?) };
    ops::cam(&activation, &gradient, recipe)
}

/// The tensor as f32, f16 or bf16, with its elements laid out without gaps.
fn gapless(tensor: &Tensor) -> Result<Tensor> {
    in_libtorch("maps", || {
        let tensor = tensor.f_detach()?;
        let tensor = match tensor.kind() {
            Kind::Float | Kind::Half | Kind::BFloat16 => tensor,
            _ => tensor.f_to_kind(Kind::Float)?,
        };
        if layout(&tensor).is_some() { Ok(tensor) } else { tensor.f_contiguous() }
    })
}

/// How a tensor lies in memory, if it is gapless in one of the two ways that the ops know.
fn layout(tensor: &Tensor) -> Option<Layout> {
    let (shape, strides) = (tensor.size(), tensor.stride());
    let matches = |order: &mut dyn Iterator<Item = usize>| {
        let mut expected = 1;
        for axis in order {
            // The stride of an axis of extent 1 is never used, and libtorch sets it freely.
            if shape[axis] != 1 && strides[axis] != expected {
                return false;
            }
            expected *= shape[axis];
        }
        true
    };
    let rank = shape.len();
    if matches(&mut (0..rank).rev()) {
        Some(Layout::Contiguous)
    } else if matches(&mut std::iter::once(1).chain((2..rank).rev()).chain([0])) {
        Some(Layout::ChannelsLast)
    } else {
        None
    }
}

/// The shape of a gapless tensor as the ops count it, and how it lies in memory.
pub(super) fn form(tensor: &Tensor) -> Result<(Shape, Layout)> {
    let extents = extents(tensor);
    let shape = match extents[..] {
        [b, c, h, w] => Shape::new(b, c, [1, h, w])?,
        [b, c, d, h, w] => Shape::new(b, c, [d, h, w])?,
        _ => return Err(Error::input("maps", format!("activation of shape {extents:?}"))),
    };
    let layout =
        layout(tensor).ok_or_else(|| Error::input("maps", "the elements of a tensor have gaps"))?;
    Ok((shape, layout))
}

/// The memory of a tensor as a view.
///
/// # Safety
///
/// The tensor is on the CPU, its elements are of type `T`, and nothing writes to it while the view
/// lives.
unsafe fn view<T: Element>(tensor: &Tensor) -> Result<View<'_, T>> {
    let (shape, layout) = form(tensor)?;
    // SAFETY: a gapless tensor on the CPU has exactly `elements` values of type T behind its data
    // pointer, which libtorch aligns; `Shape::new` keeps their number above 0 and below isize::MAX
    // bytes, since libtorch allocated them; the tensor is borrowed while the slice lives.
    let data = unsafe {
        std::slice::from_raw_parts(tensor.data_ptr().cast::<T>().cast_const(), shape.elements())
    };
    View::new(data, shape, layout)
}
