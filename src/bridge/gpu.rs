//! Computes maps of tensors on a GPU: our kernels, on libtorch's own stream and memory. Everything here
//! is enqueued, and nothing waits.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use tch::{Kind, Tensor};

use super::layer_maps::{Facts, LayerMaps, Summaries};
use super::layout::shape_and_layout;
use super::readback::Readback;
use super::values::MapValues;
use crate::device::{Allocator, Gpu, Slice, SliceMut, Stream};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::fused::cuda::{self as chains, Pending};
use crate::ops::resample::cuda::resample_into;
use crate::ops::summary::SampleSummary;
use crate::ops::{DeviceView, Interpolation, Recipe, Resize};
use crate::torch::{current_cuda_stream, in_libtorch};

/// Streams that are kept with their scratch memory: libtorch has one for each device, and those that a
/// caller makes current.
const MOST_STREAMS: usize = 8;

/// What is kept between calls: libtorch's streams that were current, with their scratch memory.
#[derive(Debug, Default)]
pub(super) struct GpuMaps {
    streams: Vec<Stream>,
    /// Devices without a driver or NVRTC that fits: their maps are made on the CPU.
    unusable: Vec<usize>,
}

/// The number of the device that a tensor is on, if kernels can read it there.
///
/// In a process of the tests with the driver that runs kernels on the host, tensors on the CPU are in the
/// memory of its device 0.
pub(super) fn ordinal(tensor: &Tensor) -> Option<usize> {
    match tensor.device() {
        tch::Device::Cuda(ordinal) => Some(ordinal),
        tch::Device::Cpu => is_on_host().then_some(0),
        _ => None,
    }
}

/// Whether kernels run on the host: asked for, and by the driver that does so.
fn is_on_host() -> bool {
    std::env::var_os("MEDCAM_ON_HOST").is_some_and(|value| value == "1")
        && Gpu::get(0).is_ok_and(|gpu| gpu.name() == "CUDA on the host")
}

impl GpuMaps {
    /// What `launch` enqueues on libtorch's stream of the device of `tensor`; `None` if that is no GPU, or
    /// kernels cannot be compiled or launched there, so that the CPU must do it.
    pub(super) fn attempt<R>(
        &mut self,
        tensor: &Tensor,
        launch: impl FnOnce(&mut Stream) -> Result<R>,
    ) -> Result<Option<R>> {
        let Some(ordinal) = ordinal(tensor).filter(|own| !self.unusable.contains(own)) else {
            return Ok(None);
        };
        let launched = self.stream(ordinal).and_then(|stream| {
            let launched = launch(stream)?;
            if is_on_host() {
                // libtorch does not know of that stream, and reads what is there.
                stream.synchronize()?;
            }
            Ok(launched)
        });
        match launched {
            Err(error) if error.is_unavailable() => {
                tracing::warn!("maps are made on the CPU, though the model is on a GPU: {error}");
                self.unusable.push(ordinal);
                Ok(None)
            }
            launched => launched.map(Some),
        }
    }

    /// libtorch's current stream of a device.
    fn stream(&mut self, ordinal: usize) -> Result<&mut Stream> {
        let handle =
            if is_on_host() { std::ptr::null_mut() } else { current_cuda_stream(ordinal)? };
        let is_current =
            |stream: &Stream| stream.gpu().ordinal() == ordinal && stream.handle() == handle;
        let index = match self.streams.iter().position(is_current) {
            Some(index) => index,
            None => {
                let gpu = Gpu::get(ordinal)?;
                if self.streams.len() == MOST_STREAMS {
                    self.streams.remove(0);
                }
                // SAFETY: libtorch's streams are of the primary context, and it never destroys them.
                let stream = unsafe { Stream::from_raw(gpu, handle) };
                self.streams.push(if is_on_host() {
                    stream
                } else {
                    stream.with_allocator(Arc::new(Libtorch::new(ordinal)))
                });
                self.streams.len() - 1
            }
        };
        self.streams.get_mut(index).ok_or_else(|| Error::device("no stream"))
    }
}

/// Memory of libtorch's caching allocator: what it has cached is not free to the driver, and what it gets
/// back goes to later work of the same stream, without a wait.
struct Libtorch {
    device: tch::Device,
    in_use: Mutex<HashMap<u64, Tensor>>,
}

impl Libtorch {
    fn new(ordinal: usize) -> Self {
        Self { device: tch::Device::Cuda(ordinal), in_use: Mutex::default() }
    }
}

// SAFETY: the memory of a tensor that nobody else has, kept until it is freed. libtorch aligns it to 512
// bytes, and gives it, while it is asked for on the stream that is current, to later work of that stream.
unsafe impl Allocator for Libtorch {
    fn allocate(
        &self,
        bytes: usize,
        _stream: *mut c_void,
    ) -> Result<u64, Box<dyn StdError + Send + Sync>> {
        let bytes = i64::try_from(bytes)?;
        let memory = Tensor::f_empty([bytes], (Kind::Uint8, self.device))?;
        let pointer = memory.data_ptr() as u64;
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).insert(pointer, memory);
        Ok(pointer)
    }

    unsafe fn free(&self, pointer: u64, _bytes: usize) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&pointer);
    }
}

/// The maps of one layer, enqueued: `(B, 1, D', H', W')`.
///
/// Both tensors are gapless, of one floating type of the ops, and on the stream's device.
pub(super) fn cam(
    stream: &mut Stream,
    recipe: &Recipe,
    activation: &Tensor,
    gradient: &Tensor,
    readback: &mut Readback,
) -> Result<LayerMaps> {
    match activation.kind() {
        Kind::Half => typed_cam::<f16>(stream, recipe, activation, gradient, readback),
        Kind::BFloat16 => typed_cam::<bf16>(stream, recipe, activation, gradient, readback),
        _ => typed_cam::<f32>(stream, recipe, activation, gradient, readback),
    }
}

fn typed_cam<T: Element>(
    stream: &mut Stream,
    recipe: &Recipe,
    activation: &Tensor,
    gradient: &Tensor,
    readback: &mut Readback,
) -> Result<LayerMaps> {
    let (shape, _) = shape_and_layout(activation)?;
    let out = new_maps(shape.batch, recipe.to.unwrap_or(shape.spatial), activation)?;
    let ordinal = stream.gpu().ordinal();
    // SAFETY: `activation` and `gradient` are of this device and type, as the caller promises, and `out` is
    // new. Launches come before whatever libtorch gives their memory to later, in the order of its stream.
    let (activation, gradient, map) = unsafe {
        let views = (view::<T>(ordinal, activation)?, view::<T>(ordinal, gradient)?);
        (views.0, views.1, floats_mut(ordinal, &out))
    };
    let pending = chains::cam(stream, &activation, &gradient, recipe, map)?;
    let summaries = summarized(pending, Some(&gradient), shape.batch, &out, readback)?;
    Ok(LayerMaps::new(MapValues::on_device(out), Facts::Later(vec![summaries])))
}

/// The mean over the channels of a gapless tensor, enqueued: `(B, 1, D, H, W)`.
pub(super) fn channel_mean(stream: &mut Stream, tensor: &Tensor) -> Result<MapValues> {
    match tensor.kind() {
        Kind::Half => typed_mean::<f16>(stream, tensor),
        Kind::BFloat16 => typed_mean::<bf16>(stream, tensor),
        _ => typed_mean::<f32>(stream, tensor),
    }
}

fn typed_mean<T: Element>(stream: &mut Stream, tensor: &Tensor) -> Result<MapValues> {
    let (shape, _) = shape_and_layout(tensor)?;
    let out = new_maps(shape.batch, shape.spatial, tensor)?;
    let ordinal = stream.gpu().ordinal();
    // SAFETY: as in `typed_cam`.
    let (tensor, map) = unsafe { (view::<T>(ordinal, tensor)?, floats_mut(ordinal, &out)) };
    chains::channel_mean(stream, &tensor, map)?;
    Ok(MapValues::on_device(out))
}

/// Maps brought to another grid and normalised, enqueued. `maps` is `(B, 1, D, H, W)`, f32 and gapless;
/// `gradient`, if there is one, that of the layer, gapless.
pub(super) fn resample_normalized(
    stream: &mut Stream,
    maps: &Tensor,
    resize: Resize,
    gradient: Option<&Tensor>,
    readback: &mut Readback,
) -> Result<LayerMaps> {
    let out = new_maps(resize.batch, resize.to, maps)?;
    let ordinal = stream.gpu().ordinal();
    // SAFETY: as in `typed_cam`.
    let (map, new) = unsafe { (floats(ordinal, maps), floats_mut(ordinal, &out)) };
    let pending = chains::resample_normalized(stream, map, resize, new)?;
    let batch = resize.batch;
    // SAFETY: as in `typed_cam`; the type is that of the tensor.
    let summaries = unsafe {
        match gradient {
            None => summarized::<f32>(pending, None, batch, &out, readback),
            Some(g) => match g.kind() {
                Kind::Half => {
                    summarized(pending, Some(&view::<f16>(ordinal, g)?), batch, &out, readback)
                }
                Kind::BFloat16 => {
                    summarized(pending, Some(&view::<bf16>(ordinal, g)?), batch, &out, readback)
                }
                _ => summarized(pending, Some(&view::<f32>(ordinal, g)?), batch, &out, readback),
            },
        }
    }?;
    Ok(LayerMaps::new(MapValues::on_device(out), Facts::Later(vec![summaries])))
}

/// Maps brought to another grid, as they are, enqueued.
pub(super) fn resample(stream: &mut Stream, maps: &Tensor, resize: Resize) -> Result<MapValues> {
    let out = new_maps(resize.batch, resize.to, maps)?;
    let ordinal = stream.gpu().ordinal();
    // SAFETY: as in `typed_cam`.
    let (map, new) = unsafe { (floats(ordinal, maps), floats_mut(ordinal, &out)) };
    stream.release_scratch();
    resample_into(stream, map, resize, Interpolation::Linear, None, new)?;
    Ok(MapValues::on_device(out))
}

/// The product of maps, brought to the grid of guided maps, with these, normalised, enqueued. Returns it with
/// its summaries.
pub(super) fn guided_product(
    stream: &mut Stream,
    maps: &Tensor,
    guided: &Tensor,
    resize: Resize,
    readback: &mut Readback,
) -> Result<(MapValues, Summaries)> {
    let out = new_maps(resize.batch, resize.to, maps)?;
    let ordinal = stream.gpu().ordinal();
    // SAFETY: as in `typed_cam`.
    let (map, guided, new) =
        unsafe { (floats(ordinal, maps), floats(ordinal, guided), floats_mut(ordinal, &out)) };
    let pending = chains::guided_product(stream, map, guided, resize, new)?;
    let summaries = summarized::<f32>(pending, None, resize.batch, &out, readback)?;
    Ok((MapValues::on_device(out), summaries))
}

/// Enqueues what a chain tells of its maps, in memory of libtorch's on the device of `like`, and asks for it.
fn summarized<T: Element>(
    pending: Pending<'_>,
    gradient: Option<&DeviceView<T>>,
    batch: usize,
    like: &Tensor,
    readback: &mut Readback,
) -> Result<Summaries> {
    let words = empty(&[batch, SampleSummary::WORDS], Kind::Int, like)?;
    let ordinal = ordinal(like).unwrap_or(0);
    // SAFETY: as in `typed_cam`; the tensor has the words of `batch` summaries.
    let summaries = unsafe { SliceMut::<SampleSummary>::from_raw(ordinal, address(&words), batch) };
    let reader = pending.summarize(gradient, summaries)?;
    let slot = readback.ask(&words)?;
    Ok(Summaries { reader, words, slot })
}

fn new_maps(batch: usize, [d, h, w]: [usize; 3], like: &Tensor) -> Result<Tensor> {
    empty(&[batch, 1, d, h, w], Kind::Float, like)
}

fn empty(extents: &[usize], kind: Kind, like: &Tensor) -> Result<Tensor> {
    let size: Vec<i64> =
        extents.iter().map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect();
    in_libtorch("maps", || Tensor::f_empty(&size, (kind, like.device())))
}

fn address(tensor: &Tensor) -> u64 {
    tensor.data_ptr() as u64
}

/// The memory of a tensor of f32.
///
/// # Safety
///
/// The tensor is on device `ordinal`, gapless and of f32; it stays, with nothing writing to it, until the
/// launches that read the slice are done.
unsafe fn floats(ordinal: usize, tensor: &Tensor) -> Slice<'_, f32> {
    // SAFETY: by the caller's word.
    unsafe { Slice::from_raw(ordinal, address(tensor), tensor.numel()) }
}

/// The memory of a new tensor of f32.
///
/// # Safety
///
/// As for [`floats`], and nothing else reads or writes it until the launches that write it are done.
unsafe fn floats_mut(ordinal: usize, tensor: &Tensor) -> SliceMut<'_, f32> {
    // SAFETY: by the caller's word.
    unsafe { SliceMut::from_raw(ordinal, address(tensor), tensor.numel()) }
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
    let data = unsafe { Slice::from_raw(ordinal, address(tensor), shape.elements()) };
    DeviceView::new(data, shape, layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_tensors_until_it_is_freed() {
        let pool = Libtorch { device: tch::Device::Cpu, in_use: Mutex::default() };
        let count = || pool.in_use.lock().unwrap_or_else(PoisonError::into_inner).len();
        let [first, second] =
            [1000, 24].map(|bytes| pool.allocate(bytes, std::ptr::null_mut()).unwrap());
        assert!(first != 0 && second != 0 && first != second);
        assert_eq!(count(), 2);
        // SAFETY: allocated above, and freed once.
        unsafe { pool.free(first, 1000) };
        assert_eq!(count(), 1);
        let error = pool.allocate(usize::MAX, std::ptr::null_mut()).unwrap_err();
        assert!(error.to_string().contains("out of range"), "{error}");
        // SAFETY: as above.
        unsafe { pool.free(second, 24) };
        assert_eq!(count(), 0);
    }
}
