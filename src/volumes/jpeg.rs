//! Detects truncated JPEG files. The decoder of the `image` crate does not report them: it fills in
//! the missing pixels.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, ImageResult};
use zune_core::bytestream::ZCursor;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// The most bytes past the last code that a decoder may read: the size of its bit buffer.
const BIT_BUFFER_BYTES: usize = 8;

/// Whether the file contains all image data that libjpeg (and so Pillow) needs:
///
/// - up to the end marker, if the image has several scans, as progressive ones do;
/// - up to any marker after the data, or a few bytes past the last code, if it has one scan.
///
/// The data itself may still be damaged.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let (mut progressive, mut components) = (false, 0);
    let mut in_only_scan = false;
    let mut position = 2;
    while let Some((marker, after)) = next_marker(bytes, position) {
        position = after;
        match marker {
            END_OF_IMAGE => return true,
            // TEM and restart markers have no segment and do not end a scan.
            0x01 | 0xd0..=0xd7 => continue,
            _ if in_only_scan => return true,
            _ => {}
        }
        let Some(segment) = segment(bytes, position) else { return false };
        position += 2 + segment.len();
        match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                components = segment.get(5).copied().unwrap_or(0);
            }
            START_OF_SCAN => in_only_scan = !progressive && segment.first() == Some(&components),
            _ => {}
        }
    }
    in_only_scan && needs_no_more(bytes)
}

const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

/// The next marker at or after `position`, and the offset just past it. `FF 00` is an escaped data
/// byte.
fn next_marker(bytes: &[u8], position: usize) -> Option<(u8, usize)> {
    let pairs = bytes.get(position..)?.windows(2);
    let found = pairs.enumerate().find(|(_, pair)| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff));
    found.map(|(index, pair)| (pair[1], position + index + 2))
}

/// The segment's content, after its two length bytes; `None` if the file ends within it.
fn segment(bytes: &[u8], position: usize) -> Option<&[u8]> {
    let length = u16::from_be_bytes(*bytes.get(position..)?.first_chunk::<2>()?);
    bytes.get(position + 2..position + usize::from(length.max(2)))
}

/// Whether a single-scan image decodes to the same pixels whatever replaces the last bytes. If so,
/// they hold no image data.
fn needs_no_more(bytes: &[u8]) -> bool {
    let data = &bytes[..bytes.len().saturating_sub(BIT_BUFFER_BYTES)];
    let images = [0x00, 0x55, 0xfe].map(|filler| {
        let filled = [data, &[filler; 64]].concat();
        let options = DecoderOptions::default().set_strict_mode(true);
        JpegDecoder::new_with_options(ZCursor::new(filled), options).decode().ok()
    });
    images[0].is_some() && images.iter().all(|image| image == &images[0])
}

pub(super) fn decode(bytes: &[u8]) -> ImageResult<DynamicImage> {
    image::ImageReader::with_format(Cursor::new(bytes), ImageFormat::Jpeg).decode()
}
