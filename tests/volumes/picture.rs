//! Pictures show the attention on the side where it is.

use image::RgbImage;
use medcam::volumes::{Caption, Card, Image, Input, Style, Volume, overlay};
use ndarray::{Array3, ArrayD};
use nifti::NiftiHeader;

use super::fixtures::write_nifti;

fn caption() -> Caption {
    Caption { lines: vec!["class 1 (brain) · layer up0 · Grad-CAM".to_owned()] }
}

/// A cube of 96 mm centred on the scanner's origin, whose axes run to S, L and P in voxels of 2, 1
/// and 4 mm.
fn turned_cube() -> Volume {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cube.nii");
    let header = NiftiHeader {
        pixdim: [1.0, 2.0, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0],
        srow_x: [0.0, -1.0, 0.0, 47.5],
        srow_y: [0.0, 0.0, -4.0, 46.0],
        srow_z: [2.0, 0.0, 0.0, -47.0],
        sform_code: 1,
        ..NiftiHeader::default()
    };
    write_nifti(&path, &header, &Array3::zeros((48, 96, 24)));
    let volume = Volume::read(&path).unwrap();
    assert_eq!(volume.axis_codes(), ['S', 'L', 'P']);
    volume
}

/// A map that is 1 in a ball about a point in the scanner's space.
fn ball(volume: &Volume, centre_mm: [f64; 3]) -> Array3<f32> {
    let (_, i, j, k) = volume.data.dim();
    Array3::from_shape_fn((i, j, k), |(i, j, k)| {
        let voxel = [i as f64, j as f64, k as f64];
        let distance_squared: f64 = (0..3)
            .map(|r| {
                let row = volume.affine[r];
                let place = row[3] + (0..3).map(|c| row[c] * voxel[c]).sum::<f64>();
                (place - centre_mm[r]).powi(2)
            })
            .sum();
        f32::from(u8::from(distance_squared < 100.0))
    })
}

/// The mean position of the map's strongest colour, in columns `from..to`.
fn red_centre(picture: &RgbImage, from: u32, to: u32) -> [f64; 2] {
    let red = picture.enumerate_pixels().filter(|&(x, _, pixel)| {
        (from..to).contains(&x) && i32::from(pixel[0]) - i32::from(pixel[2]) > 60
    });
    let (mut sum, mut count) = ([0.0; 2], 0.0);
    for (x, y, _) in red {
        sum = [sum[0] + f64::from(x), sum[1] + f64::from(y)];
        count += 1.0;
    }
    assert!(count > 100.0, "no attention between columns {from} and {to}");
    sum.map(|s| s / count)
}

#[test]
fn attention_is_shown_on_its_side() {
    let volume = turned_cube();
    let input = Input::Volume(volume.clone());
    let middle = overlay(&input, &ball(&volume, [0.0; 3]), &caption(), Style::Heat).unwrap();
    // 25 mm to the left, 30 to the front, 15 up.
    let moved =
        overlay(&input, &ball(&volume, [-25.0, 30.0, 15.0]), &caption(), Style::Heat).unwrap();
    assert_eq!(middle.dimensions(), moved.dimensions());

    // The picture has three square panels of equal size, then the colour bar.
    let bar = 36 + 120;
    let cell = (middle.width() - bar - 36) / 3;
    // Expected shift to the right and down in each panel: axial (x, -y), coronal (x, -z), sagittal
    // (y, -z).
    let expected_mm = [[-25.0, -30.0], [-25.0, -15.0], [30.0, -15.0]];
    let mut scales = Vec::new();
    for (panel, expected) in (0..3).zip(expected_mm) {
        let [from, to] = [36 + panel * cell, 36 + (panel + 1) * cell];
        let [a, b] = [&middle, &moved].map(|picture| red_centre(picture, from, to));
        scales.extend([(b[0] - a[0]) / expected[0], (b[1] - a[1]) / expected[1]]);
    }
    // All panels have one scale, although the voxels are anisotropic, and the directions are right.
    let mean = scales.iter().sum::<f64>() / 6.0;
    assert!(mean > 1.0, "{scales:?}");
    assert!(scales.iter().all(|s| (s / mean - 1.0).abs() < 0.1), "{scales:?}");
}

#[test]
fn a_map_of_zeros_colours_nothing_but_the_bar() {
    let volume = turned_cube();
    let zeros = Array3::zeros((48, 96, 24));
    let picture = overlay(&Input::Volume(volume), &zeros, &caption(), Style::Heat).unwrap();
    let slices = picture.width() - 36 - 120;
    let coloured = picture
        .enumerate_pixels()
        .filter(|(x, _, p)| *x < slices && (i32::from(p[0]) - i32::from(p[2])).abs() > 20)
        .count();
    assert_eq!(coloured, 0);
}

#[test]
fn a_signed_map_is_gray_with_its_zero_in_the_middle() {
    // Most voxels are 0.3, which therefore stands for a gradient of 0; one patch is 0.2 above it
    // and one 0.2 below.
    let mut map = Array3::from_elem((1, 20, 30), 0.3);
    map.slice_mut(ndarray::s![0, 4..6, 5..10]).fill(0.5);
    map.slice_mut(ndarray::s![0, 14..16, 20..25]).fill(0.1);
    let image = Input::Image(Image::new(Array3::from_elem((1, 20, 30), 0.9)));
    let picture = overlay(&image, &map, &Caption::default(), Style::Gray).unwrap();
    assert!(picture.pixels().all(|p| p[0].abs_diff(p[1]) < 8 && p[1].abs_diff(p[2]) < 8));

    // Looks in the second slice, which shows the map; the first shows the image.
    let place = |value: u8| {
        let bar = picture.width() - 36 - 120;
        let places = picture.enumerate_pixels().filter(|(x, y, pixel)| {
            (picture.width() / 2..bar - 20).contains(x) && *y > 100 && pixel[0] == value
        });
        let (mut sum, mut count) = ([0.0; 2], 0.0);
        for (x, y, _) in places {
            sum = [sum[0] + f64::from(x), sum[1] + f64::from(y)];
            count += 1.0;
        }
        assert!(count > 100.0, "{value}: {count}");
        (sum.map(|s| s / count), count)
    };
    let ([middle, white, black], gray) = {
        let (middle, gray) = place(128);
        ([middle, place(255).0, place(0).0], gray)
    };
    assert!(white[0] < middle[0] && white[1] < middle[1]);
    assert!(black[0] > middle[0] && black[1] > middle[1]);
    assert!(gray > 10_000.0);
}

#[test]
fn the_planes_go_through_what_matters_whatever_its_sign() {
    let volume = turned_cube();
    let input = Input::Volume(volume.clone());
    let signed = |place: [f64; 3], sign: f32| ball(&volume, place).mapv(|v| 0.5 + sign * v * 0.5);
    let picture = |map| overlay(&input, &map, &Caption::default(), Style::Gray).unwrap();
    let [bright, dark] = [1.0, -1.0].map(|sign| picture(signed([-25.0, 30.0, 15.0], sign)));
    let middle = picture(signed([0.0; 3], 1.0));
    assert_eq!(bright.dimensions(), dark.dimensions());
    // The upper half, the image with titles and marks, does not depend on the sign of the map.
    let upper = |picture: &RgbImage| {
        let half = picture.height() / 2;
        image::imageops::crop_imm(picture, 0, 0, picture.width() - 150, half).to_image()
    };
    assert_eq!(upper(&bright), upper(&dark));
    assert_ne!(upper(&bright), upper(&middle));
}

#[test]
fn every_kind_of_input_has_a_picture() {
    let volume = turned_cube();
    let mut slice = volume.clone();
    slice.data = slice.data.slice(ndarray::s![.., .., .., 3..4]).to_owned();
    let image = |channels: usize| Input::Image(Image::new(Array3::ones((channels, 20, 30))));
    let array = |shape: &[usize]| Input::Array(ArrayD::zeros(shape));
    let mut flat_nan = Array3::zeros((1, 5, 6));
    flat_nan[[0, 2, 2]] = f32::NAN;
    let cases = [
        (Input::Volume(volume), Array3::ones((3, 4, 2))),
        (Input::Volume(slice), Array3::ones((48, 96, 1))),
        (image(1), Array3::ones((1, 20, 30))),
        (image(3), flat_nan),
        (array(&[1, 3, 9, 300]), Array3::ones((1, 9, 300))),
        (array(&[1, 2, 9, 9]), Array3::ones((1, 9, 9))),
        (array(&[1, 1, 1, 1, 1]), Array3::ones((1, 1, 1))),
        (array(&[1, 1, 2, 3, 900]), Array3::ones((1, 1, 4))),
    ];
    for (input, map) in cases {
        let long =
            Caption { lines: vec!["long ".repeat(100), String::new(), "ü€ \u{1f9e0}".into()] };
        for style in [Style::Heat, Style::Gray] {
            for caption in [&Caption::default(), &long] {
                let (width, height) = overlay(&input, &map, caption, style).unwrap().dimensions();
                assert!((900..2500).contains(&width) && (300..1100).contains(&height));
            }
        }
    }
    for (input, map) in [
        (array(&[2, 1, 9, 9]), Array3::ones((1, 9, 9))),
        (array(&[9, 9]), Array3::ones((1, 9, 9))),
        (image(1), Array3::ones((2, 20, 30))),
        (image(1), Array3::ones((1, 0, 30))),
        (image(0), Array3::ones((1, 20, 30))),
        (array(&[1, 1, 0, 9]), Array3::ones((1, 0, 9))),
    ] {
        assert!(overlay(&input, &map, &caption(), Style::Heat).unwrap_err().is_input());
        if let Input::Image(Image { data, .. }) = &input {
            let prepared = Card::default().prepare(&input, Some(2));
            assert_eq!(prepared.is_err(), data.is_empty());
        }
    }
}
