//! Attention maps (Grad-CAM and kin) of 2D and 3D medical CNNs, for classification and
//! segmentation, at about the price of the inference that you run anyway.

pub mod element;
mod error;
pub mod ops;
mod shape;
pub mod volumes;

pub use error::{Error, Result};
pub use shape::{Layout, Shape};
