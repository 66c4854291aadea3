//! A tensor of libtorch as a view of the ops, on the CPU or a GPU: the only room that knows both.

mod arrays;
#[cfg(feature = "cuda")]
mod gpu;
mod layout;
mod maps;

pub use arrays::{to_array, to_tensor};
pub(crate) use maps::{ChannelMean, MapMaker, channel_mean};
