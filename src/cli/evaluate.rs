//! The evaluation of `medcam map --mask`.

use std::path::{Path, PathBuf};

use super::args::{MapArguments, metrics};
use crate::error::{Error, Result};
use crate::evaluation::{Evaluator, Scoring};
use crate::outputs::{self, MapView, Names};
use crate::record::MapScores;
use crate::volumes::{self, Grid, MapType};
use crate::warning::Warning;

/// The evaluator of all inputs' maps, with the mask of each input.
pub struct Evaluation {
    evaluator: Evaluator,
    inputs_and_masks: Vec<(PathBuf, PathBuf)>,
}

impl Evaluation {
    /// Finds the mask of each input; `None` without `--mask`.
    pub fn new(arguments: &MapArguments) -> Result<Option<Self>> {
        let Some(mask) = &arguments.mask else { return Ok(None) };
        let mask_values = arguments.mask_values.parse()?;
        let scoring = Scoring::new(metrics(&arguments.metric)?, arguments.threshold.parse()?);
        let evaluator = Evaluator::new(scoring.masks(mask_values));
        let masks: Vec<_> = match &arguments.inputs[..] {
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
        let inputs = arguments.inputs.iter().cloned();
        Ok(Some(Self { evaluator, inputs_and_masks: inputs.zip(masks).collect() }))
    }

    /// The masks of all inputs.
    pub fn masks(&self) -> impl Iterator<Item = &PathBuf> {
        self.inputs_and_masks.iter().map(|(_, mask)| mask)
    }

    /// Scores the maps of input number `index` with the values that are written. If one fails, none
    /// of the input's scores is kept.
    pub fn add(
        &mut self,
        index: usize,
        names: &Names<'_>,
        maps: &[MapView<'_>],
        place: (&Grid, MapType),
        warnings: &mut Vec<Warning>,
    ) -> Result<Vec<MapScores>> {
        let (input, path) = &self.inputs_and_masks[index];
        let mask = volumes::read(path)?;
        for warning in outputs::repairs(&mask, Some(path)) {
            // If the mask is `--target-mask` too, its repairs are among the warnings already.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let before = self.evaluator.scores().len();
        let mut scores = Vec::new();
        for map in maps {
            let name = names.stem_of(map.target);
            let mask = (&mask, &*path.to_string_lossy());
            match outputs::score(&mut self.evaluator, map, place, mask, &name, warnings) {
                Ok(of_map) => scores.extend(of_map),
                Err(error) => {
                    self.evaluator.truncate(before);
                    let files = names.maps(input, map.layer, map.target);
                    let file =
                        files.last().map_or_else(|| name.clone(), |f| f.display().to_string());
                    return Err(error.within(format!("{file} against {}", path.display())));
                }
            }
        }
        Ok(scores)
    }

    /// Writes the scores of all inputs; nothing if there are none.
    pub fn dump(self, layers: Vec<String>, folder: &Path) -> Result<Vec<PathBuf>> {
        if self.evaluator.scores().is_empty() {
            return Ok(Vec::new());
        }
        self.evaluator.layer_order(layers).dump(folder)
    }
}

/// The mask in `folder` that has the stem of `input`.
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
