//! Normalisation in place against that into other memory, which `resample.rs` holds against the
//! reference.

use medcam::ops::Interpolation::Linear;
use medcam::ops::Resize;
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::normalize::cuda::normalize;
use medcam::ops::resample::cuda::{extremes, resample_into};

use crate::common::gpu;
use crate::resample::values;

#[test]
fn small_in_place() {
    let Some(stream) = gpu() else { return };
    for (batch, voxels) in [(1, 1), (1, 33), (3, 1025), (2, 5000)] {
        let mut map = stream.upload(&values(batch * voxels, 0)).unwrap();
        let resize = Resize { batch, from: [1, 1, voxels], to: [1, 1, voxels] };
        let mut range = stream.allocate::<DeviceExtremes>(batch).unwrap();
        extremes(&stream, map.slice(), resize, Linear, range.slice_mut()).unwrap();
        let mut other = stream.allocate::<f32>(batch * voxels).unwrap();
        let known = Some(range.slice());
        resample_into(&stream, map.slice(), resize, Linear, known, other.slice_mut()).unwrap();
        let expected = stream.download(other.slice()).unwrap();
        normalize(&stream, map.slice_mut(), range.slice()).unwrap();
        let found = stream.download(map.slice()).unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(voxels == 1 || found.contains(&0.0) && found.contains(&1.0));
    }
}

#[test]
fn bad_input_is_an_error_that_names_it() {
    let Some(stream) = gpu() else { return };
    let mut map = stream.upload(&[0.0_f32; 5]).unwrap();
    let ranges = stream.upload(&[DeviceExtremes::default(); 2]).unwrap();
    let error = normalize(&stream, map.slice_mut(), ranges.slice()).unwrap_err();
    assert_eq!(error.to_string(), "normalize: map: 5 values cannot be parted into 2 maps");
}
