//! The evaluation of `medcam map --mask`.

use std::path::{Path, PathBuf};

use super::args::{MapArguments, metrics};
use crate::error::{Error, Result};
use crate::evaluation::{Evaluator, Scoring};
use crate::volumes;

/// What is measured, and the mask of each input.
pub struct Evaluation {
    pub scoring: Scoring,
    pub masks: Vec<PathBuf>,
}

impl Evaluation {
    /// Finds the mask of each input; `None` without `--mask`.
    pub fn new(arguments: &MapArguments) -> Result<Option<Self>> {
        let Some(mask) = &arguments.mask else { return Ok(None) };
        let mask_values = arguments.mask_values.parse()?;
        let scoring = Scoring::new(metrics(&arguments.metric)?, arguments.threshold.parse()?);
        let scoring = scoring.masks(mask_values);
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
        Ok(Some(Self { scoring, masks }))
    }
}

/// Writes the scores of all inputs; nothing if there are none.
pub fn dump(evaluator: Evaluator, layers: Vec<String>, folder: &Path) -> Result<Vec<PathBuf>> {
    if evaluator.scores().is_empty() {
        return Ok(Vec::new());
    }
    evaluator.layer_order(layers).dump(folder)
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
