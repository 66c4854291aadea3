//! The evaluation of `medcam map --mask`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ndarray::Axis;
use serde::Serialize;

use super::args::MapArguments;
use super::score::metrics;
use crate::error::{Error, Result};
use crate::evaluation::{Evaluator, Masks, pair};
use crate::inject::{AttentionMap, Warning};
use crate::volumes::{self, Input};

/// What evaluates the maps of all inputs.
pub struct Evaluation {
    evaluator: Evaluator,
    mask_values: Masks,
    /// One per input, in their order.
    masks: Vec<PathBuf>,
}

/// The scores of one map.
#[derive(Clone, Serialize)]
pub struct Scored {
    layer: String,
    class: Option<usize>,
    name: String,
    /// By metric; null where a score is not defined.
    scores: serde_json::Map<String, serde_json::Value>,
}

impl Evaluation {
    /// `None` where no mask is given. Finds the mask of each input.
    pub fn new(arguments: &MapArguments) -> Result<Option<Self>> {
        let Some(mask) = &arguments.mask else { return Ok(None) };
        let mask_values = arguments.mask_values.parse()?;
        let evaluator = Evaluator::new(metrics(&arguments.metric)?, arguments.threshold.parse()?)
            .masks(mask_values);
        let masks = match &arguments.inputs[..] {
            inputs if mask.is_dir() => {
                inputs.iter().map(|input| mask_of(input, mask)).collect::<Result<_>>()?
            }
            [_] => vec![mask.clone()],
            inputs => {
                return Err(Error::usage(format!(
                    "--mask {}: one file for {} inputs; give a folder with a mask of each input's \
                     name",
                    mask.display(),
                    inputs.len()
                )));
            }
        };
        Ok(Some(Self { evaluator, mask_values, masks }))
    }

    /// The masks, one per input.
    pub fn masks(&self) -> &[PathBuf] {
        &self.masks
    }

    /// Scores the maps of input number `index`: all of them, or none is kept. The files are what was
    /// written of them, so this is what `medcam score` says of those.
    pub fn add(
        &mut self,
        index: usize,
        maps: &[(&AttentionMap, PathBuf)],
        warnings: &mut Vec<Warning>,
    ) -> Result<Vec<Scored>> {
        let before = self.evaluator.scores().len();
        let mut scored = Vec::new();
        for (map, file) in maps {
            match self.add_map(index, map, file, warnings) {
                Ok(of_map) => scored.extend(of_map),
                Err(error) => {
                    self.evaluator.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(scored)
    }

    fn add_map(
        &mut self,
        index: usize,
        map: &AttentionMap,
        file: &Path,
        warnings: &mut Vec<Warning>,
    ) -> Result<Vec<Scored>> {
        let path = &self.masks[index];
        let of_both =
            |error: Error| error.within(format!("{} against {}", file.display(), path.display()));
        let (maps, masks) = (volumes::read(file)?, volumes::read(path)?);
        for warning in repairs(&masks, Some(path)) {
            // Once, for however many maps.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let samples = map.classes().len();
        let mut scored = Vec::new();
        for (sample, &class) in map.classes().iter().enumerate() {
            let map_input = sample_of(&maps, sample, samples).map_err(of_both)?;
            let mask_input = sample_of(&masks, sample, samples).map_err(of_both)?;
            let (voxels, mask) = pair(&map_input, &mask_input).map_err(of_both)?;
            let stem = volumes::stem_of(file);
            let name = if samples == 1 { stem } else { format!("{stem}_{sample}") };
            let scores = self
                .evaluator
                .add(voxels.view(), mask.view(), map.layer(), class, &name)
                .map_err(of_both)?;
            if let Some(what) = self.mask_values.emptiness(mask.view(), class) {
                let message = format!("{} {what}", path.display());
                let layer = String::new();
                let sample = (samples > 1).then_some(sample);
                let warning = Warning { code: "EMPTY_MASK", layer, sample, message };
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            let metrics = self.evaluator.metrics().iter().map(ToString::to_string);
            let scores = metrics.zip(scores.into_iter().map(Into::into)).collect();
            scored.push(Scored { layer: map.layer().to_owned(), class, name, scores });
        }
        Ok(scored)
    }

    /// Writes the scores of all inputs; nothing if there are none.
    pub fn dump(self, layers: Vec<String>, folder: &Path) -> Result<Vec<PathBuf>> {
        if self.evaluator.scores().is_empty() {
            return Ok(Vec::new());
        }
        self.evaluator.layer_order(layers).dump(folder)
    }
}

/// What was repaired in the header of a volume that was read, with the path of one that is not the input.
pub fn repairs(input: &Input, path: Option<&Path>) -> Vec<Warning> {
    let Input::Volume(volume) = input else { return Vec::new() };
    let place = path.map_or_else(String::new, |path| format!("{}: ", path.display()));
    let warning = |note: &String| Warning {
        code: "HEADER_REPAIRED",
        layer: String::new(),
        sample: None,
        message: format!("{place}{note}"),
    };
    volume.notes.iter().map(warning).collect()
}

/// One sample of a batch in a `.npy` file; what holds no batch as it is.
fn sample_of(input: &Input, sample: usize, samples: usize) -> Result<Cow<'_, Input>> {
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

/// The mask in `folder` that has the name of `input`.
fn mask_of(input: &Path, folder: &Path) -> Result<PathBuf> {
    let stem = volumes::stem_of(input);
    let refuse = |error: std::io::Error| Error::file(folder, &error).because(error);
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        if path.is_file() && volumes::stem_of(&path) == stem {
            found.push(path);
        }
    }
    found.sort();
    match &found[..] {
        [mask] => Ok(mask.clone()),
        [] => Err(Error::usage(format!(
            "--mask {}: no mask of {} there: no file of the name '{stem}'",
            folder.display(),
            input.display()
        ))),
        [first, second, ..] => Err(Error::usage(format!(
            "--mask: {} and {} are both named as {}",
            first.display(),
            second.display(),
            input.display()
        ))),
    }
}
