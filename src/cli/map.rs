//! `medcam map`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::MapArguments;
use super::evaluate::Evaluation;
use super::interrupt::on_interrupt;
use super::job::{Collected, Job};
use super::model::load_model;
use super::progress::Progress;
use super::terminal::{complain, print, print_json};
use crate::error::{Error, Result};
use crate::explain::Explainer;
use crate::outputs::{self, Archive, ReadFiles};
use crate::record::{self, Outcome, Run};
use crate::torch::Layers;
use crate::volumes;

pub fn run(arguments: &MapArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let job = Job::new(arguments)?;
    let evaluation = Evaluation::new(arguments)?;
    let card = arguments.model.card_file();
    let masks = evaluation.iter().flat_map(Evaluation::masks).chain(&arguments.target_mask);
    let read_files = [&arguments.model.model].into_iter().chain(&card).chain(&arguments.inputs);
    let read_files = ReadFiles::new(read_files.chain(masks).map(PathBuf::as_path));
    read_files.check(job.known_files())?;
    outputs::prepare_folder(&arguments.output)?;
    let (model_input, model) = load_model(&arguments.model)?;
    let progress = Arc::new(Progress::new(start, arguments, &model_input, &model)?);
    let interrupted = progress.clone();
    on_interrupt(move |stopped, signal| interrupted.interrupted(stopped, signal))?;
    let explainer = Explainer::new(model, job.settings.clone())?;
    let mut collected = Collected { explainer, evaluation, archive: job.archive()? };

    let bar = progress_bar(arguments.inputs.len());
    for (index, path) in arguments.inputs.iter().enumerate() {
        bar.set_message(volumes::stem_of(path));
        progress.begin(path);
        let wrote = |file| progress.wrote(file);
        let outcome = match job.process(index, &model_input, &read_files, &mut collected, &wrote) {
            Ok((done, layers)) => {
                for warning in &done.warnings {
                    bar.suspend(|| {
                        let (code, path) = (&warning.code, path.display());
                        complain(format!("warning[{code}]: {path}: {}", warning.message));
                    });
                }
                progress.mapped(layers);
                Outcome::Done(done)
            }
            Err(error) => {
                let error = named(&error, path);
                bar.suspend(|| complain(format!("error: {error}")));
                Outcome::Failed { error }
            }
        };
        progress.end(outcome, collected.explainer.known_layers().map(Layers::task));
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut errors = Vec::new();
    let mut written = |files: Result<Vec<PathBuf>>| {
        files.unwrap_or_else(|error| {
            complain(format!("error: {error}"));
            errors.push(error.to_string());
            Vec::new()
        })
    };
    let Collected { explainer, evaluation, archive } = collected;
    let archive = archive.map_or(Ok(None), Archive::finish);
    let archive = written(archive.map(Vec::from_iter)).pop();
    let layer_order = explainer.layer_names();
    let scores = evaluation.map_or(Ok(Vec::new()), |e| e.dump(layer_order, &arguments.output));
    let scores = written(scores);
    let error = (!errors.is_empty()).then(|| errors.join("; "));
    let run = Run { archive, scores, error, ..progress.record() };
    outputs::write_text(arguments.output.join(record::FILE), &run.to_json()?)?;
    progress.recorded();
    if arguments.json {
        print_json(&run)?;
    } else {
        for output in run.outputs() {
            print(output.display())?;
        }
    }
    if run.failed > 0 {
        let (failed, all) = (run.failed, arguments.inputs.len());
        complain(format!("error: {failed} of {all} input(s) failed; see run.json"));
    }
    let well = run.failed == 0 && run.error.is_none();
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An error's message, with the input's path in front unless it contains the path.
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
