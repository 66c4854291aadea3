//! Scores maps against masks with the values that a reader of the written maps gets, without a
//! file.

use std::borrow::Cow;
use std::path::Path;

use ndarray::Axis;

use super::MapView;
use super::save::with_depth;
use crate::error::{Error, Result};
use crate::evaluation::{Evaluator, pair};
use crate::record::MapScores;
use crate::volumes::{Grid, Input, MapType};
use crate::warning::Warning;

/// Scores one map against the mask of its input, sample by sample. The scores are those of
/// `medcam score` for the files that [`save_maps`](super::save_maps) writes: on the image's grid,
/// in the precision of `dtype`.
///
/// `mask` has as many samples as the map, or is the mask of its only sample. In the tables, the map
/// is called `name`, followed by `_B` for sample `B` of several. A mask without a voxel of the
/// class gives the warning `EMPTY_MASK`, which calls it `mask_name`.
///
/// # Errors
///
/// If map and mask do not belong together, or the mask does not fit the class. The scores of
/// earlier samples stay in the evaluator then.
pub fn score(
    evaluator: &mut Evaluator,
    map: &MapView<'_>,
    (grid, dtype): (&Grid, MapType),
    (mask, mask_name): (&Input, &str),
    name: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<MapScores>> {
    let (written, samples) = as_written(map, grid, dtype)?;
    let mut scores_of_map = Vec::new();
    for (sample, &class) in map.classes.iter().enumerate() {
        let map_input = sample_of(&written, sample, samples)?;
        let mask_input = sample_of(mask, sample, samples)?;
        let (voxels, mask) = pair(&map_input, &mask_input)?;
        let name = if samples == 1 { name.to_owned() } else { format!("{name}_{sample}") };
        let scores = evaluator.add(voxels.view(), mask.view(), map.layer, class, &name)?;
        let scoring = evaluator.scoring();
        if let Some(what) = scoring.masks.emptiness(mask.view(), class) {
            let warning = Warning::of_run("EMPTY_MASK", format!("{mask_name} {what}"));
            let warning = Warning { sample: (samples > 1).then_some(sample), ..warning };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let metrics = scoring.metrics.iter().map(ToString::to_string);
        let scores = metrics.zip(scores.into_iter().map(Into::into)).collect();
        let [layer, target] = [map.layer, map.target].map(str::to_owned);
        scores_of_map.push(MapScores { layer, target, sample, class, name, scores });
    }
    Ok(scores_of_map)
}

/// Warnings about repaired fields in the header of a volume; `path` names a volume other than the
/// input.
pub fn repairs(input: &Input, path: Option<&Path>) -> Vec<Warning> {
    let Input::Volume(volume) = input else { return Vec::new() };
    let place = path.map_or_else(String::new, |path| format!("{}: ", path.display()));
    let warning = |note: &String| Warning::of_run("HEADER_REPAIRED", format!("{place}{note}"));
    volume.notes.iter().map(warning).collect()
}

/// What a reader of the written map gets, and its number of samples, each of which has a class.
pub(super) fn as_written(map: &MapView<'_>, grid: &Grid, dtype: MapType) -> Result<(Input, usize)> {
    let values = with_depth(map)?;
    let (samples, classes) = (values.dim().0, map.classes.len());
    if classes != samples {
        let layer = map.layer;
        let what = format!("layer '{layer}': {samples} samples and the classes of {classes}");
        return Err(Error::input("map", what));
    }
    Ok((grid.as_written(values, dtype)?, samples))
}

/// One sample of a batch in an array; with a single sample, the whole input.
pub(super) fn sample_of(input: &Input, sample: usize, samples: usize) -> Result<Cow<'_, Input>> {
    if samples == 1 {
        return Ok(Cow::Borrowed(input));
    }
    match input {
        Input::Array(array) if array.ndim() > 2 && array.shape()[0] == samples => {
            Ok(Cow::Owned(Input::Array(array.index_axis(Axis(0), sample).to_owned())))
        }
        Input::Array(array) => {
            let shape = array.shape();
            let message = format!("shape {shape:?}; expected {samples} samples, as the maps have");
            Err(Error::input("evaluate", message))
        }
        _ => Err(Error::input("evaluate", format!("{samples} maps need a .npy of as many masks"))),
    }
}
