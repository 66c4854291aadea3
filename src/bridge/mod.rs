//! Gives the ops views of libtorch's tensors, on the CPU or a GPU. The only module that knows both.

mod arrays;
#[cfg(feature = "cuda")]
mod gpu;
mod layout;
mod maps;

pub(crate) use arrays::extents;
pub use arrays::{to_array, to_tensor};
pub(crate) use maps::{ChannelMean, MapMaker, alpha_sensitivity, channel_mean};
