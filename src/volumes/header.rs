//! The size of an image, from the beginning of its file alone.

use std::path::Path;

use image::ImageReader;

use super::affine::Affine;
use super::{npy, open, suffix_of, volume};
use crate::error::{Error, Result};

/// What the header of an image says of its size.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("x.npy");
/// use medcam::volumes::{Card, Header, MapType, write_npy};
///
/// write_npy(&path, &ndarray::ArrayD::zeros(vec![1, 3, 24, 32]), MapType::F32)?;
/// let header = Header::read(&path)?;
/// assert_eq!(header.values(), 3 * 24 * 32);
/// assert_eq!(Card::default().input_shape(&header, Some(2))?, [1, 3, 24, 32]);
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Header {
    /// A NIfTI volume: see [`Volume`](super::Volume).
    #[non_exhaustive]
    Volume {
        /// Values for each voxel.
        channels: usize,
        /// Extents along `i`, `j` and `k`.
        shape: [usize; 3],
        /// From `(i, j, k, 1)` to the scanner's space.
        affine: Affine,
        /// The distance between neighbouring voxels along `i`, `j` and `k`, in millimetres.
        spacing_mm: [f64; 3],
    },
    /// A picture.
    #[non_exhaustive]
    Image {
        /// Values for each pixel, at the most: 3. How many there are shows when it is decoded.
        channels: usize,
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
    /// An array of this shape.
    Array(Vec<usize>),
}

impl Header {
    /// Reads the header of a file that [`read`](super::read) reads.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or its header is damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match suffix_of(path) {
            Some(".npy") => npy::read_shape(path).map(Self::Array),
            Some(".png" | ".jpeg" | ".jpg") => {
                open(path)?;
                let refuse = |error: image::ImageError| Error::file(path, &error).because(error);
                let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
                let reader = reader.map_err(|error| Error::file(path, &error).because(error))?;
                let (width, height) = reader.into_dimensions().map_err(refuse)?;
                Ok(Self::Image { channels: 3, height: height as usize, width: width as usize })
            }
            _ => {
                let (channels, shape, affine, spacing_mm) = volume::read_size(path)?;
                Ok(Self::Volume { channels, shape, affine, spacing_mm })
            }
        }
    }

    /// The number of values of the image.
    pub fn values(&self) -> usize {
        match self {
            Self::Volume { channels, shape, .. } => channels * shape.iter().product::<usize>(),
            Self::Image { channels, height, width } => channels * height * width,
            Self::Array(shape) => shape.iter().product(),
        }
    }
}
