//! Reorients a volume to the voxel axes of another that covers the same field of view.

use ndarray::{Array3, Axis};

use super::affine::{self, Orientation};
use super::grid::to_model;
use super::volume::Volume;

/// How far the corners of two fields of view may lie apart, in voxels of the finer grid. This is
/// far above the f32 rounding of affines and far below a shift by half a voxel, which must be
/// refused.
const TOLERANCE_VOXELS: f64 = 0.1;

/// The voxels of `volume`, reoriented to the axes of `other` without resampling. Fails if `volume`
/// has several channels or covers another field of view.
pub(crate) fn to_axes_of(volume: &Volume, other: &Volume) -> Result<Array3<f32>, String> {
    let (channels, shape) = (volume.data.dim().0, volume.shape());
    if channels != 1 {
        return Err(format!("{channels} channels; expected one"));
    }
    let axes = Orientation::of(&other.affine).axes_from(&Orientation::of(&volume.affine));
    let mut distance_mm = 0.0_f64;
    for corner in 0..8 {
        let mut voxel = [0.0; 3];
        let mut own_voxel = [0.0; 3];
        for (axis, (own_axis, backwards)) in axes.into_iter().enumerate() {
            let end = (corner >> axis) & 1 == 1;
            // The outer face of the first or the last voxel.
            let face = |end: bool, extent: usize| if end { extent as f64 - 0.5 } else { -0.5 };
            voxel[axis] = face(end, other.shape()[axis]);
            own_voxel[own_axis] = face(end != backwards, shape[own_axis]);
        }
        let millimetres = |volume: &Volume, voxel| {
            affine::apply(&volume.affine, voxel).map(|x| x * volume.unit_mm())
        };
        let (one, two) = (millimetres(other, voxel), millimetres(volume, own_voxel));
        let squares = one.iter().zip(two).map(|(a, b)| (a - b).powi(2));
        distance_mm = distance_mm.max(squares.sum::<f64>().sqrt());
    }
    let finest = volume.spacing_mm.iter().chain(&other.spacing_mm).copied();
    let finest = finest.fold(f64::INFINITY, f64::min);
    if distance_mm > TOLERANCE_VOXELS * finest {
        return Err(format!(
            "another field of view: its corners lie up to {distance_mm:.3} mm away; resample it \
             onto the other's grid by their affines"
        ));
    }
    Ok(to_model(volume.data.view(), &axes).index_axis_move(Axis(0), 0).to_owned())
}
