//! How far a run of `medcam map` is, for `run.json` at its end or when a signal ends it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::args::MapArguments;
use super::model::Loaded;
use super::report::{self, InputReport, Interrupted, Outcome, Report, peak_memory_bytes, sha256};
use super::terminal::complain;
use crate::error::Result;
use crate::inject::AttentionMap;
use crate::torch::{Model, Network, Task};
use crate::volumes::Stopped;

/// What was run, and what was done so far.
pub struct Progress {
    start: Instant,
    arguments: MapArguments,
    model_sha256: String,
    card: Option<PathBuf>,
    device: String,
    final_activation: Option<String>,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    task: Option<Task>,
    layers: Vec<String>,
    inputs: Vec<InputReport>,
    /// The input that is being worked on, and what was written of it.
    current: Option<(PathBuf, Vec<PathBuf>)>,
    /// Whether `run.json` is there.
    reported: bool,
}

impl Progress {
    pub fn new(
        start: Instant,
        arguments: &MapArguments,
        loaded: &Loaded,
        model: &Model,
    ) -> Result<Self> {
        Ok(Self {
            start,
            arguments: arguments.clone(),
            model_sha256: sha256(&arguments.model.model)?,
            card: loaded.card_path.clone(),
            device: loaded.device.to_string(),
            final_activation: model.facts().final_activation,
            state: Mutex::default(),
        })
    }

    /// The next input is worked on.
    pub fn begin(&self, input: &Path) {
        self.state().current = Some((input.to_owned(), Vec::new()));
    }

    /// A file of this input is there.
    pub fn wrote(&self, file: PathBuf) {
        if let Some((_, outputs)) = &mut self.state().current {
            outputs.push(file);
        }
    }

    /// This input has maps of these layers.
    pub fn mapped(&self, maps: &[AttentionMap]) {
        let layers = &mut self.state().layers;
        layers.clear();
        for map in maps {
            // Each target has a map of each.
            if !layers.iter().any(|layer| layer == map.layer()) {
                layers.push(map.layer().to_owned());
            }
        }
    }

    /// The input is done with.
    pub fn end(&self, outcome: Outcome, task: Option<Task>) {
        let mut state = self.state();
        state.task = state.task.or(task);
        if let Some((input, outputs)) = state.current.take() {
            state.inputs.push(InputReport { input, outputs, outcome });
        }
    }

    /// What was done so far.
    pub fn report(&self) -> Report<'_> {
        let State { task, layers, inputs, .. } = self.state().clone();
        let failed = inputs.iter().filter(|i| matches!(i.outcome, Outcome::Failed { .. })).count();
        Report {
            medcam: env!("CARGO_PKG_VERSION"),
            libtorch: env!("MEDCAM_LIBTORCH"),
            model_sha256: self.model_sha256.clone(),
            card: self.card.clone(),
            device: self.device.clone(),
            threads: tch::get_num_threads(),
            options: &self.arguments,
            task,
            final_activation: self.final_activation.clone(),
            layers,
            inputs,
            archive: None,
            scores: Vec::new(),
            failed,
            interrupted: None,
            error: None,
            seconds: self.start.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
        }
    }

    /// `run.json` is there.
    pub fn reported(&self) {
        self.state().reported = true;
    }

    /// A signal ends the run: writes `run.json` with what was done.
    pub fn interrupted(&self, stopped: &Stopped, signal: &str) {
        if self.state().reported {
            return;
        }
        self.end(Outcome::Failed { error: format!("interrupted by {signal}") }, None);
        let report = self.report();
        let (done, all) = (report.inputs.len() - report.failed, self.arguments.inputs.len());
        let interrupted =
            Interrupted { signal: signal.to_owned(), not_begun: all - report.inputs.len() };
        let report = Report { interrupted: Some(interrupted), ..report };
        let file = self.arguments.output.join(report::FILE);
        let written = report.text().map(|text| stopped.write(&file, text.as_bytes()));
        let place = match written {
            Ok(Ok(())) => "see run.json".to_owned(),
            Ok(Err(error)) => format!("{} cannot be written: {error}", file.display()),
            Err(error) => error.to_string(),
        };
        complain(format!("interrupted by {signal}: {done} of {all} input(s) were done; {place}"));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
