//! `medcam score`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value};

use super::args::{ScoreArguments, metrics};
use super::interrupt::on_interrupt;
use super::terminal::{complain, print, print_json};
use crate::error::{Error, Result};
use crate::evaluation::{Evaluator, FILES, Masks, Scoring, pair};
use crate::outputs::{ReadFiles, repairs};
use crate::volumes;

#[derive(Serialize)]
struct ScoreReport<'a> {
    #[serde(flatten)]
    arguments: &'a ScoreArguments,
    /// The scores by metric; null if undefined.
    scores: Map<String, Value>,
    outputs: Vec<PathBuf>,
}

pub fn run(arguments: &ScoreArguments) -> Result<ExitCode> {
    let ScoreArguments { map, mask, class, .. } = arguments;
    let metrics = metrics(&arguments.metric)?;
    let threshold = arguments.threshold.parse()?;
    let masks = if class.is_some() { Masks::Labels } else { Masks::Binary };
    let mut evaluator = Evaluator::new(Scoring::new(metrics.clone(), threshold).masks(masks));

    if let Some(folder) = &arguments.output {
        volumes::remove_leftovers(folder);
        on_interrupt(None, |_, _| {})?;
        let outputs = FILES.map(|name| folder.join(name));
        ReadFiles::new([map.as_path(), mask.as_path()]).check(outputs)?;
    }

    let (map_input, mask_input) = (volumes::read(map)?, volumes::read(mask)?);
    for warning in
        repairs(&map_input, Some(map)).into_iter().chain(repairs(&mask_input, Some(mask)))
    {
        complain(format!("warning[{}]: {}", warning.code, warning.message));
    }
    let of_both =
        |error: Error| error.within(format!("{} against {}", map.display(), mask.display()));
    let (map_voxels, mask_voxels) = pair(&map_input, &mask_input).map_err(of_both)?;
    let (layer, name) = (layer_of(map), volumes::stem_of(map));
    let scores = evaluator
        .add(map_voxels.view(), mask_voxels.view(), &layer, *class, &name)
        .map_err(of_both)?;
    if let Some(what) = masks.emptiness(mask_voxels.view(), *class) {
        complain(format!("warning[EMPTY_MASK]: {} {what}", mask.display()));
    }
    if map_voxels.iter().all(|value| value.abs() == map_voxels[[0, 0, 0]].abs()) {
        let map = map.display();
        complain(format!("warning[CONSTANT_MAP]: {map} has one value: it shows no attention"));
    }
    let outputs = match &arguments.output {
        Some(folder) => evaluator.dump(folder)?,
        None => Vec::new(),
    };
    if arguments.json {
        let scores = metrics.iter().zip(scores);
        let scores = scores.map(|(metric, score)| (metric.to_string(), score.into())).collect();
        print_json(&ScoreReport { arguments, scores, outputs })?;
    } else {
        for (metric, score) in metrics.iter().zip(scores) {
            print(format!("{metric} {score}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The layer of a map: the name of its folder, as `medcam map` writes `DIR/LAYER/STEM`.
fn layer_of(map: &Path) -> String {
    let folder = map.parent().and_then(Path::file_name).unwrap_or_default();
    folder.to_string_lossy().into_owned()
}
