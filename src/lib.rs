//! Attention maps (Grad-CAM and kin) of 2D and 3D medical CNNs, for classification and
//! segmentation, at about the price of the inference that you run anyway.

#[cfg(feature = "cli")]
pub mod cli;
pub mod element;
mod error;
#[cfg(feature = "torch")]
mod inject;
#[cfg(feature = "torch")]
mod methods;
pub mod ops;
mod shape;
#[cfg(feature = "torch")]
mod torch;
pub mod volumes;

pub use error::{Error, Result};
#[cfg(feature = "torch")]
pub use inject::{AttentionMap, Injected, MapSize, Options, Timings, Warning, inject};
#[cfg(feature = "torch")]
pub use methods::{Backend, ScoreAt, Target};
pub use shape::{Layout, Shape};
/// The tensor library beneath, so that callers use the version that this crate is built with.
#[cfg(feature = "torch")]
pub use tch;
#[cfg(feature = "torch")]
pub use torch::{
    Device, Facts, Layer, LayerChoice, Layers, Model, Network, Tape, Task, keep_freed_memory, load,
    to_array, to_tensor,
};
