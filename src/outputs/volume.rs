//! How much of a map is attention, as a share of its voxels and in millilitres.

use super::MapView;
use super::score::{as_written, sample_of};
use crate::error::Result;
use crate::evaluation::{Threshold, attention};
use crate::record::MapVolume;
use crate::volumes::{Grid, Input, MapType};

/// Measures how much of a map is at or above `threshold`, for each sample.
///
/// The voxels are those that a reader of the written map gets, on the grid of the written file and
/// in the precision of `dtype`. As for [`score`](super::score()), their absolute values are
/// normalised to `[0, 1]` before they are compared with the threshold.
///
/// | field | value |
/// |---|---|
/// | `threshold` | the threshold as a number; 1 for a constant map, which has no attention |
/// | `share` | voxels of attention / all voxels |
/// | `volume_ml` | voxels of attention · `abs(det A)` / 1000, `A` being the 3×3 part of the written affine in mm; `None` for pictures and arrays |
///
/// A NIfTI file without a unit is taken to be in mm, as by nibabel.
///
/// # Errors
///
/// If the map has another number of samples than its classes or the grid, a value that is not
/// finite, or the threshold is not in `[0, 1]`.
///
/// # Example
///
/// ```
/// use medcam::evaluation::Threshold;
/// use medcam::outputs::{MapView, volumes_above};
/// use medcam::volumes::{Grid, MapType};
/// use ndarray::array;
///
/// let grid = Grid::of_array_shape(&[1, 3, 1, 4])?;
/// let values = array![[[[0.0, 0.3, 0.6, 1.0]]]].into_dyn();
/// let map =
///     MapView { layer: "up2", target: "best", values: values.view(), classes: &[None], signed: false };
/// let volumes = volumes_above(&map, (&grid, MapType::F32), Threshold::Value(0.5))?;
/// assert_eq!((volumes[0].share, volumes[0].volume_ml), (0.5, None));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn volumes_above(
    map: &MapView<'_>,
    (grid, dtype): (&Grid, MapType),
    threshold: Threshold,
) -> Result<Vec<MapVolume>> {
    let (written, samples) = as_written(map, grid, dtype)?;
    let measure = |(sample, &class): (usize, &Option<usize>)| {
        let input = sample_of(&written, sample, samples)?;
        let (values, voxel_mm3) = match &*input {
            Input::Volume(volume) => (volume.data.view().into_dyn(), Some(volume.voxel_mm3())),
            Input::Image(image) => (image.data.view().into_dyn(), None),
            Input::Array(array) => (array.view(), None),
        };
        let place = |error: crate::Error| error.within(format!("layer '{}'", map.layer));
        let attention = attention(values, threshold).map_err(place)?;
        Ok(MapVolume {
            layer: map.layer.to_owned(),
            target: map.target.to_owned(),
            sample,
            class,
            threshold: match threshold {
                Threshold::Value(value) if value == attention.threshold => shortest(value),
                _ => f64::from(attention.threshold),
            },
            share: attention.count as f64 / attention.voxels as f64,
            volume_ml: voxel_mm3.map(|mm3| attention.count as f64 * mm3 / 1000.0),
        })
    };
    map.classes.iter().enumerate().map(measure).collect()
}

/// The number that a user wrote: 0.3, where the f32 nearest to it is 0.30000001192092896.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
