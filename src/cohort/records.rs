//! What the journals in a folder say of all cases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Part;
use super::journal::{each_line, journals_in};
use crate::error::{Error, Result};
use crate::record::{CaseRecord, Line, Plan};

/// The last record of each case, over all journals in a folder. In memory are the cases' ids; the records stay
/// on the disk.
///
/// # Example
///
/// ```no_run
/// let records = medcam::cohort::Records::of("maps")?;
/// for record in records.iter() {
///     let record = record?;
///     println!("{}: {:?}", record.id, record.status);
/// }
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug)]
pub struct Records {
    journals: Vec<PathBuf>,
    /// What all journals agree on.
    plan: Plan,
    /// The journal and the place in it of each case's last record, by id.
    places: BTreeMap<String, (usize, u64)>,
    metrics: BTreeSet<String>,
}

impl Records {
    /// Finds the records in all journals of a folder. A last line that was cut off counts as not there.
    ///
    /// # Errors
    ///
    /// If there is no journal, one is damaged, or two are of different runs.
    pub fn of(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let journals = journals_in(folder)?;
        let mut plan: Option<Plan> = None;
        let (mut places, mut metrics) = (BTreeMap::new(), BTreeSet::new());
        for (number, path) in journals.iter().enumerate() {
            let of_journal = scan(path, |place, record| {
                let scores = record.done.iter().flat_map(|done| &done.scores);
                metrics.extend(scores.flat_map(|of_map| of_map.scores.keys().cloned()));
                places.insert(record.id, (number, place));
            })?;
            match (&plan, of_journal) {
                (Some(plan), Some(other)) => {
                    let differences = plan.differences(&other);
                    if !differences.is_empty() {
                        let differences = differences.join("; ");
                        let what = format!("is of another run than the others: {differences}");
                        return Err(Error::file(path, what));
                    }
                }
                (None, of_journal) => plan = of_journal,
                (Some(_), None) => {}
            }
        }
        let Some(plan) = plan else {
            return Err(Error::file(folder, "no journal of a cohort in this folder"));
        };
        Ok(Self { journals, plan, places, metrics })
    }

    /// What was run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of cases that have ended.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no case has ended.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The parts of the cohort that have not begun.
    pub fn parts_without_journal(&self) -> Vec<Part> {
        let name = |path: &PathBuf| path.file_name().map(PathBuf::from);
        let parts =
            self.journals.iter().filter_map(name).filter_map(|name| Part::of_journal(&name));
        let begun: Vec<Part> = parts.flatten().collect();
        let Some(count) = begun.first().map(|part| part.count()) else { return Vec::new() };
        let all = (0..count).filter_map(|id| Part::new(id, count).ok());
        all.filter(|part| !begun.contains(part)).collect()
    }

    /// The metrics that maps were scored by.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().map(String::as_str)
    }

    /// The records, in the order of the cases' ids.
    pub fn iter(&self) -> impl Iterator<Item = Result<CaseRecord>> {
        let mut open: Vec<Option<File>> = self.journals.iter().map(|_| None).collect();
        self.places.values().map(move |&(number, place)| {
            let path = &self.journals[number];
            let refuse = |error: std::io::Error| Error::file(path, &error).because(error);
            let file = match &mut open[number] {
                Some(file) => file,
                none => none.insert(File::open(path).map_err(refuse)?),
            };
            file.seek(SeekFrom::Start(place)).map_err(refuse)?;
            let mut text = String::new();
            BufReader::new(file.by_ref()).read_line(&mut text).map_err(refuse)?;
            match serde_json::from_str(&text) {
                Ok(Line::Ended(record)) => Ok(record),
                _ => Err(Error::file(path, "was changed while it was read")),
            }
        })
    }
}

/// Calls `ended` with the place of each record, and returns the plan, if the first line is whole.
fn scan(path: &Path, mut ended: impl FnMut(u64, CaseRecord)) -> Result<Option<Plan>> {
    let file = File::open(path).map_err(|error| Error::file(path, &error).because(error))?;
    let mut plan = None;
    each_line(path, &file, |_, place, line| {
        match line {
            Line::Run(of_journal) => plan = Some(of_journal),
            Line::Ended(record) => ended(place, record),
            Line::Memory(_)
            | Line::Begun { .. }
            | Line::Postponed { .. }
            | Line::Resumed
            | Line::Stopped { .. } => {}
        }
        Ok(())
    })?;
    Ok(plan)
}
