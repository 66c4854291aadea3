//! What a header says of an image's size is what its voxels say.

use std::path::Path;

use medcam::volumes::{Card, Header, MapType, read, write_npy, write_png};
use ndarray::ArrayD;
use proptest::prelude::*;

use super::fixtures::{oblique_header, ramp, write_nifti};

/// Checks that the card makes an input of the shape that it foretells.
fn check(path: &Path, card: &str, spatial_rank: usize) {
    let card: Card = card.parse().unwrap();
    let header = Header::read(path).unwrap();
    let foretold = card.input_shape(&header, Some(spatial_rank)).unwrap();
    let prepared = card.prepare(&read(path).unwrap(), Some(spatial_rank)).unwrap();
    assert_eq!(foretold, prepared.tensor.shape(), "{card:?}");
}

proptest! {
    #[test]
    fn of_a_volume(
        shape in prop::array::uniform3(1_usize..9),
        axes in prop::sample::select(vec!["xyz", "zyx"]),
        sampling in prop::sample::select(vec!["", "size = [3, 5, 2]", "spacing_mm = [0.7, 1.9, 4.0]"]),
        zipped: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if zipped { "x.nii.gz" } else { "x.nii" });
        write_nifti(&path, &oblique_header(), &ramp(shape));
        check(&path, &format!("[input]\norientation = \"PIR\"\naxes = \"{axes}\"\n{sampling}"), 3);
    }
}

#[test]
fn of_a_slice_a_picture_and_an_array() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_nifti(&at("slice.nii.gz"), &oblique_header(), &ramp([6, 1, 4]));
    check(&at("slice.nii.gz"), "", 2);
    check(&at("slice.nii.gz"), "[input]\nsize = [8, 3]", 2);
    write_png(at("x.png"), &image::RgbImage::new(7, 5).into()).unwrap();
    check(&at("x.png"), "", 2);
    check(&at("x.png"), "[input]\ncolor = \"gray\"\nsize = [9, 2]", 2);
    write_npy(at("x.npy"), &ArrayD::zeros(vec![2, 3, 4, 5, 6]), MapType::F32).unwrap();
    check(&at("x.npy"), "", 3);
    let missing = Header::read(at("missing.nii.gz")).unwrap_err();
    assert!(missing.is_file(), "{missing}");
}
