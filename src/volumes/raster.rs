//! PNG and JPEG images.

use std::io::Read;
use std::path::Path;

use image::{DynamicImage, ImageError, ImageFormat};
use ndarray::{Array2, Array3, Axis};

use super::{jpeg, open, png_file, write};
use crate::error::{Error, Result};

/// A 2D image, read from a PNG or JPEG file.
#[derive(Debug, Clone)]
pub struct Image {
    /// `(C, H, W)`, `C` = 1 (gray) or 3 (red, green, blue), values in `0..=1`. Stored integers are
    /// divided by the greatest of their bit depth. Palette indices become colours; transparency is
    /// dropped.
    pub data: Array3<f32>,
    /// The stored gray values or palette indices, `(H, W)`; `None` for a colour picture without a
    /// palette, and for an image that was not read from a file.
    pub(crate) stored: Option<Array2<u16>>,
    /// The stored integer that corresponds to 1 in `data`: 255 or 65535.
    pub(crate) maximum: u16,
}

impl Image {
    /// An image from values in `0..=1`, of shape `(C, H, W)` with `C` = 1 or 3. Where a card or a
    /// mask needs integers, they are `255·value`.
    pub fn new(data: Array3<f32>) -> Self {
        Self { data, stored: None, maximum: 255 }
    }

    /// Reads an image of 1 to 16 bits per channel. An orientation in its EXIF data is not applied.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or decoded, or is cut off or damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut file, _) = open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| Error::file(path, format!("cannot read: {error}")).because(error))?;
        let refuse = |message: String| Error::file(path, message);
        if bytes.starts_with(png_file::SIGNATURE) {
            let (picture, stored) = png_file::decode(&bytes).map_err(refuse)?;
            return Self::of(picture, stored).map_err(refuse);
        }
        if !bytes.starts_with(b"\xff\xd8\xff") {
            return Err(refuse("not an image: neither PNG nor JPEG; save it as PNG".to_owned()));
        }
        if !jpeg::is_whole(&bytes) {
            let message = "truncated: the JPEG file ends before its image; copy it again";
            return Err(refuse(message.to_owned()));
        }
        let picture = jpeg::decode(&bytes).map_err(|error| {
            let message = match &error {
                ImageError::Decoding(_) => format!("damaged JPEG: {error}"),
                _ => format!("not a JPEG that is read: {error}; save it as PNG"),
            };
            refuse(message).because(error)
        })?;
        let stored = match &picture {
            DynamicImage::ImageLuma8(gray) => {
                let values = gray.as_raw().iter().map(|&v| u16::from(v)).collect();
                let shape = (gray.height() as usize, gray.width() as usize);
                Array2::from_shape_vec(shape, values).ok()
            }
            _ => None,
        };
        Self::of(picture, stored).map_err(refuse)
    }

    fn of(picture: DynamicImage, stored: Option<Array2<u16>>) -> Result<Self, String> {
        let (height, width) = (picture.height() as usize, picture.width() as usize);
        let color = picture.color();
        let deep = color.bits_per_pixel() / u16::from(color.channel_count()) > 8;
        let (channels, values) = if color.has_color() {
            (3, picture.into_rgb32f().into_raw())
        } else {
            (1, picture.to_luma32f().into_raw())
        };
        let data = Array3::from_shape_vec((height, width, channels), values)
            .map_err(|error| format!("not an image: {error}"))?;
        let data = data.permuted_axes([2, 0, 1]).as_standard_layout().into_owned();
        Ok(Self { data, stored, maximum: if deep { u16::MAX } else { 255 } })
    }

    /// This image with the stored integers as values: gray values, or red, green and blue.
    pub(crate) fn as_stored(&self) -> Self {
        let data = match &self.stored {
            Some(gray) if self.data.dim().0 == 1 => gray.mapv(f32::from).insert_axis(Axis(0)),
            // Exact: a whole number divided by 255 or 65535 and multiplied again is itself in f32.
            _ => self.data.mapv(|value| value * f32::from(self.maximum)),
        };
        Self { data, ..self.clone() }
    }

    /// The labels of a mask, `(1, H, W)`: the stored integers, except that an image of only black
    /// and white has labels 0 and 1. In 2 or 4 bits, white keeps its integer, which is as likely
    /// the label 3 or 15. Without stored integers, gray values give `255·value`. `None` for a
    /// colour picture without a palette.
    pub(crate) fn labels(&self) -> Option<Array3<f32>> {
        let gray = self.data.dim().0 == 1;
        let few_bits =
            gray && self.stored.iter().flatten().max().is_some_and(|most| [3, 15].contains(most));
        let black_and_white =
            !few_bits && self.data.iter().all(|&value| value == 0.0 || value == 1.0);
        match &self.stored {
            _ if gray && black_and_white => Some(self.data.clone()),
            // The palette maps each index to the same gray value, so index 255 is white: label 1.
            Some(indices) if black_and_white && indices.iter().all(|&i| i == 0 || i == 255) => {
                Some(indices.mapv(|index| f32::from(index / 255)).insert_axis(Axis(0)))
            }
            Some(integers) => Some(integers.mapv(f32::from).insert_axis(Axis(0))),
            None if gray => Some(self.data.mapv(|value| {
                let label = 255.0 * value;
                if (label - label.round()).abs() < 1e-3 { label.round() } else { label }
            })),
            None => None,
        }
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

    /// `(3, H, W)`: a gray image is repeated three times.
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
/// If the file cannot be written; the message names it.
pub fn write_png(path: impl AsRef<Path>, picture: &DynamicImage) -> Result<()> {
    let path = path.as_ref();
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|error| Error::file(path, format!("cannot write: {error}")).because(error))?;
    write::atomically(path, |file| std::io::Write::write_all(file, bytes.get_ref()))
}
