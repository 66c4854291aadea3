//! Decodes PNG files: their colours, and the integers stored for the pixels.

use std::io::{Cursor, ErrorKind};

use image::{DynamicImage, ImageBuffer};
use ndarray::Array2;
use png::{BitDepth, ColorType, DecodingError};

/// The limit of the `image` crate for the memory of one image.
const MAX_BYTES: usize = 512 << 20;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Decodes the picture, with gray values of fewer than 8 bits stretched to 8. For a gray or palette
/// picture, also returns the stored gray values or palette indices, `(H, W)`.
///
/// The `image` crate returns no indices, and does not verify the checksum of the decompressed data.
pub(super) fn decode(bytes: &[u8]) -> Result<(DynamicImage, Option<Array2<u16>>), String> {
    let limits = png::Limits { bytes: MAX_BYTES };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.ignore_checksums(false);
    let mut reader = decoder.read_info().map_err(message)?;
    let (width, height) = reader.info().size();
    let (color, depth) = (reader.info().color_type, reader.info().bit_depth);
    let channels = if color == ColorType::Indexed { 3 } else { color.samples() };
    let pixel_bytes = channels * if depth == BitDepth::Sixteen { 2 } else { 1 };
    let fits = u64::from(width) * u64::from(height) <= (MAX_BYTES / pixel_bytes) as u64;
    let Some(raw_bytes) = reader.output_buffer_size().filter(|_| fits) else {
        return Err(format!("{width}x{height} pixels take more than {MAX_BYTES} bytes; resize it"));
    };
    let mut raw = vec![0; raw_bytes];
    reader.next_frame(&mut raw).map_err(message)?;

    let stored = |values: Vec<u16>| {
        let gray = !matches!(color, ColorType::Rgb | ColorType::Rgba);
        gray.then(|| Array2::from_shape_vec((height as usize, width as usize), values).ok())
            .flatten()
    };
    let (picture, stored) = if depth == BitDepth::Sixteen {
        let (pairs, _) = raw.as_chunks::<2>();
        let samples: Vec<u16> = pairs.iter().map(|&pair| u16::from_be_bytes(pair)).collect();
        let stored = stored(samples.iter().step_by(color.samples()).copied().collect());
        let picture = match color {
            ColorType::GrayscaleAlpha => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLumaA16)
            }
            ColorType::Rgb => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb16)
            }
            ColorType::Rgba => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgba16)
            }
            _ => ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLuma16),
        };
        (picture, stored)
    } else {
        let samples = unpacked(raw, width as usize, depth as u8);
        let stored =
            stored(samples.iter().step_by(color.samples()).map(|&v| u16::from(v)).collect());
        let picture = match color {
            ColorType::Grayscale => {
                let step = 255 / (255 >> (8 - depth as u8));
                let samples = samples.into_iter().map(|v| v * step).collect();
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLuma8)
            }
            ColorType::Indexed => {
                let palette = reader.info().palette.as_deref().unwrap_or_default();
                let color_of = |&index: &u8| match palette.get(3 * usize::from(index)..) {
                    Some(&[red, green, blue, ..]) => [red, green, blue],
                    // Pillow shows an index outside the palette as black.
                    _ => [0; 3],
                };
                let samples = samples.iter().flat_map(color_of).collect();
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb8)
            }
            ColorType::GrayscaleAlpha => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageLumaA8)
            }
            ColorType::Rgb => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgb8)
            }
            ColorType::Rgba => {
                ImageBuffer::from_raw(width, height, samples).map(DynamicImage::ImageRgba8)
            }
        };
        (picture, stored)
    };
    let picture = picture.ok_or("damaged PNG: its data does not fill its pixels")?;
    Ok((picture, stored))
}

/// One byte per sample, from rows of packed samples that start at whole bytes.
fn unpacked(raw: Vec<u8>, width: usize, bits: u8) -> Vec<u8> {
    if bits == 8 || width == 0 {
        return raw;
    }
    let per_byte = usize::from(8 / bits);
    let rows = raw.chunks_exact(width.div_ceil(per_byte));
    let sample = |row: &[u8], x: usize| {
        // The leftmost pixel is in the highest bits.
        let shift = usize::from(bits) * (per_byte - 1 - x % per_byte);
        row[x / per_byte] >> shift & (255 >> (8 - bits))
    };
    rows.flat_map(|row| (0..width).map(move |x| sample(row, x))).collect()
}

fn message(error: DecodingError) -> String {
    match &error {
        DecodingError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            "truncated: the PNG file ends before its image; copy it again".to_owned()
        }
        DecodingError::LimitsExceeded => {
            format!("more than {MAX_BYTES} bytes of memory are needed")
        }
        _ => format!("damaged PNG: {error}"),
    }
}
