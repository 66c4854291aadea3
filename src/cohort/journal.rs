//! The journal of a cohort on disk: what was begun, what has ended, and what a later run has left to do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Case, Part};
use crate::error::{Error, Result};
use crate::record::{self, CaseRecord, Line, MemoryPrediction, OutputFile, Plan, Status};

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
/// let cases = cases_of(&["scans"], None)?;
/// let (journal, earlier) = Journal::open("maps", None, plan, true)?;
/// let left = earlier.left_of(cases, false);
/// println!("{} cases are left", left.cases.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` once a line could not be written whole.
    file: Mutex<Option<File>>,
}

/// What a journal says of earlier runs.
#[derive(Debug, Default)]
pub struct Earlier {
    folder: PathBuf,
    /// How each case ended, the last time it did, and with which files.
    ended: HashMap<String, (Status, Vec<(PathBuf, u64)>)>,
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
    /// How many ended before, and stay as they are.
    pub ended: usize,
    /// How many of these have no maps.
    pub failed: usize,
}

impl Journal {
    /// Opens the journal of a folder, or of one part of the cohort in it, or begins one.
    ///
    /// A last line that a death cut off is removed.
    ///
    /// # Errors
    ///
    /// If another run has it open, it is damaged, or it is one of another plan: the message names what
    /// differs. If the folder has journals of another number of parts, or, without `resume`, one of this part.
    pub fn open(
        folder: impl AsRef<Path>,
        part: Option<Part>,
        plan: &Plan,
        resume: bool,
    ) -> Result<(Self, Earlier)> {
        let folder = folder.as_ref();
        let path = folder.join(Part::journal(part));
        check_parts(folder, part, plan)?;
        let refuse = |error: io::Error| {
            Error::file(&path, format!("cannot be opened: {error}")).because(error)
        };
        let file =
            OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(refuse)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::busy(format!(
                    "{}: another run writes into this folder; wait for it, or take another folder",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => tracing::warn!(
                "{}: cannot be locked ({error}): see to it that no other run writes into this folder",
                path.display()
            ),
            Ok(()) => {}
        }
        let (earlier, whole) = Earlier::read(&path, &file, plan, folder)?;
        if earlier.is_resumed && !resume {
            return Err(Error::usage(format!(
                "{}: a run into this folder has begun already. Go on with it (--resume), or take another folder",
                folder.display()
            )));
        }
        if whole < file.metadata().map_err(refuse)?.len() {
            file.set_len(whole).map_err(refuse)?;
        }
        let journal = Self { path, file: Mutex::new(Some(file)) };
        let first = match earlier.is_resumed {
            true => Line::Resumed,
            false => Line::Run(plan.clone()),
        };
        journal.append(&first, true)?;
        sync_folder(folder)?;
        if let Ok(Some(parent)) = folder.canonicalize().as_deref().map(Path::parent) {
            // Ignore failure: a parent that may be entered need not be readable.
            let _ = sync_folder(parent);
        }
        Ok((journal, earlier))
    }

    /// Notes that the run stops, and that this is no fault of what it has begun.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn stop(&self, reason: &str) -> Result<()> {
        self.append(&Line::Stopped { reason: reason.to_owned() }, true)
    }

    /// Notes how much memory the run will take.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn predict(&self, prediction: MemoryPrediction) -> Result<()> {
        self.append(&Line::Memory(prediction), false)
    }

    /// Notes that a case is begun.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn begin(&self, id: &str) -> Result<()> {
        // Synced: after a loss of power, this tells which case was in flight.
        self.append(&Line::Begun { id: id.to_owned() }, true)
    }

    /// Notes that a case which was begun will be begun again later.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn postpone(&self, id: &str) -> Result<()> {
        self.append(&Line::Postponed { id: id.to_owned() }, false)
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
        self.append(&Line::Ended(record), true)
    }

    /// Writes a line, whole or not at all; after a failure nothing is written any more.
    fn append(&self, line: &Line, sync: bool) -> Result<()> {
        let text = line.to_json()? + "\n";
        let mut journal = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = journal.as_mut() else {
            return Err(Error::file(&self.path, "cannot be written since an earlier failure"));
        };
        let length = file.metadata().map(|file| file.len());
        let written = file.write_all(text.as_bytes()).and_then(|()| match sync {
            true => file.sync_data(),
            false => Ok(()),
        });
        let Err(error) = written else { return Ok(()) };
        // Half a line at the end is cut by the next run; another line behind it would be lost with it.
        let _ = length.and_then(|length| file.set_len(length));
        *journal = None;
        Err(Error::file(&self.path, format!("cannot be written: {error}")).because(error))
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

/// Refuses to divide a cohort in another way than the journals in its folder did, and a part of another run than
/// the other parts.
fn check_parts(folder: &Path, part: Option<Part>, plan: &Plan) -> Result<()> {
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
        if other.map(Part::id) != part.map(Part::id) {
            check_plan(&path, plan)?;
        }
    }
    Ok(())
}

/// Refuses a journal whose first line is another plan; it may not be written yet.
fn check_plan(path: &Path, plan: &Plan) -> Result<()> {
    let refuse = |error: io::Error| Error::file(path, &error).because(error);
    let mut first = String::new();
    let file = File::open(path).map_err(refuse)?;
    BufReader::new(file).read_line(&mut first).map_err(refuse)?;
    let Ok(Line::Run(then)) = serde_json::from_str(&first) else { return Ok(()) };
    match then.differences(plan) {
        differences if differences.is_empty() => Ok(()),
        differences => {
            Err(Error::usage(format!("{}: {}", path.display(), another_run(&differences))))
        }
    }
}

fn another_run(differences: &[String]) -> String {
    let differences = differences.join("; ");
    format!(
        "an earlier run into this folder was another: {differences}. Give the same again, or take another folder"
    )
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::file(folder, format!("cannot be synced: {error}")).because(error))
}

/// Calls `take` with the number from 1, the place and the content of each whole line of a journal; returns where
/// the last of them ends.
pub(super) fn each_line(
    path: &Path,
    file: &File,
    mut take: impl FnMut(usize, u64, Line) -> Result<(), String>,
) -> Result<u64> {
    let refuse = |what: String| Error::usage(format!("{}: {what}", path.display()));
    let mut reader = BufReader::new(file);
    let (mut place, mut text) = (0, Vec::new());
    for number in 1.. {
        text.clear();
        let length = reader.read_until(b'\n', &mut text);
        let length = length.map_err(|error| Error::file(path, &error).because(error))?;
        if text.last() != Some(&b'\n') {
            break;
        }
        let line = serde_json::from_slice(&text)
            .map_err(|error| refuse(format!("damaged: line {number}: {error}")).because(error))?;
        take(number, place, line).map_err(refuse)?;
        place += length as u64;
    }
    Ok(place)
}

impl Earlier {
    /// Reads a journal, but for a last line that is not whole; also gives the length of all others.
    fn read(path: &Path, file: &File, plan: &Plan, folder: &Path) -> Result<(Self, u64)> {
        let mut earlier = Self { folder: folder.to_owned(), ..Self::default() };
        let mut in_flight = BTreeSet::new();
        let whole = each_line(path, file, |number, _, line| {
            match (number, line) {
                (1, Line::Run(then)) => {
                    let differences = then.differences(plan);
                    if !differences.is_empty() {
                        return Err(another_run(&differences));
                    }
                    earlier.is_resumed = true;
                }
                (1, _) | (_, Line::Run(_)) => {
                    return Err(format!("damaged: line {number} is not where it belongs"));
                }
                (_, Line::Resumed) => in_flight.clear(),
                (_, Line::Memory(_)) => {}
                (_, Line::Begun { id }) => {
                    *earlier.deaths.entry(id.clone()).or_default() += 1;
                    in_flight.insert(id);
                }
                (_, Line::Postponed { id }) => {
                    in_flight.remove(&id);
                    earlier
                        .deaths
                        .entry(id)
                        .and_modify(|deaths| *deaths = deaths.saturating_sub(1));
                }
                (_, Line::Stopped { .. }) => {
                    for id in std::mem::take(&mut in_flight) {
                        earlier
                            .deaths
                            .entry(id)
                            .and_modify(|deaths| *deaths = deaths.saturating_sub(1));
                    }
                }
                (_, Line::Ended(record)) => {
                    in_flight.remove(&record.id);
                    earlier.deaths.remove(&record.id);
                    let files =
                        record.outputs.into_iter().map(|output| (output.file, output.bytes));
                    earlier.ended.insert(record.id, (record.status, files.collect()));
                }
            }
            Ok(())
        })?;
        Ok((earlier, whole))
    }

    /// What is left of these cases: those that have not ended, or whose files are no longer there with
    /// the length that was noted; with `retry_failed`, also those that failed or are suspect.
    pub fn left_of(&self, cases: impl IntoIterator<Item = Case>, retry_failed: bool) -> Left {
        let mut left = Left::default();
        for case in cases {
            let deaths = self.deaths.get(&case.id).copied().unwrap_or(0);
            match self.ended.get(&case.id) {
                Some((status, files))
                    if deaths == 0 && self.stands(*status, files, retry_failed) =>
                {
                    left.ended += 1;
                    left.failed += usize::from(*status != Status::Done);
                }
                // Also when it is tried again: what kills each process must not be all that is tried.
                _ if deaths >= DEATHS => left.suspects.push(case),
                Some((Status::Suspect, _)) => left.alone.push(case),
                _ if deaths > 0 => left.alone.push(case),
                _ => left.cases.push(case),
            }
        }
        left
    }

    fn stands(&self, status: Status, files: &[(PathBuf, u64)], retry_failed: bool) -> bool {
        let is_there = |(file, bytes): &(PathBuf, u64)| {
            fs::metadata(self.folder.join(file)).is_ok_and(|file| file.len() == *bytes)
        };
        match status {
            Status::Done => files.iter().all(is_there),
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
