//! The journal of a cohort on disk: what was begun, what has ended, and what a later run has left to do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Case, Part};
use crate::error::{Error, Result};
use crate::record::{self, CaseRecord, Line, OutputFile, Plan, Status};

/// How often a process may die while a case is being explained before that case is set aside.
const DEATHS: usize = 2;

/// The journal of a cohort, in the folder of its maps. While it lives, no other run can open it.
///
/// # Example
///
/// ```no_run
/// # fn example(plan: &medcam::record::Plan) -> medcam::Result<()> {
/// use medcam::cohort::{Journal, cases_of};
///
/// let cases = cases_of(&["scans"])?;
/// let (journal, earlier) = Journal::open("maps", None, plan)?;
/// let left = earlier.left_of(cases, false);
/// println!("{} cases are left", left.cases.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

/// What a journal says of earlier runs.
#[derive(Debug, Default)]
pub struct Earlier {
    folder: PathBuf,
    /// How each case ended, the last time it did.
    ended: HashMap<String, CaseRecord>,
    /// How often the process died during a case that has not ended since.
    deaths: BTreeMap<String, usize>,
    /// Whether there was a journal at all.
    pub is_resumed: bool,
}

/// What is left of a cohort.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Left {
    /// Cases during which the process died once: to be explained one at a time, so that another death
    /// tells which it was.
    pub alone: Vec<Case>,
    /// All others.
    pub cases: Vec<Case>,
    /// Cases that are set aside, as the process died during each of them twice.
    pub suspects: Vec<Case>,
    /// How many ended before.
    pub ended: usize,
}

impl Journal {
    /// Opens the journal of a folder, or of one part of the cohort in it, or begins one.
    ///
    /// A last line that a death cut off is removed.
    ///
    /// # Errors
    ///
    /// If another run has it open, it is damaged, or it is one of another plan: the message names what
    /// differs. If the folder has journals of another number of parts.
    pub fn open(
        folder: impl AsRef<Path>,
        part: Option<Part>,
        plan: &Plan,
    ) -> Result<(Self, Earlier)> {
        let folder = folder.as_ref();
        let path = folder.join(Part::journal(part));
        check_parts(folder, part)?;
        let refuse = |error: io::Error| {
            Error::file(&path, format!("cannot be opened: {error}")).because(error)
        };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(refuse)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::usage(format!(
                    "{}: another run writes into this folder; wait for it, or take another folder",
                    path.display()
                )));
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(refuse)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(refuse)?;
        }
        let earlier = Earlier::parse(&text[..whole], plan, folder)
            .map_err(|what| Error::usage(format!("{}: {what}", path.display())))?;
        let journal = Self { path, file: Mutex::new(file) };
        let first = match earlier.is_resumed {
            true => Line::Resumed,
            false => Line::Run(plan.clone()),
        };
        journal.write(&first)?;
        sync_folder(folder)?;
        Ok((journal, earlier))
    }

    /// Notes that a signal stops the run at once.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn stop(&self, signal: &str) -> Result<()> {
        self.write(&Line::Stopped { signal: signal.to_owned() })
    }

    /// Notes that a case is begun.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn begin(&self, id: &str) -> Result<()> {
        self.append(&Line::Begun { id: id.to_owned() }).map(drop)
    }

    /// Notes how a case ended, once its files are safely on the disk.
    ///
    /// # Errors
    ///
    /// If a folder cannot be synced, or the journal cannot be written.
    pub fn end(&self, record: CaseRecord) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let folders: BTreeSet<_> = record
            .outputs
            .iter()
            .filter_map(|output| output.file.parent())
            .flat_map(Path::ancestors)
            .collect();
        // The files themselves were synced before they got their names.
        folders.into_iter().try_for_each(|inner| sync_folder(&folder.join(inner)))?;
        self.write(&Line::Ended(record))
    }

    fn write(&self, line: &Line) -> Result<()> {
        let file = self.append(line)?;
        file.sync_data().map_err(|error| self.failed(error))
    }

    fn append(&self, line: &Line) -> Result<std::sync::MutexGuard<'_, File>> {
        let text = line.to_json()?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all((text + "\n").as_bytes()).map_err(|error| self.failed(error))?;
        Ok(file)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::file(&self.path, format!("cannot be written: {error}")).because(error)
    }
}

/// The journals in a folder: that of the whole cohort, or those of its parts, in order.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn journals_in(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    let mut journals: Vec<_> = parts_in(folder)?.into_iter().map(|(path, _)| path).collect();
    journals.sort();
    Ok(journals)
}

fn parts_in(folder: &Path) -> Result<Vec<(PathBuf, Option<Part>)>> {
    let refuse = |error: io::Error| Error::file(folder, &error).because(error);
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        if let Some(part) = path.file_name().and_then(|name| Part::of_journal(Path::new(name))) {
            found.push((path, part));
        }
    }
    Ok(found)
}

/// Refuses to divide a cohort in another way than the journals in its folder did.
fn check_parts(folder: &Path, part: Option<Part>) -> Result<()> {
    for (path, other) in parts_in(folder)? {
        if other.map(Part::count) != part.map(Part::count) {
            let [theirs, ours] = [other, part].map(|part| match part {
                Some(part) => format!("in {} parts", part.count()),
                None => "as a whole".to_owned(),
            });
            return Err(Error::usage(format!(
                "{}: this folder's cohort was run {theirs}, and would now be run {ours}. Give the same \
                 --num-parts again, or take another folder",
                path.display()
            )));
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::file(folder, format!("cannot be synced: {error}")).because(error))
}

impl Earlier {
    fn parse(text: &[u8], plan: &Plan, folder: &Path) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|error| format!("damaged: {error}"))?;
        let mut earlier = Self { folder: folder.to_owned(), ..Self::default() };
        let mut in_flight = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = serde_json::from_str(line)
                .map_err(|error| format!("damaged: line {number}: {error}"))?;
            match (index, line) {
                (0, Line::Run(then)) => {
                    let differences = then.differences(plan);
                    if !differences.is_empty() {
                        return Err(format!(
                            "an earlier run into this folder was another: {}. Give the same again, or take another \
                             folder",
                            differences.join("; ")
                        ));
                    }
                    earlier.is_resumed = true;
                }
                (0, _) | (_, Line::Run(_)) => {
                    return Err(format!("damaged: line {number} is not where it belongs"));
                }
                (_, Line::Resumed) => in_flight.clear(),
                (_, Line::Begun { id }) => {
                    *earlier.deaths.entry(id.clone()).or_default() += 1;
                    in_flight.insert(id);
                }
                (_, Line::Stopped { .. }) => {
                    for id in std::mem::take(&mut in_flight) {
                        earlier.deaths.entry(id).and_modify(|deaths| *deaths -= 1);
                    }
                }
                (_, Line::Ended(record)) => {
                    in_flight.remove(&record.id);
                    earlier.deaths.remove(&record.id);
                    earlier.ended.insert(record.id.clone(), record);
                }
            }
        }
        Ok(earlier)
    }

    /// The records of the cases that have ended.
    pub fn ended(&self) -> impl Iterator<Item = &CaseRecord> {
        self.ended.values()
    }

    /// What is left of these cases: those that have not ended, or whose files are no longer there with
    /// the length that was noted; with `retry_failed`, also those that failed or are suspect.
    pub fn left_of(&self, cases: impl IntoIterator<Item = Case>, retry_failed: bool) -> Left {
        let mut left = Left::default();
        for case in cases {
            let deaths = self.deaths.get(&case.id).copied().unwrap_or(0);
            match self.ended.get(&case.id) {
                Some(record) if deaths == 0 && self.stands(record, retry_failed) => left.ended += 1,
                _ if deaths >= DEATHS && !retry_failed => left.suspects.push(case),
                _ if deaths > 0 => left.alone.push(case),
                _ => left.cases.push(case),
            }
        }
        left
    }

    fn stands(&self, record: &CaseRecord, retry_failed: bool) -> bool {
        let is_there = |output: &OutputFile| {
            fs::metadata(self.folder.join(&output.file))
                .is_ok_and(|file| file.len() == output.bytes)
        };
        match record.status {
            Status::Done => record.outputs.iter().all(is_there),
            Status::Failed | Status::Suspect => !retry_failed,
        }
    }
}

/// What a journal holds of a file that was written: its length and the hash of its content.
///
/// # Errors
///
/// If the file cannot be read, or is not in `folder`.
pub fn output_file(folder: &Path, file: &Path) -> Result<OutputFile> {
    let refuse = |error: io::Error| {
        Error::file(file, format!("cannot be read again: {error}")).because(error)
    };
    let bytes = fs::metadata(file).map_err(refuse)?.len();
    let inside = file.strip_prefix(folder).map_err(|error| {
        Error::file(file, format!("is not in {}", folder.display())).because(error)
    })?;
    Ok(OutputFile { file: inside.to_owned(), bytes, sha256: record::sha256(file)? })
}
