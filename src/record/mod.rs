//! What a run was and how it went: `run.json` as types, which need no libtorch.
//!
//! [`Run`] is what `medcam map` writes; [`Run::read`] reads it again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::task::Task;
use crate::warning::Warning;

/// What a record is called.
pub const FILE: &str = "run.json";

/// One run over all of its inputs.
///
/// `O` are its options: those of the program where it writes, any JSON where a record is read.
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
    /// Of the model's file, in hexadecimal.
    pub model_sha256: String,
    /// The file of the model card.
    pub card: Option<PathBuf>,
    /// Where the model ran: `cpu`, `cuda:0`.
    pub device: String,
    /// Threads of the CPU.
    pub threads: usize,
    /// All options, defaults among them.
    pub options: O,
    /// What the network does; `None` if no input was run.
    pub task: Option<Task>,
    /// The activation that ends the model, before which the score is taken by default.
    pub final_activation: Option<String>,
    /// The layers whose maps were made.
    pub layers: Vec<String>,
    /// Input by input.
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
    /// The most memory that the process held; `None` where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

/// A run that a signal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Its name, such as `SIGTERM`.
    pub signal: String,
    /// How many inputs the run did not come to.
    pub not_begun: usize,
}

/// One input of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// Its file.
    pub input: PathBuf,
    /// What was written, also where the input failed afterwards.
    pub outputs: Vec<PathBuf>,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How an input went.
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
    /// What was explained, target by target.
    pub explained: Vec<ExplainedTarget>,
    /// The scores of each map, where there is a mask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<MapScores>,
    /// What to know about the maps.
    pub warnings: Vec<Warning>,
    /// Where the time went.
    pub seconds: Seconds,
}

/// One target of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTarget {
    /// `best`, `class2`, `component1`...
    pub target: String,
    /// The class of each sample, where the target is one.
    pub classes: Vec<Option<Class>>,
}

/// A class that was explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Its channel of the output.
    pub index: usize,
    /// Its name, where the model card has one.
    pub name: Option<String>,
}

/// The scores of one map of one sample against its mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapScores {
    /// The layer of the map.
    pub layer: String,
    /// The class that was explained.
    pub class: Option<usize>,
    /// What the map is called in the tables.
    pub name: String,
    /// By metric; null where a score is not defined.
    pub scores: serde_json::Map<String, serde_json::Value>,
}

/// Where the time of one input went, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Reading and preparing the image.
    pub read: f64,
    /// Finding out the layers; zero after the first input.
    pub discovery: f64,
    /// The network's own forward.
    pub inference: f64,
    /// All that the maps took on top.
    pub maps: f64,
    /// Scoring and writing.
    pub write: f64,
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
