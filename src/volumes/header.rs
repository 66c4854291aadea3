//! The size of an image, from the beginning of its file alone.

use std::path::Path;

use image::ImageReader;

use super::affine::Affine;
use super::{npy, open, suffix_of, volume};
use crate::error::{Error, Result};

/// What the header of an image says of its size.
#[derive(Debug, Clone)]
pub(crate) enum Header {
    /// A NIfTI volume.
    Volume { channels: usize, shape: [usize; 3], affine: Affine, spacing_mm: [f64; 3] },
    /// A picture.
    Image { channels: usize, height: usize, width: usize },
    /// An array of this shape.
    Array(Vec<usize>),
}

impl Header {
    /// Reads the header of a file that [`read`](super::read) reads.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or its header is damaged.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match suffix_of(path) {
            Some(".npy") => npy::read_shape(path).map(Self::Array),
            Some(".png" | ".jpeg" | ".jpg") => {
                open(path)?;
                let refuse = |error: image::ImageError| Error::file(path, &error).because(error);
                let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
                let reader = reader.map_err(|error| Error::file(path, &error).because(error))?;
                let (width, height) = reader.into_dimensions().map_err(refuse)?;
                // Its colours are known only when it is decoded.
                Ok(Self::Image { channels: 3, height: height as usize, width: width as usize })
            }
            _ => volume::read_header(path),
        }
    }

    /// The number of its values.
    pub(crate) fn values(&self) -> usize {
        match self {
            Self::Volume { channels, shape, .. } => channels * shape.iter().product::<usize>(),
            Self::Image { channels, height, width } => channels * height * width,
            Self::Array(shape) => shape.iter().product(),
        }
    }
}
