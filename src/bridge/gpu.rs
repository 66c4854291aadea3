//! Computes maps of tensors on a GPU: our kernels, on libtorch's own stream and memory.

use half::{bf16, f16};
use tch::{Kind, Tensor};

use super::layout::shape_and_layout;
use crate::device::{Buffer, Gpu, Slice, Stream};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::{DeviceView, Maps, Recipe, fused};
use crate::torch::current_cuda_stream;

/// State that is kept between calls: the stream with its scratch memory, and a buffer for the
/// finished map.
#[derive(Debug, Default)]
pub(super) struct GpuMaps {
    stream: Option<Stream>,
    map: Option<Buffer<f32>>,
    /// Whether a missing driver or NVRTC was reported.
    warned: bool,
}

impl GpuMaps {
    /// The maps of one layer, computed on device `ordinal`; `None` if kernels cannot be compiled or
    /// launched, so that the CPU must compute the maps.
    ///
    /// Both tensors are gapless, of one floating type of the ops, and on that device.
    pub(super) fn maps(
        &mut self,
        ordinal: usize,
        recipe: &Recipe,
        activation: &Tensor,
        gradient: &Tensor,
    ) -> Result<Option<Maps>> {
        let made = match activation.kind() {
            Kind::Half => self.typed::<f16>(ordinal, recipe, activation, gradient),
            Kind::BFloat16 => self.typed::<bf16>(ordinal, recipe, activation, gradient),
            _ => self.typed::<f32>(ordinal, recipe, activation, gradient),
        };
        match made {
            Ok(maps) => Ok(Some(maps)),
            Err(error) if error.is_unavailable() => {
                if !self.warned {
                    tracing::warn!(
                        "maps are made on the CPU, though the model is on a GPU: {error}"
                    );
                    self.warned = true;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn typed<T: Element>(
        &mut self,
        ordinal: usize,
        recipe: &Recipe,
        activation: &Tensor,
        gradient: &Tensor,
    ) -> Result<Maps> {
        self.follow_libtorch(ordinal)?;
        let (shape, _) = shape_and_layout(activation)?;
        let spatial = recipe.to.unwrap_or(shape.spatial);
        let length = shape.batch * spatial.iter().product::<usize>();
        let Self { stream: Some(stream), map, .. } = self else {
            return Err(Error::device("no stream"));
        };
        if map.as_ref().is_none_or(|map| map.len() < length) {
            *map = None;
            *map = Some(stream.allocate(length)?);
        }
        let Some(map) = map else { return Err(Error::device("no memory for the map")) };
        // SAFETY: the caller vouches for device and type; the tensors stay, and nothing writes to
        // them, until `finish` has waited for the kernels, on the stream on which libtorch wrote
        // them.
        let (activation, gradient) =
            unsafe { (view::<T>(ordinal, activation)?, view::<T>(ordinal, gradient)?) };
        let room = map.slice_mut().split_at(length)?.0;
        let pending = fused::cuda::cam(stream, &activation, &gradient, recipe, room)?;
        let fused::Summary { ranges, weights_cancel } = pending.finish()?;
        let values = stream.download(map.slice().part(0..length)?)?;
        Ok(Maps { values, batch: shape.batch, spatial, ranges, weights_cancel })
    }

    /// Replaces `stream` by libtorch's current stream, unless it is that one already.
    fn follow_libtorch(&mut self, ordinal: usize) -> Result<()> {
        let handle = current_cuda_stream(ordinal)?;
        let current =
            |stream: &Stream| stream.gpu().ordinal() == ordinal && stream.handle() == handle;
        if !self.stream.as_ref().is_some_and(current) {
            // The buffer belongs to the old stream's device; dropping it waits for kernels that
            // still run.
            self.map = None;
            // SAFETY: libtorch's streams are of the primary context, and it never destroys them.
            self.stream = Some(unsafe { Stream::from_raw(Gpu::get(ordinal)?, handle) });
        }
        Ok(())
    }
}

/// The memory of a tensor as a view.
///
/// # Safety
///
/// The tensor is on device `ordinal`, its elements are of type `T`, and it stays, with nothing
/// writing to it, until the launches that read the view are done.
unsafe fn view<T: Element>(ordinal: usize, tensor: &Tensor) -> Result<DeviceView<'_, T>> {
    let (shape, layout) = shape_and_layout(tensor)?;
    // SAFETY: a gapless tensor has exactly `elements` values of type T behind its data pointer,
    // which libtorch aligns; the caller vouches for the rest.
    let data = unsafe { Slice::from_raw(ordinal, tensor.data_ptr() as u64, shape.elements()) };
    DeviceView::new(data, shape, layout)
}
