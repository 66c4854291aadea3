//! Slices of a volume in RAS axes, with anatomical letters at their sides.

use ndarray::{ArrayView3, Axis};

use super::panel::{Layer, Panel, Plane};
use super::{Style, layers};
use crate::volumes::affine::{self, Orientation};
use crate::volumes::{Volume, grid};

pub(super) const CONVENTION: &str =
    "neurological convention: the left of the picture is the patient's left (L)";

/// The planes: name, RAS axes through the plane, to the right and up, and letters of the left,
/// right, upper and lower side.
const PLANES: [(&str, usize, usize, usize, [char; 4]); 3] = [
    ("axial", 2, 0, 1, ['L', 'R', 'A', 'P']),
    ("coronal", 1, 0, 2, ['L', 'R', 'S', 'I']),
    ("sagittal", 0, 1, 2, ['P', 'A', 'S', 'I']),
];

/// The rows of panels of `image` and `map`, both in the volume's voxel order.
///
/// A volume of one slice gives that slice, first without and then with the map.
pub(super) fn panels(
    volume: &Volume,
    image: ArrayView3<'_, f32>,
    map: ArrayView3<'_, f32>,
    style: Style,
) -> Vec<Vec<Panel>> {
    let axes = Orientation::RAS.axes_from(&Orientation::of(&volume.affine));
    let turned = |voxels| grid::to_model(ArrayView3::insert_axis(voxels, Axis(0)), &axes);
    let (image, map) = (turned(image), turned(map));
    let (image, map) = (image.index_axis(Axis(0), 0), map.index_axis(Axis(0), 0));
    let single: Vec<_> = PLANES.iter().filter(|plane| image.shape()[plane.1] == 1).collect();
    let (layers, centre) = layers(image, map, style, single.len() == 1);
    let spacing_mm = axes.map(|(axis, _)| volume.spacing_mm[axis]);

    // The centre of attention as the file's voxel index, and its position in the scanner.
    let mut index = [0; 3];
    for (ras, &(axis, backwards)) in axes.iter().enumerate() {
        let extent = image.shape()[ras];
        index[axis] = if backwards { extent - 1 - centre[ras] } else { centre[ras] };
    }
    let place = affine::apply(&volume.affine, index.map(|i| i as f64));
    let place_mm = place.map(|x| x * volume.unit_mm());

    let draw = |(name, through, right, up, sides): (&str, usize, usize, usize, [char; 4]),
                layer: &Layer<'_>| {
        let plane = Plane { through, right, down: up, up: true };
        let (axis, _) = axes[through];
        let title = format!(
            "{name}  {} = {:.1} mm  ({} = {})",
            ["x", "y", "z"][through],
            place_mm[through],
            ["i", "j", "k"][axis],
            index[axis],
        );
        let mut panel = plane.panel(&title, layer, centre, spacing_mm);
        panel.sides = Some(sides);
        panel
    };
    match single[..] {
        [&plane] => {
            let mut row: Vec<_> = layers.iter().map(|layer| draw(plane, layer)).collect();
            row[0].cross = None;
            vec![row]
        }
        _ => layers
            .iter()
            .map(|layer| PLANES.iter().map(|&plane| draw(plane, layer)).collect())
            .collect(),
    }
}
