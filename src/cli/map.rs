//! `medcam map`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::MapArguments;
use super::evaluate::dump;
use super::interrupt::{end_by_name, on_interrupt};
use super::job::Job;
use super::model::load_model;
use super::progress::Progress;
use super::terminal::{complain, print, print_json};
use crate::cohort::{Cancel, Cohort, Finished, Written};
use crate::error::{Error, Result};
use crate::evaluation::Evaluator;
use crate::explain::{AttentionMap, Explainer};
use crate::outputs::{self, Archive};
use crate::record::{self, Outcome, Run};
use crate::torch::Layers;

pub fn run(arguments: &MapArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let job = Job::new(arguments)?;
    let read_files = job.read_files();
    read_files.check(job.known_files())?;
    outputs::prepare_folder(&arguments.output)?;
    let (card, model) = load_model(&arguments.model)?;
    let progress = Arc::new(Progress::new(start, arguments, &model)?);
    let cancel = Arc::new(Cancel::default());
    let (asked, stop, interrupted) = (progress.clone(), cancel.clone(), progress.clone());
    on_interrupt(
        Some(Box::new(move |signal: &str| {
            stop.cancel();
            asked.asked_to_end(signal);
        })),
        move |stopped, signal| interrupted.interrupted(stopped, signal),
    )?;
    let folder = job.folder().read_files(&read_files).card(card.clone().unwrap_or_default());
    let folder = folder.on_file(|index, file| progress.wrote(index, file));
    let mut archive = job.archive()?;
    let mut evaluator = job.evaluation.as_ref().map(|e| Evaluator::new(e.scoring.clone()));
    let mut cohort = Cohort::new(vec![Explainer::new(model, job.settings.clone())?], card)?;
    if let Some(size) = job.size {
        cohort = cohort.size(size);
    }
    if let Some(region) = &job.region {
        cohort = cohort.region(region.clone());
    }

    let bar = progress_bar(arguments.inputs.len());
    let cases = job.cases().enumerate().map(|(index, case)| {
        progress.begin(index, &case.image);
        case
    });
    cohort.run(cases, &folder, &cancel, |Finished { index, case, kept, .. }| {
        bar.set_message(case.id.clone());
        let archived = kept.and_then(|written| {
            if let (Some(all), Some(scores)) = (&mut evaluator, &written.scores) {
                all.append(scores.clone());
            }
            if let Some(archive) = &mut archive {
                let maps: Vec<_> = written.maps.iter().map(AttentionMap::to_view).collect();
                archive.check(&case.id, &maps)?;
                archive.add(&case.id, &maps)?;
            }
            Ok(written)
        });
        let outcome = match archived {
            Ok(Written { done, layers, .. }) => {
                for warning in &done.warnings {
                    bar.suspend(|| {
                        let (code, path) = (&warning.code, case.image.display());
                        complain(format!("warning[{code}]: {path}: {}", warning.message));
                    });
                }
                progress.mapped(layers);
                Outcome::Done(done)
            }
            Err(error) => {
                let error = named(&error, &case.image);
                bar.suspend(|| complain(format!("error: {error}")));
                Outcome::Failed { error }
            }
        };
        progress.end(index, outcome);
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();

    let mut errors = Vec::new();
    let mut written = |files: Result<Vec<PathBuf>>| {
        files.unwrap_or_else(|error| {
            complain(format!("error: {error}"));
            errors.push(error.to_string());
            Vec::new()
        })
    };
    let archive = archive.map_or(Ok(None), Archive::finish);
    let archive = written(archive.map(Vec::from_iter)).pop();
    let explainer = &cohort.explainers()[0];
    let layer_order = explainer.layer_names();
    let scores = evaluator.map_or(Ok(Vec::new()), |e| dump(e, layer_order, &arguments.output));
    let scores = written(scores);
    let error = (!errors.is_empty()).then(|| errors.join("; "));
    let task = explainer.known_layers().map(Layers::task);
    let run = Run { archive, scores, error, task, ..progress.record() };
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
    if let Some(interrupted) = &run.interrupted {
        progress.say_interrupted(&run, "see run.json");
        end_by_name(&interrupted.signal);
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
