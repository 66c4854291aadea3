//! NIfTI images that the tests write and read.

use std::path::Path;

use ndarray::{Array3, Array4};
use nifti::NiftiHeader;
use nifti::writer::WriterOptions;

/// A header of an oblique, anisotropic grid: rotated by 20° about z and tilted by 10° about x.
pub fn oblique_header() -> NiftiHeader {
    let (s, c) = 20_f32.to_radians().sin_cos();
    let (t, d) = 10_f32.to_radians().sin_cos();
    let spacing = [0.8_f32, 1.1, 3.5];
    // Columns of Rz·Rx, times the spacing; x runs to the left.
    NiftiHeader {
        pixdim: [1.0, spacing[0], spacing[1], spacing[2], 1.0, 1.0, 1.0, 1.0],
        srow_x: [-c * spacing[0], -s * d * spacing[1], s * t * spacing[2], 31.5],
        srow_y: [s * -spacing[0], c * d * spacing[1], -c * t * spacing[2], -47.25],
        srow_z: [0.0, t * spacing[1], d * spacing[2], 12.0],
        sform_code: 4,
        qform_code: 0,
        xyzt_units: 10,
        ..NiftiHeader::default()
    }
}

/// Values that differ at every voxel.
pub fn ramp(shape: [usize; 3]) -> Array3<f32> {
    let mut next = 0.0;
    Array3::from_shape_simple_fn(shape, || {
        next += 1.0;
        next
    })
}

pub fn write_nifti(path: &Path, header: &NiftiHeader, data: &Array3<f32>) {
    WriterOptions::new(path).reference_header(header).write_nifti(data).unwrap();
}

pub fn write_nifti_4d(path: &Path, header: &NiftiHeader, data: &Array4<f32>) {
    WriterOptions::new(path).reference_header(header).write_nifti(data).unwrap();
}
