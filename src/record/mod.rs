//! The record of a run, `run.json`, as types that need no libtorch.
//!
//! [`Run`] is what `medcam map` writes; [`Run::read`] reads it again.

mod journal;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use journal::{CaseRecord, JOURNAL, Line, MemoryPrediction, OutputFile, Plan, Status};

use crate::error::{Error, Result};
use crate::task::Task;
use crate::warning::Warning;

/// File name of a record.
pub const FILE: &str = "run.json";

/// One run over all of its inputs.
///
/// `O` is the type of the options: the program's own where it writes a record, any JSON where a
/// record is read.
///
/// # Example
///
/// ```no_run
/// let run = medcam::record::Run::read("maps/run.json")?;
/// for input in &run.inputs {
///     println!("{}: {} files", input.input.display(), input.outputs.len());
/// }
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Run<O = serde_json::Value> {
    /// The version of this crate, [`VERSION`](crate::VERSION).
    pub medcam: String,
    /// The version of libtorch.
    pub libtorch: String,
    /// SHA-256 of the model's file, in hexadecimal.
    pub model_sha256: String,
    /// The file of the model card.
    pub card: Option<PathBuf>,
    /// The device that ran the model: `cpu`, `cuda:0`.
    pub device: String,
    /// Number of CPU threads.
    pub threads: usize,
    /// All options, including defaults.
    pub options: O,
    /// The network's task; `None` if no input was run.
    pub task: Option<Task>,
    /// The activation that ends the model, before which the score is taken by default.
    pub final_activation: Option<String>,
    /// The layers that have maps.
    pub layers: Vec<String>,
    /// The record of each input.
    pub inputs: Vec<InputRecord>,
    /// The archive of all maps; none without maps.
    pub archive: Option<PathBuf>,
    /// The tables and plots of all scores.
    pub scores: Vec<PathBuf>,
    /// How many inputs failed.
    pub failed: usize,
    /// The signal that ended the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<Interrupted>,
    /// Why the archive or the scores could not be written.
    pub error: Option<String>,
    /// How long the run took.
    pub seconds: f64,
    /// Peak memory of the process in bytes; `None` if the system does not report it.
    pub peak_memory_bytes: Option<u64>,
}

/// A run that a signal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Its name, such as `SIGTERM`.
    pub signal: String,
    /// Number of inputs that the run did not begin.
    pub not_begun: usize,
}

/// One input of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// Its file.
    pub input: PathBuf,
    /// The files that were written, even if the input failed afterwards.
    pub outputs: Vec<PathBuf>,
    /// Its maps or its error.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome of one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    /// It has its maps.
    Done(Done),
    /// It failed.
    Failed {
        /// Why.
        error: String,
    },
}

/// An input that has its maps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The explained targets.
    pub explained: Vec<ExplainedTarget>,
    /// The scores of each map, if there is a mask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<MapScores>,
    /// How much of each map is attention, if that is measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<MapVolume>,
    /// Warnings about the maps.
    pub warnings: Vec<Warning>,
    /// Time spent on the input.
    pub seconds: Seconds,
}

/// One target of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTarget {
    /// `best`, `class2`, `component1`...
    pub target: String,
    /// The class of each sample, if the target selects one.
    pub classes: Vec<Option<Class>>,
}

/// A class that was explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Its channel of the output.
    pub index: usize,
    /// Its name, if the model card has one.
    pub name: Option<String>,
}

/// The scores of one map of one sample against its mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapScores {
    /// The layer of the map.
    pub layer: String,
    /// The target of the map: `best`, `class2`... Empty in records of versions that left it out.
    #[serde(default)]
    pub target: String,
    /// The number of the sample, from 0.
    #[serde(default)]
    pub sample: usize,
    /// The class that was explained.
    pub class: Option<usize>,
    /// Name of the map in the tables of scores.
    pub name: String,
    /// The scores by metric; null if undefined.
    pub scores: serde_json::Map<String, serde_json::Value>,
}

/// How much of the map of one sample is attention: at or above a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapVolume {
    /// The layer of the map.
    pub layer: String,
    /// The target of the map: `best`, `class2`...
    pub target: String,
    /// The number of the sample, from 0.
    pub sample: usize,
    /// The class that was explained.
    pub class: Option<usize>,
    /// The least value of the normalised map, within `[0, 1]`, that counts as attention.
    pub threshold: f64,
    /// The fraction of the voxels that are attention, within `[0, 1]`.
    pub share: f64,
    /// The volume of the attention in millilitres; `None` for pictures and arrays, whose voxels
    /// have no size.
    pub volume_ml: Option<f64>,
}

/// Time spent on one input, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Reading and preparing the image.
    pub read: f64,
    /// Finding the layers; zero after the first input.
    pub discovery: f64,
    /// The network's own forward.
    pub inference: f64,
    /// Computing the maps, beyond the forward.
    pub maps: f64,
    /// Scoring and writing.
    pub write: f64,
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
///
/// If it cannot be read.
pub fn sha256(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
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
    Ok(to_hexadecimal(&hasher.finalize()))
}

/// The bytes in hexadecimal.
pub(crate) fn to_hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<O> Run<O> {
    /// All files that the run wrote, but for the record itself.
    pub fn outputs(&self) -> impl Iterator<Item = &Path> {
        let of_inputs = self.inputs.iter().flat_map(|input| &input.outputs);
        of_inputs.chain(&self.archive).chain(&self.scores).map(PathBuf::as_path)
    }
}

impl<O: Serialize> Run<O> {
    /// The text of `run.json`.
    ///
    /// # Errors
    ///
    /// If a path is not UTF-8.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|error| Error::usage(format!("json: {error}")).because(error))?;
        Ok(text + "\n")
    }
}

impl Run {
    /// Reads a `run.json`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not one of this version's records.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::file(path, format!("cannot read: {error}")).because(error))?;
        serde_json::from_str(&text).map_err(|error| {
            Error::file(path, format!("no record of a run: {error}")).because(error)
        })
    }
}
