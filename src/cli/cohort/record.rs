//! What the journal says of a case.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::cohort::{Case, Finished, Written, output_file, peak_memory_bytes};
use crate::error::Result;
use crate::record::{CaseRecord, OutputFile, Status};

/// The files of the cases in flight, by number, as they are written.
pub struct Files<'a> {
    folder: &'a Path,
    of_cases: Mutex<HashMap<usize, Result<Vec<OutputFile>>>>,
}

impl<'a> Files<'a> {
    pub fn of(folder: &'a Path) -> Self {
        Self { folder, of_cases: Mutex::default() }
    }

    /// Adds a file, and takes its hash on the thread that wrote it.
    pub fn wrote(&self, index: usize, file: &Path) {
        let output = output_file(self.folder, file);
        let mut of_cases = self.of_cases.lock().unwrap_or_else(PoisonError::into_inner);
        let files = of_cases.entry(index).or_insert_with(|| Ok(Vec::new()));
        match (files, output) {
            (Ok(files), Ok(output)) => files.push(output),
            (Ok(_), Err(error)) => {
                of_cases.insert(index, Err(error));
            }
            (Err(_), _) => {}
        }
    }

    fn take(&self, index: usize) -> Result<Vec<OutputFile>> {
        let mut of_cases = self.of_cases.lock().unwrap_or_else(PoisonError::into_inner);
        of_cases.remove(&index).unwrap_or_else(|| Ok(Vec::new()))
    }

    /// The record of a case.
    pub fn record(&self, finished: Finished<Written>) -> Result<CaseRecord> {
        let Finished { index, case: Case { id, image, .. }, kept } = finished;
        let outputs = self.take(index)?;
        let peak_memory_bytes = peak_memory_bytes();
        Ok(match kept {
            Ok(Written { done, .. }) => CaseRecord {
                id,
                image,
                status: Status::Done,
                reason: None,
                outputs,
                done: Some(done),
                peak_memory_bytes,
            },
            Err(error) => {
                let record = CaseRecord::without_maps(id, image, Status::Failed, error.to_string());
                CaseRecord { outputs, peak_memory_bytes, ..record }
            }
        })
    }

    /// Forgets the files of a case that will be run again.
    pub fn forget(&self, index: usize) {
        let _ = self.take(index);
    }
}
