//! Gives the ops views of libtorch's tensors, on the CPU or a GPU. The only module that knows both.

mod arrays;
#[cfg(feature = "cuda")]
mod gpu;
mod layer_maps;
mod layout;
mod maps;
mod readback;
mod sensitivity;
mod values;

pub(crate) use arrays::{extents, upload};
pub use arrays::{to_array, to_tensor};
pub(crate) use layer_maps::FinishedMaps;
pub use layer_maps::LayerMaps;
pub(crate) use maps::MapMaker;
pub(crate) use readback::{Fetched, Readback, Slot, Told};
pub(crate) use values::MapValues;

/// Whether a tensor is on a device, where asking for a value waits for all that is under way.
pub(crate) fn is_on_device(tensor: &tch::Tensor) -> bool {
    #[cfg(feature = "cuda")]
    return gpu::ordinal(tensor).is_some();
    #[cfg(not(feature = "cuda"))]
    return tensor.device() != tch::Device::Cpu;
}
