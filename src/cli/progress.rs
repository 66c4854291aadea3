//! Tracks a run of `medcam map` for `run.json`, which is written at its end or when a signal ends
//! it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::args::MapArguments;
use super::terminal::complain;
use crate::cohort::peak_memory_bytes;
use crate::error::Result;
use crate::record::{self, InputRecord, Interrupted, Outcome, Run};
use crate::torch::{Model, Network};
use crate::version::VERSION;
use crate::volumes::Stopped;

/// The configuration of a run, and the records of its inputs so far.
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
    layers: Vec<String>,
    inputs: Vec<InputRecord>,
    /// The inputs that are begun and not ended, by number, and the files written for each.
    begun: BTreeMap<usize, (PathBuf, Vec<PathBuf>)>,
    /// The signal that asked the run to end.
    signal: Option<String>,
    /// Whether `run.json` is written.
    recorded: bool,
}

impl Progress {
    pub fn new(start: Instant, arguments: &MapArguments, model: &Model) -> Result<Self> {
        Ok(Self {
            start,
            arguments: arguments.clone(),
            model_sha256: record::sha256(&arguments.options.model.model)?,
            card: arguments.options.model.card_file(),
            device: model.device().to_string(),
            final_activation: model.facts().final_activation,
            state: Mutex::default(),
        })
    }

    /// Begins an input.
    pub fn begin(&self, index: usize, input: &Path) {
        self.state().begun.insert(index, (input.to_owned(), Vec::new()));
    }

    /// Adds a file of an input.
    pub fn wrote(&self, index: usize, file: PathBuf) {
        if let Some((_, outputs)) = self.state().begun.get_mut(&index) {
            outputs.push(file);
        }
    }

    /// Sets the layers that have maps.
    pub fn mapped(&self, layers: Vec<String>) {
        self.state().layers = layers;
    }

    /// Ends an input.
    pub fn end(&self, index: usize, outcome: Outcome) {
        let mut state = self.state();
        if let Some((input, outputs)) = state.begun.remove(&index) {
            state.inputs.push(InputRecord { input, outputs, outcome });
        }
    }

    /// Notes that a signal asks the run to end.
    pub fn asked_to_end(&self, signal: &str) {
        let begun = {
            let mut state = self.state();
            state.signal = Some(signal.to_owned());
            state.begun.len()
        };
        complain(format!(
            "{signal}: {begun} input(s) are begun and will be finished; once more to stop at once"
        ));
    }

    /// The record of the run so far.
    pub fn record(&self) -> Run<&MapArguments> {
        let State { layers, inputs, signal, .. } = self.state().clone();
        let not_begun = self.arguments.inputs.len().saturating_sub(inputs.len());
        let failed = inputs.iter().filter(|i| matches!(i.outcome, Outcome::Failed { .. })).count();
        Run {
            medcam: VERSION.to_owned(),
            libtorch: env!("MEDCAM_LIBTORCH").to_owned(),
            model_sha256: self.model_sha256.clone(),
            card: self.card.clone(),
            device: self.device.clone(),
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
            options: &self.arguments,
            task: None,
            final_activation: self.final_activation.clone(),
            layers,
            inputs,
            archive: None,
            scores: Vec::new(),
            failed,
            interrupted: signal.map(|signal| Interrupted { signal, not_begun }),
            error: None,
            seconds: self.start.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
        }
    }

    /// Notes that `run.json` is written.
    pub fn recorded(&self) {
        self.state().recorded = true;
    }

    /// A signal ends the run at once: writes `run.json` with what was done.
    pub fn interrupted(&self, stopped: &Stopped, signal: &str) {
        if self.state().recorded {
            return;
        }
        let begun: Vec<usize> = self.state().begun.keys().copied().collect();
        for index in begun {
            self.end(index, Outcome::Failed { error: format!("interrupted by {signal}") });
        }
        let run = self.record();
        let file = self.arguments.options.output.join(record::FILE);
        let written = run.to_json().map(|text| stopped.write(&file, text.as_bytes()));
        let place = match written {
            Ok(Ok(())) => "see run.json".to_owned(),
            Ok(Err(error)) => format!("{} cannot be written: {error}", file.display()),
            Err(error) => error.to_string(),
        };
        self.say_interrupted(&run, &place);
    }

    /// Says what a run that a signal ended has done.
    pub fn say_interrupted(&self, run: &Run<&MapArguments>, place: &str) {
        let Some(Interrupted { signal, .. }) = &run.interrupted else { return };
        let (done, all) = (run.inputs.len() - run.failed, self.arguments.inputs.len());
        complain(format!("interrupted by {signal}: {done} of {all} input(s) were done; {place}"));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
