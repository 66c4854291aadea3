//! `run.json`: what was run, with what, and how it went.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::args::MapArguments;
use super::evaluate::Scored;
use super::terminal::print;
use crate::error::{Error, Result};
use crate::inject::{Timings, Warning};
use crate::torch::Task;
use crate::volumes;

/// What a report is called.
pub const FILE: &str = "run.json";

#[derive(Serialize)]
pub struct Report<'a> {
    pub medcam: &'static str,
    pub libtorch: &'static str,
    pub model_sha256: String,
    pub card: Option<PathBuf>,
    pub device: String,
    pub threads: i32,
    pub options: &'a MapArguments,
    pub task: Option<Task>,
    /// The activation that ends the model, before which the score is taken by default.
    pub final_activation: Option<String>,
    /// The layers chosen.
    pub layers: Vec<String>,
    pub inputs: Vec<InputReport>,
    /// The file of `--archive`; none without maps.
    pub archive: Option<PathBuf>,
    /// The files of `--mask`.
    pub scores: Vec<PathBuf>,
    /// Inputs that failed.
    pub failed: usize,
    /// The signal that ended the run, and how many of the inputs it did not come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<Interrupted>,
    /// Why the archive or the scores could not be written.
    pub error: Option<String>,
    pub seconds: f64,
    pub peak_memory_bytes: Option<u64>,
}

#[derive(Serialize)]
pub struct Interrupted {
    pub signal: String,
    pub not_begun: usize,
}

#[derive(Clone, Serialize)]
pub struct InputReport {
    pub input: PathBuf,
    /// What was written, also where the input failed afterwards.
    pub outputs: Vec<PathBuf>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    Done(Done),
    Failed { error: String },
}

#[derive(Clone, Serialize)]
pub struct Done {
    pub explained: Vec<Explained>,
    /// With `--mask`, of each map.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<Scored>,
    pub warnings: Vec<Warning>,
    pub seconds: Seconds,
}

/// One target of an input.
#[derive(Clone, Serialize)]
pub struct Explained {
    /// `best`, `class2`, `component1`...
    pub target: String,
    /// The class of each sample, where the target is one, with its name where the card has one.
    pub classes: Vec<Option<Class>>,
}

#[derive(Clone, Serialize)]
pub struct Class {
    pub index: usize,
    pub name: Option<String>,
}

#[derive(Clone, Serialize)]
pub struct Seconds {
    pub read: f64,
    pub discovery: f64,
    pub inference: f64,
    pub maps: f64,
    pub write: f64,
}

impl Seconds {
    pub fn new(read: f64, timings: Timings, write: f64) -> Self {
        Self {
            read,
            discovery: timings.discovery.as_secs_f64(),
            inference: timings.inference.as_secs_f64(),
            maps: timings.maps.as_secs_f64(),
            write,
        }
    }
}

impl Report<'_> {
    /// The files that were written.
    pub fn outputs(&self) -> impl Iterator<Item = &Path> {
        let of_inputs = self.inputs.iter().flat_map(|input| &input.outputs);
        of_inputs.chain(&self.archive).chain(&self.scores).map(PathBuf::as_path)
    }

    /// The text of `run.json`.
    pub fn text(&self) -> Result<String> {
        Ok(to_json(self)? + "\n")
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = self.text()?;
        volumes::atomically(&folder.join(FILE), |file| file.write_all(text.as_bytes()))
    }
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Error::usage(format!("json: {error}")).because(error))
}

/// Prints a value as JSON on stdout.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(to_json(value)?)
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
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

/// The most memory that this process has held (VmHWM); `None` where the system does not tell.
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}
