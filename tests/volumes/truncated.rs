//! Truncated or damaged pictures are refused; whole ones decode to the pixels of the `image` crate.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use medcam::volumes::Image;
use ndarray::Array3;
use proptest::prelude::*;

use super::nibabel::script;

/// The image, or the message with which it is refused.
fn read(bytes: &[u8]) -> Result<Array3<f32>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture");
    std::fs::write(&path, bytes).unwrap();
    Image::read(&path).map(|image| image.data).map_err(|error| error.to_string())
}

fn decoded(bytes: &[u8]) -> Array3<f32> {
    let picture = image::load_from_memory(bytes).unwrap();
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let (channels, values) = match picture.color().has_color() {
        true => (3, picture.into_rgb32f().into_raw()),
        false => (1, picture.to_luma32f().into_raw()),
    };
    let data = Array3::from_shape_vec((height, width, channels), values).unwrap();
    data.permuted_axes([2, 0, 1]).as_standard_layout().into_owned()
}

/// Reproducible noise.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    })
    .take(count)
    .collect()
}

fn picture(width: u32, height: u32, gray: bool) -> DynamicImage {
    let count = (width * height) as usize;
    match gray {
        true => GrayImage::from_raw(width, height, noise(count)).unwrap().into(),
        false => RgbImage::from_raw(width, height, noise(3 * count)).unwrap().into(),
    }
}

fn jpeg(width: u32, height: u32, gray: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    picture(width, height, gray).write_with_encoder(encoder).unwrap();
    bytes
}

fn png(width: u32, height: u32, gray: bool) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture(width, height, gray).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn half_a_jpeg_is_truncated_and_a_tail_does_no_harm() {
    let whole = jpeg(64, 48, false);
    let message = read(&whole[..whole.len() / 2]).unwrap_err();
    assert!(message.contains("truncated"), "{message}");
    let expected = decoded(&whole);
    let without_end = &whole[..whole.len() - 2];
    for tail in [&b""[..], b"tail", &[0; 1000], b"\xff\xd8\xff", &whole] {
        assert_eq!(read(&[&whole[..], tail].concat()).unwrap(), expected);
    }
    // Pillow reads a single-scan image without its end marker, if enough bytes follow.
    assert_eq!(read(&[without_end, &[0; 16]].concat()).unwrap(), expected);
    let half = [&whole[..whole.len() / 2], &[0; 16]].concat();
    assert!(read(&half).unwrap_err().contains("truncated"));
    // Overwrites a Huffman table.
    let mut damaged = whole.clone();
    let table = whole.windows(2).position(|pair| pair == b"\xff\xc4").unwrap();
    damaged[table + 5..table + 21].fill(0xff);
    let message = read(&damaged).unwrap_err();
    assert!(message.contains("damaged JPEG"), "{message}");
}

#[test]
fn checksums_of_a_png_are_held_against_its_data() {
    let whole = png(13, 11, true);
    assert_eq!(read(&whole).unwrap(), decoded(&whole));
    let start = whole.windows(4).position(|word| word == b"IDAT").unwrap();
    let length = u32::from_be_bytes(*whole[start - 4..].first_chunk().unwrap()) as usize;
    for place in [start + 4 + length, start + 4 + length - 1, start + 14] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        let message = read(&damaged).unwrap_err();
        assert!(message.contains("damaged PNG"), "byte {place}: {message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_picture_cut_at_any_byte_is_refused(
        width in 1_u32..40,
        height in 1_u32..40,
        gray in any::<bool>(),
        is_png in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = if is_png { png(width, height, gray) } else { jpeg(width, height, gray) };
        prop_assert_eq!(read(&bytes).unwrap(), decoded(&bytes));
        // A PNG may lack its end marker (12 bytes), as for Pillow and the `image` crate.
        let length = cut.index(bytes.len() - if is_png { 12 } else { 0 });
        let message = read(&bytes[..length]).unwrap_err();
        let said = message.contains("truncated") || (length < 8 && message.contains("not an image"));
        prop_assert!(said, "{length} of {} bytes: {message}", bytes.len());
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn pillow_refuses_and_reads_the_same_files() {
    let Ok(python) = std::env::var("MEDCAM_PYTHON") else {
        println!("skipped: MEDCAM_PYTHON names no Python with Pillow");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let names = script(&python, "pillow_images.py", "cut", folder.path());
    let (mut refused, mut accepted) = (0, 0);
    for line in names.lines() {
        let (name, verdict) = line.split_once(' ').unwrap();
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        match (read(&bytes), verdict) {
            (Ok(data), "read") => {
                accepted += 1;
                assert_eq!(data, decoded(&bytes), "{name}");
            }
            (Err(message), "refused") => {
                refused += 1;
                let said = ["truncated", "not an image", "damaged"];
                assert!(said.iter().any(|said| message.contains(said)), "{name}: {message}");
            }
            (ours, theirs) => panic!("{name}: {theirs} by Pillow, {:?}", ours.map(|d| d.dim())),
        }
    }
    assert!(refused > 500 && accepted > 60, "{refused} {accepted}");
}
