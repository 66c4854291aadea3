//! `medcam map`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::MapArguments;
use super::evaluate::{dump, find_masks};
use super::interrupt::{end_by_name, on_interrupt};
use super::job::{Job, utf8};
use super::model::load_model;
use super::progress::Progress;
use super::terminal::{complain, print, print_json};
use crate::cohort::{Cancel, Case, Finished, Written};
use crate::error::{Error, Result};
use crate::evaluation::{self, Evaluator};
use crate::explain::AttentionMap;
use crate::outputs::{self, Archive, check_distinct};
use crate::record::{self, Outcome, Run};
use crate::torch::Layers;
use crate::volumes;

const ARCHIVE: &str = "attention_maps.npz";

pub fn run(arguments: &MapArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let options = &arguments.options;
    let job = Job::new(options)?;
    let cases = cases(arguments)?;
    let read_files = job.read_files(&cases, &[]);
    read_files.check(job.known_files(&cases).into_iter().chain(tables(arguments)))?;
    outputs::prepare_folder(&options.output)?;
    let (card, model) = load_model(&options.model)?;
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
    let folder = folder.keep_maps(arguments.archive);
    let archive = arguments.archive.then(|| options.output.join(ARCHIVE));
    let mut archive = archive.map(|file| Archive::new(&file)).transpose()?;
    let mut evaluator = options.mask.as_ref().map(|_| Evaluator::new(job.scoring.clone()));
    let mut cohort = job.cohort(vec![model], card)?;

    let bar = progress_bar(arguments.inputs.len());
    let cases = cases.into_iter().enumerate().map(|(index, case)| {
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
                let maps = written.maps.iter().map(AttentionMap::to_view);
                let maps = maps.collect::<crate::Result<Vec<_>>>()?;
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
    let scores = evaluator.map_or(Ok(Vec::new()), |e| dump(e, layer_order, &options.output));
    let scores = written(scores);
    let error = (!errors.is_empty()).then(|| errors.join("; "));
    let task = explainer.known_layers().map(Layers::task);
    let run = Run { archive, scores, error, task, ..progress.record() };
    outputs::write_text(options.output.join(record::FILE), &run.to_json()?)?;
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

/// The inputs, each called by the stem of its file.
fn cases(arguments: &MapArguments) -> Result<Vec<Case>> {
    for input in &arguments.inputs {
        utf8(input)?;
    }
    let case = |input: &PathBuf| Case::new(volumes::stem_of(input), input);
    let mut cases: Vec<_> = arguments.inputs.iter().map(case).collect();
    let names = cases.iter().map(|case| (case.id.as_str(), case.image.as_path()));
    check_distinct(names, arguments.options.picture)?;
    find_masks(&mut cases, arguments.options.mask.as_deref())?;
    Ok(cases)
}

/// The files of a run that are not those of one input.
fn tables(arguments: &MapArguments) -> impl Iterator<Item = PathBuf> {
    let scores = arguments.options.mask.iter().flat_map(|_| evaluation::FILES);
    let archive = arguments.archive.then_some(ARCHIVE);
    let names = [record::FILE].into_iter().chain(archive).chain(scores);
    names.map(|name| arguments.options.output.join(name))
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
