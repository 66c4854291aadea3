//! Masks from pictures keep the integers in the file.

use medcam::evaluation::pair;
use medcam::volumes::{Card, Image, Input, read, read_npy};
use ndarray::{Array3, ArrayD, Ix2};
use png::{BitDepth, ColorType};

use super::nibabel::script;

/// Writes a PNG with these packed rows, and reads it.
fn picture(width: u32, rows: &[&[u8]], color: ColorType, depth: BitDepth) -> Input {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.png");
    let height = u32::try_from(rows.len()).unwrap();
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        // A palette in the manner of Pascal VOC, where label 1 is dark red.
        let mut palette = vec![0; 3 * if depth == BitDepth::Eight { 256 } else { 4 }];
        palette[3] = 128;
        palette[7] = 128;
        encoder.set_palette(palette);
    }
    encoder.write_header().unwrap().write_image_data(&rows.concat()).unwrap();
    read(&path).unwrap()
}

fn labels(mask: &Input) -> Vec<f32> {
    let Input::Image(image) = mask else { panic!("{mask:?}") };
    let (_, height, width) = image.data.dim();
    let map = Input::Image(Image::new(Array3::from_elem((1, height, width), 0.5)));
    let (_, voxels) = pair(&map, mask).unwrap();
    // `prepare_mask` gives the same labels on the image's own grid.
    let grid = Card::default().prepare(&map, Some(2)).unwrap().grid;
    let region = grid.prepare_mask(mask, grid.map_size()).unwrap();
    assert_eq!(region.iter().collect::<Vec<_>>(), voxels.iter().collect::<Vec<_>>());
    voxels.iter().copied().collect()
}

#[test]
fn labels_are_the_integers_in_the_file() {
    use BitDepth::{Eight, Four, One, Sixteen, Two};
    use ColorType::{Grayscale, GrayscaleAlpha, Indexed};
    let wide: &[u8] = &[0, 0, 0, 1, 0, 2, 1, 1];
    assert_eq!(labels(&picture(4, &[wide], Grayscale, Sixteen)), [0., 1., 2., 257.]);
    assert_eq!(labels(&picture(2, &[&[0, 0, 0, 1]], Grayscale, Sixteen)), [0., 1.]);
    assert_eq!(labels(&picture(3, &[&[0, 1, 7]], Grayscale, Eight)), [0., 1., 7.]);
    assert_eq!(labels(&picture(2, &[&[5, 255, 6, 0]], GrayscaleAlpha, Eight)), [5., 6.]);
    assert_eq!(labels(&picture(4, &[&[0b0001_1011]], Grayscale, Two)), [0., 1., 2., 3.]);
    assert_eq!(labels(&picture(3, &[&[0x0f, 0x20]], Grayscale, Four)), [0., 15., 2.]);
    assert_eq!(
        labels(&picture(3, &[&[0x01, 0x30], &[0x20, 0x10]], Indexed, Four)),
        [0., 1., 3., 2., 0., 1.]
    );
    assert_eq!(labels(&picture(4, &[&[0b0001_1011]], Indexed, Two)), [0., 1., 2., 3.]);
    assert_eq!(labels(&picture(3, &[&[0b0100_0000]], Indexed, One)), [0., 1., 0.]);
    assert_eq!(labels(&picture(3, &[&[0, 1, 255]], Indexed, Eight)), [0., 1., 255.]);
}

#[test]
fn black_and_white_is_0_and_1() {
    use BitDepth::{Eight, Four, One, Sixteen, Two};
    use ColorType::Grayscale;
    for (row, depth, white) in [
        (&[0, 0, 255, 255][..], Sixteen, 1.),
        (&[0, 255], Eight, 1.),
        (&[0b0100_0000], One, 1.),
        // The greatest value of 4 and 2 bits is as likely the label 15 or 3.
        (&[0x0f], Four, 15.),
        (&[0b0011_0000], Two, 3.),
    ] {
        assert_eq!(labels(&picture(2, &[row], Grayscale, depth)), [0., white], "{depth:?}");
    }
}

#[test]
fn a_palette_is_colour_as_an_input_and_a_colour_is_no_mask() {
    let palette = picture(3, &[&[0, 1, 2]], ColorType::Indexed, BitDepth::Eight);
    let Input::Image(image) = &palette else { panic!("{palette:?}") };
    assert_eq!(image.data.dim(), (3, 1, 3));
    assert_eq!((image.data[[0, 0, 1]], image.data[[1, 0, 2]]), (128.0 / 255.0, 128.0 / 255.0));
    let map = Input::Image(Image::new(Array3::zeros((1, 1, 3))));
    assert!(pair(&palette, &map).unwrap_err().to_string().contains("map: a picture in colour"));
    let colour = picture(1, &[&[1, 2, 3]], ColorType::Rgb, BitDepth::Eight);
    let message = pair(&map, &colour).unwrap_err().to_string();
    assert!(message.contains("mask: a picture in colour"), "{message}");
}

fn fed(input: &Input, card: &str) -> ArrayD<f32> {
    card.parse::<Card>().unwrap().prepare(input, Some(2)).unwrap().tensor
}

#[test]
fn a_card_says_in_which_unit_a_picture_is_fed() {
    use BitDepth::{Eight, Four, Sixteen};
    let values = |input: &Input, card: &str| fed(input, card).into_raw_vec_and_offset().0;
    let stored = "[input]\nvalues = \"stored\"";
    let unit = "[input]\nvalues = \"unit\"";
    let all: Vec<u8> = (0..=255).collect();
    let eight = picture(256, &[&all], ColorType::Grayscale, Eight);
    assert!(values(&eight, stored).iter().zip(&all).all(|(&v, &byte)| v == f32::from(byte)));
    assert_eq!(values(&eight, unit), values(&eight, ""));
    assert!(values(&eight, "").iter().zip(&all).all(|(&v, &b)| v == f32::from(b) / 255.0));
    let every: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_be_bytes).collect();
    let sixteen = picture(65536, &[&every], ColorType::Grayscale, Sixteen);
    assert!(values(&sixteen, stored).iter().enumerate().all(|(n, &v)| v == n as f32));
    let four = picture(2, &[&[0x1f]], ColorType::Grayscale, Four);
    assert_eq!(values(&four, stored), [1.0, 15.0]);
    assert_eq!(values(&four, unit), [17.0 / 255.0, 1.0]);
    let rgb = picture(1, &[&[10, 20, 255]], ColorType::Rgb, Eight);
    assert_eq!(values(&rgb, stored), [10.0, 20.0, 255.0]);
    assert_eq!(values(&picture(2, &[&[1, 0]], ColorType::Indexed, Eight), stored)[0], 128.0);
    let gray = values(&rgb, &format!("{stored}\ncolor = \"gray\""))[0];
    assert!((gray - (0.299 * 10.0 + 0.587 * 20.0 + 0.114 * 255.0)).abs() < 1e-4, "{gray}");
    // Arrays reach the model as stored, whatever the card says.
    let array = Input::Array(ArrayD::from_elem(vec![1, 1, 2, 2], 3.0));
    assert_eq!(fed(&array, unit), fed(&array, stored));
    let message = "[input]\nvalues = \"raw\"".parse::<Card>().unwrap_err().to_string();
    assert!(message.contains("`raw`") && message.contains("`stored`"), "{message}");
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn numpy_sees_the_same_labels() {
    let Ok(python) = std::env::var("MEDCAM_PYTHON") else {
        println!("skipped: MEDCAM_PYTHON names no Python with Pillow");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let names = script(&python, "pillow_images.py", "labels", folder.path());
    for name in names.split_whitespace() {
        let mask = read(folder.path().join(name)).unwrap();
        let theirs = read_npy(folder.path().join(format!("{name}.npy"))).unwrap();
        let theirs = theirs.into_dimensionality::<Ix2>().unwrap();
        assert_eq!(labels(&mask), theirs.iter().copied().collect::<Vec<_>>(), "{name}");
    }
    assert_eq!(names.split_whitespace().count(), 9);
}
