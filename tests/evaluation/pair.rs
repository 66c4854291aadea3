//! Brings maps and masks from disk to the same axes.

use std::path::Path;

use medcam::evaluation::pair;
use medcam::volumes::{self, Image, Input, MapType, Volume};
use ndarray::{Array3, Array4, ArrayD, array};
use nifti::NiftiHeader;
use nifti::writer::WriterOptions;

/// A NIfTI volume of these voxels, with voxel `(i, j, k)` at `rows · (i, j, k, 1)`.
fn volume(folder: &Path, rows: [[f32; 4]; 3], data: &Array3<f32>) -> Volume {
    let length = |c: usize| rows.iter().map(|row| row[c] * row[c]).sum::<f32>().sqrt();
    let header = NiftiHeader {
        pixdim: [1.0, length(0), length(1), length(2), 1.0, 1.0, 1.0, 1.0],
        srow_x: rows[0],
        srow_y: rows[1],
        srow_z: rows[2],
        sform_code: 1,
        xyzt_units: 2,
        ..NiftiHeader::default()
    };
    let path = folder.join("volume.nii");
    WriterOptions::new(&path).reference_header(&header).write_nifti(data).unwrap();
    Volume::read(&path).unwrap()
}

/// The affine of voxels of 1x2x3 mm.
const ROWS: [[f32; 4]; 3] = [[1.0, 0.0, 0.0, -10.0], [0.0, 2.0, 0.0, 20.0], [0.0, 0.0, 3.0, 5.0]];

fn ramp() -> Array3<f32> {
    Array3::from_shape_fn((4, 5, 6), |(i, j, k)| (i * 100 + j * 10 + k) as f32)
}

fn message(map: &Input, mask: &Input) -> String {
    let error = pair(map, mask).unwrap_err();
    assert!(error.is_input());
    error.to_string()
}

#[test]
fn the_axes_of_a_map_are_turned_to_those_of_the_mask() {
    let folder = tempfile::tempdir().unwrap();
    let mask = Input::Volume(volume(folder.path(), ROWS, &ramp()));
    // The same voxels, stored as (k, i reversed, j): voxel (k, i', j) lies at i = 3 - i'.
    let rows = [[0.0, -1.0, 0.0, -7.0], [0.0, 0.0, 2.0, 20.0], [3.0, 0.0, 0.0, 5.0]];
    let stored = Array3::from_shape_fn((6, 4, 5), |(k, i, j)| ramp()[[3 - i, j, k]]);
    let map = Input::Volume(volume(folder.path(), rows, &stored));
    let (on_axes, unchanged) = pair(&map, &mask).unwrap();
    assert_eq!((&on_axes, &unchanged), (&ramp(), &ramp()));
    // The same with map and mask exchanged.
    let (on_axes, unchanged) = pair(&mask, &map).unwrap();
    assert_eq!((on_axes, unchanged), (stored.clone(), stored));
}

#[test]
fn another_grid_of_the_same_field_of_view_stays_a_grid_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mask = volume(folder.path(), ROWS, &ramp());
    let small = Array3::from_shape_fn((2, 3, 12), |(i, j, k)| (i + j + k) as f32);
    let path = folder.path().join("map.nii.gz");
    mask.write_map(&path, &small, MapType::F32).unwrap();
    let (map, _) = pair(&volumes::read(&path).unwrap(), &Input::Volume(mask)).unwrap();
    assert_eq!(map, small);
}

#[test]
fn another_field_of_view_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mask = Input::Volume(volume(folder.path(), ROWS, &ramp()));
    let with = |change: &dyn Fn(&mut [[f32; 4]; 3])| {
        let mut rows = ROWS;
        change(&mut rows);
        Input::Volume(volume(folder.path(), rows, &ramp()))
    };
    // A shift of 0.01 mm is within the tolerance for f32 affines.
    pair(&with(&|rows| rows[0][3] += 0.01), &mask).unwrap();
    let text = message(&with(&|rows| rows[1][3] += 0.5), &mask);
    assert!(text.contains("map: another field of view") && text.contains("0.500 mm"), "{text}");
    message(&with(&|rows| rows[2][2] = 3.1), &mask);
    // Rotated by 90 degrees about the corner, the volume covers another place.
    message(&with(&|rows| rows.swap(0, 1)), &mask);
    // A crop covers a smaller field of view.
    let crop = ramp().slice(ndarray::s![..3, .., ..]).to_owned();
    let crop = Input::Volume(volume(folder.path(), ROWS, &crop));
    assert!(message(&crop, &mask).contains("1.000 mm"));
}

#[test]
fn an_array_beside_a_volume_has_its_shape() {
    let folder = tempfile::tempdir().unwrap();
    let mask = Input::Volume(volume(folder.path(), ROWS, &ramp()));
    let map = Input::Array(ramp().into_dyn());
    assert_eq!(pair(&map, &mask).unwrap(), (ramp(), ramp()));
    assert_eq!(pair(&mask, &map).unwrap(), (ramp(), ramp()));
    let other = Input::Array(ArrayD::zeros(vec![6, 5, 4]));
    assert!(message(&other, &mask).contains("shape (4, 5, 6), the map has (6, 5, 4)"));
    let picture = Input::Image(Image::new(Array3::zeros((1, 4, 5))));
    assert!(message(&picture, &mask).contains("do not belong together"));
    assert!(message(&mask, &picture).contains("do not belong together"));
}

#[test]
fn arrays_of_one_sample_lose_what_is_in_front_of_it() {
    let array = |shape: &[usize]| Input::Array(ArrayD::zeros(shape));
    let mask = array(&[8, 9]);
    for (shape, expected) in [
        (&[3, 4][..], (1, 3, 4)),
        (&[1, 3, 4], (1, 3, 4)),
        (&[1, 1, 3, 4], (1, 3, 4)),
        (&[1, 1, 2, 3, 4], (2, 3, 4)),
        (&[1, 1, 1, 3, 4], (1, 3, 4)),
        (&[2, 3, 4], (2, 3, 4)),
    ] {
        let (map, mask) = pair(&array(shape), &mask).unwrap();
        assert_eq!((map.dim(), mask.dim()), (expected, (1, 8, 9)), "{shape:?}");
    }
    for shape in [&[4][..], &[], &[2, 1, 3, 4], &[1, 2, 2, 3, 4]] {
        let text = message(&array(shape), &mask);
        assert!(
            text.starts_with("evaluate: map: shape [") && text.contains("one sample"),
            "{text}"
        );
    }
}

#[test]
fn pictures_are_gray_and_their_masks_0_1_or_labels() {
    let picture = |values: [f32; 3]| {
        let [a, b, c] = values;
        Input::Image(Image::new(array![[[a, b, c]]]))
    };
    let map = picture([0.0, 0.5, 1.0]);
    let of = |mask: &Input| pair(&map, mask).unwrap();
    assert_eq!(
        of(&picture([0.0, 1.0, 1.0])),
        (array![[[0.0, 0.5, 1.0]]], array![[[0.0, 1.0, 1.0]]])
    );
    let labels = [0.0, 1.0, 7.0].map(|label: f32| label / 255.0);
    assert_eq!(of(&picture(labels)).1, array![[[0.0, 1.0, 7.0]]]);
    // Values of 16 bits are no 8-bit labels, and are not rounded to labels.
    let labels = [0.0, 1.0, 7.0].map(|label: f32| label / 65535.0);
    assert!(of(&picture(labels)).1[[0, 0, 2]] < 0.1);
    let colour = Input::Image(Image::new(Array3::zeros((3, 2, 2))));
    assert!(message(&colour, &map).contains("map: a picture in colour"));
    assert!(message(&map, &colour).contains("mask: a picture in colour"));
    let folder = tempfile::tempdir().unwrap();
    let two = Array4::<f32>::zeros((2, 3, 4, 2));
    let path = folder.path().join("two.nii");
    WriterOptions::new(&path).write_nifti(&two).unwrap();
    let two = volumes::read(&path).unwrap();
    assert!(message(&two, &two).contains("mask: 2 channels"));
}
