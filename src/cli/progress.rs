//! Tracks a run of `medcam map` for `run.json`, which is written at its end or when a signal ends
//! it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::args::MapArguments;
use super::model::ModelInput;
use super::terminal::complain;
use crate::error::{Error, Result};
use crate::record::{self, InputRecord, Interrupted, Outcome, Run};
use crate::task::Task;
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
    task: Option<Task>,
    layers: Vec<String>,
    inputs: Vec<InputRecord>,
    /// The current input, and the files written for it.
    current: Option<(PathBuf, Vec<PathBuf>)>,
    /// Whether `run.json` is written.
    recorded: bool,
}

impl Progress {
    pub fn new(
        start: Instant,
        arguments: &MapArguments,
        model_input: &ModelInput,
        model: &Model,
    ) -> Result<Self> {
        Ok(Self {
            start,
            arguments: arguments.clone(),
            model_sha256: sha256(&arguments.model.model)?,
            card: model_input.card_path.clone(),
            device: model_input.device.to_string(),
            final_activation: model.facts().final_activation,
            state: Mutex::default(),
        })
    }

    /// Begins the next input.
    pub fn begin(&self, input: &Path) {
        self.state().current = Some((input.to_owned(), Vec::new()));
    }

    /// Adds a file of the current input.
    pub fn wrote(&self, file: PathBuf) {
        if let Some((_, outputs)) = &mut self.state().current {
            outputs.push(file);
        }
    }

    /// Sets the layers that have maps.
    pub fn mapped(&self, layers: Vec<String>) {
        self.state().layers = layers;
    }

    /// Ends the current input.
    pub fn end(&self, outcome: Outcome, task: Option<Task>) {
        let mut state = self.state();
        state.task = state.task.or(task);
        if let Some((input, outputs)) = state.current.take() {
            state.inputs.push(InputRecord { input, outputs, outcome });
        }
    }

    /// The record of the run so far.
    pub fn record(&self) -> Run<&MapArguments> {
        let State { task, layers, inputs, .. } = self.state().clone();
        let failed = inputs.iter().filter(|i| matches!(i.outcome, Outcome::Failed { .. })).count();
        Run {
            medcam: VERSION.to_owned(),
            libtorch: env!("MEDCAM_LIBTORCH").to_owned(),
            model_sha256: self.model_sha256.clone(),
            card: self.card.clone(),
            device: self.device.clone(),
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
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

    /// Notes that `run.json` is written.
    pub fn recorded(&self) {
        self.state().recorded = true;
    }

    /// A signal ends the run: writes `run.json` with what was done.
    pub fn interrupted(&self, stopped: &Stopped, signal: &str) {
        if self.state().recorded {
            return;
        }
        self.end(Outcome::Failed { error: format!("interrupted by {signal}") }, None);
        let run = self.record();
        let (done, all) = (run.inputs.len() - run.failed, self.arguments.inputs.len());
        let interrupted =
            Interrupted { signal: signal.to_owned(), not_begun: all - run.inputs.len() };
        let run = Run { interrupted: Some(interrupted), ..run };
        let file = self.arguments.output.join(record::FILE);
        let written = run.to_json().map(|text| stopped.write(&file, text.as_bytes()));
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

/// The SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> Result<String> {
    let refuse = |error: std::io::Error| Error::file(path, &error).because(error);
    let mut file = File::open(path).map_err(refuse)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(refuse)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Peak memory of this process in bytes (VmHWM); `None` if the system does not report it.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}
