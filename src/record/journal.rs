//! The journal of a cohort as types: `journal.jsonl`, a JSON line for the run and for each case that begins or ends.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Done;
use crate::error::{Error, Result};

/// File name of a journal.
pub const JOURNAL: &str = "journal.jsonl";

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub enum Line {
    /// What all cases have in common: the first line.
    Run(Plan),
    /// How much memory the run will take, by prediction; cases have the real peak when they end.
    Memory(MemoryPrediction),
    /// A case is begun. Without an end, the process died before it.
    Begun {
        /// Its id.
        id: String,
    },
    /// A case has ended.
    Ended(CaseRecord),
    /// A case that there was no memory for beside others: it will be begun again, alone.
    Postponed {
        /// Its id.
        id: String,
    },
    /// A later run goes on.
    Resumed,
    /// The run is told to stop, or stops by itself: that what it has begun may not end is no case's fault.
    Stopped {
        /// Why: a signal's name, such as `SIGTERM`, or `error`.
        reason: String,
    },
}

impl Line {
    /// The text of the line, without its end.
    ///
    /// # Errors
    ///
    /// If a path is not UTF-8.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::usage(format!("json: {error}")).because(error))
    }
}

/// What a run is, and what another must be to go on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The version of this crate.
    pub medcam: String,
    /// The version of libtorch.
    pub libtorch: String,
    /// SHA-256 of the model's file, in hexadecimal.
    pub model_sha256: String,
    /// The kind of device that runs the model: `cpu`, `cuda`.
    pub device: String,
    /// Number of CPU threads, on which the last bits of a map may depend.
    pub threads: usize,
    /// Number of cases.
    pub cases: usize,
    /// SHA-256 of all ids, images, masks and labels.
    pub cases_sha256: String,
    /// All settings, such as the model card.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// The most memory that a cohort takes on the host, as it is predicted.
///
/// `peak = process + models · (forward − process) + in_flight · case`, of the case that takes the most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryPrediction {
    /// The limit that it was made for, in bytes.
    pub limit_bytes: u64,
    /// The process with its models, before anything has run.
    pub process_bytes: u64,
    /// The process while one input runs and its maps are made.
    pub forward_bytes: u64,
    /// What a case in flight takes beside: `4.4 · (2 · image + input + output + (maps + 2) · map)` bytes, of numbers
    /// of values. The image is there twice while it is read, and a map three times while it is written; a tenth is
    /// for what allocators lose.
    pub case_bytes: u64,
    /// How many cases are in flight: as many as fit.
    pub in_flight: usize,
    /// The peak of the process.
    pub peak_bytes: u64,
    /// The id of the case that takes the most, of those that fit.
    pub largest: String,
    /// The shape of the model's input for this case.
    pub input_shape: Vec<usize>,
    /// The shape of the greatest input that was tried; where it is smaller than `input_shape`, `forward_bytes` is
    /// on the line through the last two trials.
    pub tried_shape: Vec<usize>,
    /// Seconds that the greatest trial took, from input to maps, the second time.
    pub tried_seconds: f64,
    /// How many cases do not fit even alone. They fail without being read.
    pub too_large: usize,
}

/// A case at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaseRecord {
    /// Its id.
    pub id: String,
    /// Its image.
    pub image: PathBuf,
    /// What became of it.
    pub status: Status,
    /// Why it has no maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The files that were written, even if the case failed afterwards.
    pub outputs: Vec<OutputFile>,
    /// What was explained, scores, warnings and timings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
    /// Peak memory of the process until the case ended, in bytes; `None` if the system does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

impl CaseRecord {
    /// A case that has no maps, and why.
    pub fn without_maps(
        id: impl Into<String>,
        image: impl Into<PathBuf>,
        status: Status,
        reason: impl Into<String>,
    ) -> Self {
        let (id, image, reason) = (id.into(), image.into(), Some(reason.into()));
        Self { id, image, status, reason, outputs: Vec::new(), done: None, peak_memory_bytes: None }
    }
}

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has its maps.
    Done,
    /// It failed, and the others went on.
    Failed,
    /// The process died twice while it was being explained: set aside.
    Suspect,
}

/// The word in the journal: `done`, `failed` or `suspect`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Suspect => "suspect",
        })
    }
}

/// A file that a case wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Its path from the folder of the journal.
    pub file: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

impl OutputFile {
    /// Whether the file is in the folder of the journal, with this length.
    pub fn is_in(&self, folder: impl AsRef<Path>) -> bool {
        let file = fs::metadata(folder.as_ref().join(&self.file));
        file.is_ok_and(|file| file.is_file() && file.len() == self.bytes)
    }
}

impl Plan {
    /// The names of what is different in another plan, with both values.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (Ok(serde_json::Value::Object(ours)), Ok(serde_json::Value::Object(others))) =
            (serde_json::to_value(self), serde_json::to_value(other))
        else {
            return Vec::new();
        };
        let mut differences = Vec::new();
        let mut compare = |ours: &serde_json::Map<_, _>, others: &serde_json::Map<_, _>| {
            let names = ours.keys().chain(others.keys().filter(|name| !ours.contains_key(*name)));
            for name in names.filter(|name| *name != "settings") {
                let [one, two] = [ours, others]
                    .map(|values| values.get(name).unwrap_or(&serde_json::Value::Null));
                if one != two && name == "cases_sha256" {
                    differences.push("the ids, images, masks or labels of the cases".to_owned());
                } else if one != two {
                    differences.push(format!("{name}: {one}, now {two}"));
                }
            }
        };
        compare(&ours, &others);
        compare(&self.settings, &other.settings);
        differences
    }
}
