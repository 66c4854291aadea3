//! Writes each map to its own file.

use std::path::PathBuf;

use ndarray::{ArrayView5, Axis, Ix5};

use super::{MapView, Names};
use crate::error::{Error, Result};
use crate::volumes::{self, Grid, MapType};

/// Writes each map on the grid of the image that it explains: see [`Grid::save_map`]. `wrote` is
/// called with each file once it is written.
///
/// # Errors
///
/// If a map has another number of samples than the grid, or a file cannot be written.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// use medcam::outputs::{MapView, Names, save_maps};
/// use medcam::volumes::{Card, Input, MapType};
///
/// let image = Input::Array(ndarray::ArrayD::zeros(vec![1, 3, 4, 5]));
/// let grid = Card::default().prepare(&image, Some(2))?.grid;
/// let values = ndarray::ArrayD::from_elem(vec![1, 1, 4, 5], 0.5);
/// let map =
///     MapView { layer: "up2", target: "best", values: values.view(), classes: &[None], signed: false };
/// let names = Names { folder, stem: "scan", one_target: true };
/// let mut files = Vec::new();
/// save_maps(&[map], &names, &grid, MapType::F32, &mut |file| files.push(file))?;
/// assert_eq!(files, [folder.join("up2/scan.npy")]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn save_maps(
    maps: &[MapView<'_>],
    names: &Names<'_>,
    grid: &Grid,
    dtype: MapType,
    wrote: &mut dyn FnMut(PathBuf),
) -> Result<()> {
    for map in maps {
        let folder = names.folder_of(map.layer);
        volumes::make_folder(&folder)?;
        let files = grid.save_map(&folder, &names.stem_of(map.target), with_depth(map)?, dtype)?;
        files.into_iter().for_each(&mut *wrote);
    }
    Ok(())
}

/// The map's values as `(B, 1, D, H, W)`, with `D = 1` in 2D.
pub(super) fn with_depth<'a>(map: &'a MapView<'_>) -> Result<ArrayView5<'a, f32>> {
    let values = map.values.view();
    let values = if values.ndim() == 4 { values.insert_axis(Axis(2)) } else { values };
    let refuse = || {
        let (layer, shape) = (map.layer, map.values.shape());
        let what = format!("layer '{layer}': shape {shape:?}; expected (B, 1, [D,] H, W)");
        Error::input("map", what)
    };
    let values = values.into_dimensionality::<Ix5>().map_err(|error| refuse().because(error))?;
    if values.is_empty() || values.dim().1 != 1 {
        return Err(refuse());
    }
    Ok(values)
}
