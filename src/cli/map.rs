//! `medcam map`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::MapArguments;
use super::clashes::Given;
use super::evaluate::Evaluation;
use super::interrupt::on_interrupt;
use super::job::Job;
use super::model::Loaded;
use super::progress::Progress;
use super::report::{Outcome, Report, print_json};
use super::terminal::{complain, print};
use crate::error::{Error, Result};
use crate::inject::{AttentionMap, inject};
use crate::torch::Layers;
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
    volumes::remove_leftovers(&arguments.output);
    let (loaded, model) = Loaded::new(&arguments.model)?;
    let progress = Arc::new(Progress::new(start, arguments, &loaded, &model)?);
    let interrupted = progress.clone();
    on_interrupt(move |stopped, signal| interrupted.interrupted(stopped, signal))?;
    let mut injected = inject(model, job.options.clone())?;

    let bar = progress_bar(arguments.inputs.len());
    for (index, path) in arguments.inputs.iter().enumerate() {
        bar.set_message(volumes::stem_of(path));
        progress.begin(path);
        let mut evaluate = |maps: &[(&AttentionMap, PathBuf)], warnings: &mut Vec<_>| {
            let evaluation = evaluation.as_mut();
            evaluation.map_or(Ok(Vec::new()), |e| e.add(index, maps, warnings))
        };
        let wrote = |file| progress.wrote(file);
        let outcome = match job.one(&loaded, &given, &mut injected, path, &mut evaluate, &wrote) {
            Ok(done) => {
                for warning in &done.warnings {
                    bar.suspend(|| {
                        let (code, path) = (warning.code, path.display());
                        complain(format!("warning[{code}]: {path}: {}", warning.message));
                    });
                }
                progress.mapped(injected.attention_maps());
                Outcome::Done(done)
            }
            Err(error) => {
                let error = named(&error, path);
                bar.suspend(|| complain(format!("error: {error}")));
                Outcome::Failed { error }
            }
        };
        progress.end(outcome, injected.known_layers().map(Layers::task));
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
    let archive = written(injected.dump()).pop();
    let layer_order = injected.layer_names(false);
    let scores = evaluation.map_or(Ok(Vec::new()), |e| e.dump(layer_order, &arguments.output));
    let scores = written(scores);
    let error = (!errors.is_empty()).then(|| errors.join("; "));
    let report = Report { archive, scores, error, ..progress.report() };
    report.write(&arguments.output)?;
    progress.reported();
    if arguments.json {
        print_json(&report)?;
    } else {
        for output in report.outputs() {
            print(output.display())?;
        }
    }
    if report.failed > 0 {
        let (failed, all) = (report.failed, arguments.inputs.len());
        complain(format!("error: {failed} of {all} input(s) failed; see run.json"));
    }
    let well = report.failed == 0 && report.error.is_none();
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
