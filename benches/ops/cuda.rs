//! Our arms on a CUDA device.

use std::sync::OnceLock;

use cudarc::driver::sys;
use medcam::device::{Gpu, Plain, Slice, SliceMut, Stream};
use medcam::ops::DeviceView;
use medcam::ops::Resize;
use medcam::tch::{self, Tensor};

use super::case::{Arm, Layer, Scalar, Stored, check_memory};

/// Whether the driver is the one that runs kernels on the host (tests/cuda_on_host): enough to see
/// that everything runs, with `--test`. libtorch knows nothing of it and stays on the CPU.
pub fn on_host() -> bool {
    std::env::var("MEDCAM_ON_HOST").is_ok_and(|value| value == "1")
}

pub fn is_there() -> bool {
    // Asking libtorch also loads its CUDA part.
    Gpu::get(0).is_ok() && (on_host() || medcam::Device::Cuda(0).available().is_ok())
}

/// Where inputs are for arms on the device.
pub fn device() -> tch::Device {
    if on_host() { tch::Device::Cpu } else { tch::Device::Cuda(0) }
}

/// The stream of all our arms, which waits for no other. It lives as long as the process.
pub fn stream() -> sys::CUstream {
    // A pointer, as a number: the driver takes it from any thread.
    static HANDLE: OnceLock<usize> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let stream = Stream::new(Gpu::get(0).unwrap()).unwrap();
        let handle = stream.handle() as usize;
        std::mem::forget(stream);
        handle
    });
    *handle as sys::CUstream
}

/// The same, with scratch memory of its own.
pub fn new_stream() -> Stream {
    // SAFETY: a stream of the first device, which is never destroyed.
    unsafe { Stream::from_raw(Gpu::get(0).unwrap(), stream().cast()) }
}

/// An arm on [`stream()`]; `allocate` makes once what `launch` writes to at each call.
pub fn arm<O: Send + 'static>(
    allocate: impl Fn(&Stream) -> O + Send + 'static,
    launch: impl Fn(&mut Stream, &mut O, &mut [Tensor]) + Send + 'static,
) -> Arm {
    let mut ready = None;
    Box::new(move |inputs| {
        let (stream, outputs) = ready.get_or_insert_with(|| {
            let stream = new_stream();
            let outputs = allocate(&stream);
            (stream, outputs)
        });
        launch(stream, outputs, inputs);
        stream.release_scratch();
        if on_host() {
            stream.synchronize().unwrap();
        }
    })
}

/// From the layer's grid to that of the input.
pub fn resize(layer: Layer) -> Resize {
    Resize { batch: layer.shape.batch, from: layer.shape.spatial, to: layer.input }
}

/// The memory of a tensor on the device.
pub fn slice<T: Stored + Plain>(tensor: &Tensor) -> Slice<'_, T> {
    check_memory::<T>(tensor);
    assert_eq!(tensor.device(), device());
    // SAFETY: a gapless tensor on the device has `numel` values of type T (its kind says so) behind
    // its data pointer, which libtorch aligns. Inputs outlive their case, and the device is
    // synchronised after its last call.
    unsafe { Slice::from_raw(0, tensor.data_ptr() as u64, tensor.numel()) }
}

/// As [`slice()`], to be overwritten.
pub fn slice_mut<T: Stored + Plain>(tensor: &mut Tensor) -> SliceMut<'_, T> {
    let pointer = slice::<T>(tensor).pointer();
    // SAFETY: as in `slice`; no two inputs share memory, and the tensor is borrowed mutably.
    unsafe { SliceMut::from_raw(0, pointer, tensor.numel()) }
}

pub fn view<'a, T: Scalar>(tensor: &'a Tensor, layer: &Layer) -> DeviceView<'a, T> {
    DeviceView::new(slice(tensor), layer.shape, layer.layout).unwrap()
}
