//! PNG and JPEG images.

use std::io::BufReader;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader};
use ndarray::{Array3, Axis};

use super::{open, write};
use crate::error::{Error, Result};

/// A 2D image, read from a PNG or JPEG file.
#[derive(Debug, Clone)]
pub struct Image {
    /// `(C, H, W)`, `C` = 1 (gray) or 3 (red, green, blue), values in `0..=1`. Transparency is
    /// dropped.
    pub data: Array3<f32>,
}

impl Image {
    /// Reads an image of 8 or 16 bits per channel.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or decoded.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, _) = open(path)?;
        let reader = ImageReader::new(BufReader::new(file))
            .with_guessed_format()
            .map_err(|error| Error::file(path, format!("cannot read: {error}")).because(error))?;
        let picture = reader
            .decode()
            .map_err(|error| Error::file(path, format!("not an image: {error}")).because(error))?;
        let (height, width) = (picture.height() as usize, picture.width() as usize);
        let (channels, values) = if picture.color().has_color() {
            (3, picture.into_rgb32f().into_raw())
        } else {
            (1, picture.to_luma32f().into_raw())
        };
        let data = Array3::from_shape_vec((height, width, channels), values)
            .map_err(|error| Error::file(path, format!("not an image: {error}")))?;
        Ok(Self { data: data.permuted_axes([2, 0, 1]).as_standard_layout().into_owned() })
    }

    /// `(1, H, W)`: `0.299 R + 0.587 G + 0.114 B` (ITU-R 601, as Pillow's `convert("L")`).
    pub(crate) fn gray(&self) -> Array3<f32> {
        match self.data.dim().0 {
            3 => {
                let weights = [0.299, 0.587, 0.114];
                let channels = self.data.axis_iter(Axis(0)).zip(weights);
                let start = Array3::zeros((1, self.data.dim().1, self.data.dim().2));
                channels.fold(start, |sum, (channel, weight)| sum + &channel.mapv(|v| v * weight))
            }
            _ => self.data.clone(),
        }
    }

    /// `(3, H, W)`: a gray image three times.
    pub(crate) fn rgb(&self) -> Array3<f32> {
        let (_, height, width) = self.data.dim();
        match self.data.broadcast((3, height, width)) {
            Some(gray) if self.data.dim().0 == 1 => gray.to_owned(),
            _ => self.data.clone(),
        }
    }
}

/// Writes a picture as PNG.
///
/// # Errors
///
/// If it cannot be written; the message names the file.
pub fn write_png(path: impl AsRef<Path>, picture: &DynamicImage) -> Result<()> {
    let path = path.as_ref();
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|error| Error::file(path, format!("cannot write: {error}")).because(error))?;
    write::atomically(path, |file| std::io::Write::write_all(file, bytes.get_ref()))
}
