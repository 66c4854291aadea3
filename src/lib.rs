//! Attention maps (Grad-CAM and kin) of 2D and 3D medical CNNs, for classification and
//! segmentation, at about the price of the inference that you run anyway.
//!
//! ```no_run
//! # #[cfg(all(feature = "torch", feature = "files"))] {
//! use medcam::{Device, Options};
//!
//! # let batch = tch::Tensor::zeros([1, 1, 128, 128, 128], (tch::Kind::Float, tch::Device::Cpu));
//! let model = medcam::load("bbox_model.pt", Device::best())?;
//! let mut model = medcam::inject(model, Options::default().save_maps("attention_maps"))?;
//! let output = model.forward(&batch)?; // the model's own output, bit for bit; maps saved
//! let maps = model.attention_maps();
//! # }
//! # Ok::<(), medcam::Error>(())
//! ```
//!
//! | | feature | |
//! |---|---|---|
//! | `load`, `Explainer`, `Settings`, `Request` | `torch` | TorchScript models, and the core: a batch in, output and maps out |
//! | `inject`, `Options`, `Call` | `torch` and `files` | the core in the manner of M3d-CAM: maps are saved, scored, archived |
//! | `cohort` | `torch` and `files` | the core over many images: reading, inference and writing at the same time |
//! | `Network`, `Tape` | `torch` | both for networks written in Rust |
//! | `volumes` | `files` | NIfTI, PNG and npy in; model cards; maps back onto the image's grid; pictures |
//! | `outputs` | `files` | what a map becomes on disk |
//! | `evaluation` | `files` | maps scored against masks: overlap, pointing game, relevance mass and rank |
//! | `record` | `files` | `run.json` as types |
//! | [`ops`] | | the numerics alone, on slices, without libtorch |
//! | `device` | `cuda` | CUDA devices, for the same numerics on device memory |
//! | `dlpack` | `dlpack` | the numerics on DLPack tensors of either: beneath the C library and the Python package |
//!
//! Features, all on by default: `torch` (everything that runs a network), `cuda` (kernels for NVIDIA
//! devices; building takes no toolkit, and programs run where no driver is), `files` (images in, maps and
//! tables out) and `cli` (the `medcam` program); `dlpack` is not. Nothing but `torch` links libtorch.
//!
//! How it works, and why so: `docs/DESIGN.md` in the repository.

#[cfg(feature = "torch")]
mod bridge;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(all(feature = "torch", feature = "files"))]
pub mod cohort;
#[cfg(any(feature = "torch", feature = "files"))]
mod components;
#[cfg(feature = "cuda")]
pub mod device;
#[cfg(feature = "dlpack")]
pub mod dlpack;
pub mod element;
mod error;
#[cfg(feature = "files")]
pub mod evaluation;
#[cfg(feature = "torch")]
mod explain;
#[cfg(all(feature = "torch", feature = "files"))]
mod inject;
#[cfg(feature = "torch")]
mod methods;
pub mod ops;
#[cfg(feature = "files")]
pub mod outputs;
#[cfg(feature = "files")]
pub mod record;
mod shape;
#[cfg(any(feature = "torch", feature = "files"))]
mod task;
#[cfg(feature = "torch")]
mod torch;
mod vectors;
mod version;
#[cfg(feature = "files")]
pub mod volumes;
#[cfg(any(feature = "torch", feature = "files"))]
mod warning;

#[cfg(feature = "torch")]
pub use bridge::{LayerMaps, to_array, to_tensor};
#[cfg(any(feature = "torch", feature = "files"))]
pub use components::components;
pub use error::{Error, Result};
#[cfg(feature = "torch")]
pub use explain::{
    AttentionMap, Explainer, Explanation, Fuse, MapSize, Request, Settings, Timings,
};
#[cfg(all(feature = "torch", feature = "files"))]
pub use inject::{Call, Injected, Options, inject};
#[cfg(feature = "torch")]
pub use methods::{Attention, Backend, Compat, Evidence, Needs, ScoreAt, Target};
pub use shape::{Layout, Shape};
#[cfg(any(feature = "torch", feature = "files"))]
pub use task::Task;
/// The tensor library beneath, so that callers use the version that this crate is built with.
#[cfg(feature = "torch")]
pub use tch;
#[cfg(feature = "torch")]
pub use torch::{
    Device, Facts, Guide, Layer, LayerChoice, Layers, Model, Network, Output, Precision, Tape,
    TrainingSteps, keep_freed_memory, load,
};
pub use version::VERSION;
#[cfg(any(feature = "torch", feature = "files"))]
pub use warning::Warning;
