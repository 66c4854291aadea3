//! The slices of a volume, turned so that their sides can be named.

use ndarray::{ArrayView3, Axis};

use super::panel::{self, Panel, Plane, Window};
use crate::volumes::affine::{self, Orientation};
use crate::volumes::{Volume, grid};

pub(super) const CONVENTION: &str =
    "neurological convention: the left of the picture is the patient's left (L)";

/// Through, right and up as RAS axes, with the letters of the left, right, upper and lower side.
const PLANES: [(&str, usize, usize, usize, [char; 4]); 3] = [
    ("axial", 2, 0, 1, ['L', 'R', 'A', 'P']),
    ("coronal", 1, 0, 2, ['L', 'R', 'S', 'I']),
    ("sagittal", 0, 1, 2, ['P', 'A', 'S', 'I']),
];

/// The panels of `image` and `map`, both in the volume's voxel order.
///
/// A volume of one slice gives that slice, first without and then with the map.
pub(super) fn panels(
    volume: &Volume,
    image: ArrayView3<'_, f32>,
    map: ArrayView3<'_, f32>,
) -> Vec<Panel> {
    let axes = Orientation::RAS.axes_from(&Orientation::of(&volume.affine));
    let turned = |voxels| grid::to_model(ArrayView3::insert_axis(voxels, Axis(0)), &axes);
    let (image, map) = (turned(image), turned(map));
    let (image, map) = (image.index_axis(Axis(0), 0), map.index_axis(Axis(0), 0));
    let centre = panel::centre_of_attention(map);
    let spacing_mm = axes.map(|(axis, _)| volume.spacing_mm[axis]);

    // The same voxel in the file's own index, and where it lies in the scanner.
    let mut index = [0; 3];
    for (ras, &(axis, backwards)) in axes.iter().enumerate() {
        let extent = image.shape()[ras];
        index[axis] = if backwards { extent - 1 - centre[ras] } else { centre[ras] };
    }
    let place = affine::apply(&volume.affine, index.map(|i| i as f64));
    let place_mm = place.map(|x| x * volume.unit_mm());

    let window = Window::of(image);
    let draw = |(name, through, right, up, sides): (&str, usize, usize, usize, [char; 4]),
                with_map: bool| {
        let plane = Plane { through, right, down: up, up: true };
        let (axis, _) = axes[through];
        let title = format!(
            "{name}  {} = {:.1} mm  ({} = {})",
            ["x", "y", "z"][through],
            place_mm[through],
            ["i", "j", "k"][axis],
            index[axis],
        );
        let map = with_map.then_some(map);
        let mut panel = plane.panel(&title, image, map, &window, centre, spacing_mm);
        panel.sides = Some(sides);
        panel
    };
    let single = |plane: &&(&str, usize, usize, usize, [char; 4])| image.shape()[plane.1] == 1;
    match PLANES.iter().filter(single).collect::<Vec<_>>()[..] {
        [&plane] => {
            let mut plain = draw(plane, false);
            plain.cross = None;
            vec![plain, draw(plane, true)]
        }
        _ => PLANES.iter().map(|&plane| draw(plane, true)).collect(),
    }
}
