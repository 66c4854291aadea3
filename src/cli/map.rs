//! `medcam map`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::MapArguments;
use super::clashes::Given;
use super::evaluate::Evaluation;
use super::job::Job;
use super::model::Loaded;
use super::report::{InputReport, Outcome, Report, peak_memory_bytes, print_json, sha256};
use super::terminal::{complain, print};
use crate::error::{Error, Result};
use crate::inject::{AttentionMap, inject};
use crate::torch::Network;
use crate::volumes;

pub fn run(arguments: &MapArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let job = Job::new(arguments)?;
    let mut evaluation = Evaluation::new(arguments)?;
    let card = arguments.model.card_file();
    let masks = evaluation.iter().flat_map(Evaluation::masks).chain(&arguments.target_mask);
    let given = [&arguments.model.model].into_iter().chain(&card).chain(&arguments.inputs);
    let given = Given::new(given.chain(masks).map(PathBuf::as_path));
    given.check(job.known_files())?;
    volumes::make_folder(&arguments.output)?;
    let (loaded, model) = Loaded::new(&arguments.model)?;
    let final_activation = model.facts().final_activation;
    let model_sha256 = sha256(&arguments.model.model)?;
    let mut injected = inject(model, job.options.clone())?;

    let progress = progress_bar(arguments.inputs.len());
    let mut task = None;
    let mut layers: Vec<String> = Vec::new();
    let mut inputs = Vec::new();
    for (index, path) in arguments.inputs.iter().enumerate() {
        progress.set_message(volumes::stem_of(path));
        let mut outputs = Vec::new();
        let mut evaluate = |maps: &[(&AttentionMap, PathBuf)], warnings: &mut Vec<_>| {
            let evaluation = evaluation.as_mut();
            evaluation.map_or(Ok(Vec::new()), |e| e.add(index, maps, warnings))
        };
        let done = job.one(&loaded, &given, &mut injected, path, &mut evaluate, &mut outputs);
        let outcome = match done {
            Ok(done) => {
                for warning in &done.warnings {
                    progress.suspend(|| {
                        let (code, path) = (warning.code, path.display());
                        complain(format!("warning[{code}]: {path}: {}", warning.message));
                    });
                }
                layers.clear();
                for map in injected.attention_maps() {
                    // Each target has a map of each.
                    if !layers.iter().any(|layer| layer == map.layer()) {
                        layers.push(map.layer().to_owned());
                    }
                }
                Outcome::Done(done)
            }
            Err(error) => {
                let error = named(&error, path);
                progress.suspend(|| complain(format!("error: {error}")));
                Outcome::Failed { error }
            }
        };
        task = task.or_else(|| injected.known_layers().map(crate::torch::Layers::task));
        inputs.push(InputReport { input: path.clone(), outputs, outcome });
        progress.inc(1);
    }
    progress.finish_and_clear();

    let mut errors = Vec::new();
    let mut written = |files: Result<Vec<PathBuf>>| {
        files.unwrap_or_else(|error| {
            complain(format!("error: {error}"));
            errors.push(error.to_string());
            Vec::new()
        })
    };
    let archive = written(injected.dump()).pop();
    let layer_order = injected.layer_names(false);
    let scores = evaluation.map_or(Ok(Vec::new()), |e| e.dump(layer_order, &arguments.output));
    let scores = written(scores);
    let failed = inputs.iter().filter(|i| matches!(i.outcome, Outcome::Failed { .. })).count();
    let report = Report {
        medcam: env!("CARGO_PKG_VERSION"),
        libtorch: env!("MEDCAM_LIBTORCH"),
        model_sha256,
        card: loaded.card_path.clone(),
        device: loaded.device.to_string(),
        threads: tch::get_num_threads(),
        options: arguments,
        task,
        final_activation,
        layers,
        inputs,
        archive,
        scores,
        failed,
        error: (!errors.is_empty()).then(|| errors.join("; ")),
        seconds: start.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory_bytes(),
    };
    report.write(&arguments.output)?;
    if arguments.json {
        print_json(&report)?;
    } else {
        for output in report.outputs() {
            print(output.display())?;
        }
    }
    if failed > 0 {
        let all = arguments.inputs.len();
        complain(format!("error: {failed} of {all} input(s) failed; see run.json"));
    }
    let well = failed == 0 && report.error.is_none();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The message of an error, with the input's path in front unless it is in there.
fn named(error: &Error, path: &Path) -> String {
    let (message, path) = (error.to_string(), path.display().to_string());
    if message.contains(&path) { message } else { format!("{path}: {message}") }
}

fn progress_bar(inputs: usize) -> ProgressBar {
    if inputs < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(inputs as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
