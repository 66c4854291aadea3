//! All maps of a run in one `.npz` file.

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray_npy::NpzWriter;

use super::MapView;
use crate::error::{Error, Result};
use crate::volumes::Unfinished;

/// The maps of a run in one `.npz` file, which replaces an existing one when it is complete. Its
/// entry `NAME/LAYER/TARGET` is an array `(B, 1, [D,] H, W)` f32.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let file = folder.path().join("maps.npz");
/// use medcam::outputs::{Archive, MapView};
///
/// let values = ndarray::ArrayD::from_elem(vec![1, 1, 4, 5], 0.5);
/// let map =
///     MapView { layer: "up2", target: "best", values: values.view(), classes: &[None], signed: false };
/// let mut archive = Archive::new(&file)?;
/// archive.add("scan", &[map])?;
/// assert_eq!(archive.finish()?, Some(file));
/// # Ok::<(), medcam::Error>(())
/// ```
pub struct Archive {
    path: PathBuf,
    /// The open archive, or why it was given up.
    writing: Result<Writing, String>,
}

/// The order of the fields matters, as they drop in it: `writer` completes its file, then
/// `unfinished` removes it.
struct Writing {
    writer: NpzWriter<FirstFailure>,
    unfinished: Unfinished,
    failure: Failure,
    entries: HashSet<String>,
}

type Failure = Arc<Mutex<Option<io::Error>>>;

/// A file that keeps its first error and discards all later writes. A zip writer completes its file
/// on drop; if that failed, it would print the error to stderr.
struct FirstFailure {
    file: File,
    failure: Failure,
}

impl Archive {
    /// An empty archive, under a temporary name until [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// If `path` names no file, or the file cannot be created.
    pub fn new(path: &Path) -> Result<Self> {
        if path.file_name().is_none() || path.is_dir() {
            let path = path.display();
            return Err(Error::usage(format!(
                "save_archive: '{path}' is no name for a file; give one such as maps.npz"
            )));
        }
        let (unfinished, file) = Unfinished::beside(path).map_err(|error| {
            Error::file(path, format!("cannot make this archive: {error}")).because(error)
        })?;
        let failure = Failure::default();
        let writer = NpzWriter::new(FirstFailure { file, failure: failure.clone() });
        let entries = HashSet::new();
        let writing = Ok(Writing { writer, unfinished, failure, entries });
        Ok(Self { path: path.to_owned(), writing })
    }

    /// Refuses maps that the archive has already.
    ///
    /// # Errors
    ///
    /// If it has one of this name, layer and target.
    pub fn check(&self, name: &str, maps: &[MapView<'_>]) -> Result<()> {
        let Ok(writing) = &self.writing else { return Ok(()) };
        match maps.iter().map(|map| entry(name, map)).find(|entry| writing.entries.contains(entry))
        {
            Some(entry) => Err(Error::input(
                "name",
                format!("the archive has '{entry}' already; give each call a name of its own"),
            )),
            None => Ok(()),
        }
    }

    /// Adds the maps of one forward. If that fails, the archive is given up, and later calls add
    /// nothing.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn add(&mut self, name: &str, maps: &[MapView<'_>]) -> Result<()> {
        let Ok(writing) = &mut self.writing else { return Ok(()) };
        let Err(why) = maps.iter().try_for_each(|map| writing.add(name, map)) else {
            return Ok(());
        };
        let error = format!("cannot write to this archive, which is given up: {why}");
        self.writing = Err(why);
        Err(Error::file(&self.path, error))
    }

    /// Completes the archive and renames it to its path. Returns `None` if there were no maps; an
    /// existing archive then stays.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or was given up before.
    pub fn finish(self) -> Result<Option<PathBuf>> {
        let Self { path, writing } = self;
        let refuse = |why| Error::file(&path, format!("this archive was not written: {why}"));
        let Writing { writer, unfinished, failure, entries } = writing.map_err(refuse)?;
        if entries.is_empty() {
            return Ok(None);
        }
        let output = writer.finish().map_err(|error| refuse(error.to_string()).because(error))?;
        let failed = lock(&failure).take().map_or(Ok(()), Err);
        failed
            .and_then(|()| unfinished.rename(&output.file, &path))
            .map_err(|error| refuse(error.to_string()).because(error))?;
        Ok(Some(path))
    }
}

impl Writing {
    fn add(&mut self, name: &str, map: &MapView<'_>) -> Result<(), String> {
        let text = |error: &dyn Display| error.to_string();
        let entry = entry(name, map);
        let added = self.writer.add_array(entry.clone(), &map.values);
        // Reports the first failure, not the errors that follow from it.
        lock(&self.failure).as_ref().map_or(Ok(()), |error| Err(text(error)))?;
        added.map_err(|error| text(&error))?;
        self.entries.insert(entry);
        Ok(())
    }
}

fn entry(name: &str, map: &MapView<'_>) -> String {
    format!("{name}/{}/{}", map.layer, map.target)
}

fn lock(failure: &Failure) -> MutexGuard<'_, Option<io::Error>> {
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Write for FirstFailure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut failure = lock(&self.failure);
        if failure.is_none() {
            match self.file.write(bytes) {
                Err(error) if error.kind() != ErrorKind::Interrupted => *failure = Some(error),
                result => return result,
            }
        }
        // Reports success without writing, so that the zip writer completes without a message.
        let count = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.file.seek(SeekFrom::Current(count))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for FirstFailure {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}
