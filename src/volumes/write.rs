//! Writing files so that a crash leaves the old file or the new one, never half a file.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// How the values of a map are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapType {
    /// 32-bit float: the values as they are.
    #[default]
    F32,
    /// 8 bits: `round(255·value)` of values within `0..=1`, a quarter of the size.
    U8,
}

/// Refuses a copy of so many values for which there is no memory now: an allocation that fails ends the process.
pub(super) fn check_memory(values: usize) -> Result<(), String> {
    let none = |_| format!("no memory for a copy of {values} values");
    Vec::<f32>::new().try_reserve_exact(values).map_err(none)
}

/// `round(255·value)`, clamped; NaN becomes 0.
#[expect(clippy::cast_possible_truncation, reason = "clamped to 0..=255; `as` saturates")]
#[expect(clippy::cast_sign_loss, reason = "clamped to 0..=255")]
pub(crate) fn to_u8(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// The temporary names of all files that this process is writing.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

const PREFIX: &str = ".medcam-";
const SUFFIX: &str = ".tmp";

/// Creates an empty temporary file in the folder of `path` and locks it, so that other runs do not
/// remove it.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let temporary = path.with_file_name(format!("{PREFIX}{process}-{number}{SUFFIX}"));
        match File::create_new(&temporary) {
            Ok(file) => {
                // Ignore failure: not every file system has locks, and the process id in the name
                // also protects the file.
                let _ = file.try_lock();
                return Ok((temporary, file));
            }
            // A leftover of an earlier run with the same process id, as is common in containers.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes the temporary files that interrupted runs left in `folder` and in its direct subfolders.
/// Files of live runs stay: their process exists on this machine, or it holds the lock from another
/// machine.
pub(crate) fn remove_leftovers(folder: &Path) {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries(folder) {
        remove_leftover(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            entries(&entry.path()).for_each(|entry| remove_leftover(&entry.path()));
        }
    }
}

fn remove_leftover(path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbers = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
    let Some((process, number)) = numbers.and_then(|numbers| numbers.split_once('-')) else {
        return;
    };
    let (Ok(process), Ok(_)) = (process.parse::<u32>(), number.parse::<u64>()) else { return };
    let alive = if process == std::process::id() {
        unfinished().contains(path)
    } else {
        Path::new("/proc").join(process.to_string()).exists()
    };
    // Where there are no locks, a process of another machine may be writing it.
    let is_locked = || {
        let lock = File::open(path).map(|file| file.try_lock());
        matches!(lock, Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))))
    };
    if !alive && !is_locked() {
        // Ignore failure: another run may have removed the file already.
        let _ = fs::remove_file(path);
    }
}

/// While this guard lives, the process has no unfinished file and cannot create one: writers wait
/// for its lock.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct Stopped {
    _held: MutexGuard<'static, BTreeSet<PathBuf>>,
}

/// Removes all unfinished files and stops all writing; for a process that is about to end.
#[cfg(feature = "cli")]
pub(crate) fn stop_writing() -> Stopped {
    let mut held = unfinished();
    for temporary in std::mem::take(&mut *held) {
        let _ = fs::remove_file(temporary);
    }
    Stopped { _held: held }
}

#[cfg(feature = "cli")]
impl Stopped {
    /// Writes one more file, whole or not at all.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (temporary, mut file) = create_beside(path)?;
        io::Write::write_all(&mut file, bytes)
            .and_then(|()| file.sync_data())
            .and_then(|()| fs::rename(&temporary, path))
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

/// A temporary file beside its destination, removed on drop unless it was renamed.
#[derive(Debug)]
pub(crate) struct Unfinished {
    temporary: PathBuf,
}

impl Unfinished {
    /// A new, empty file in the folder of `path`.
    pub(crate) fn beside(path: &Path) -> io::Result<(Self, File)> {
        // Held until the name is registered, so that `stop_writing` cannot miss the file.
        let mut unfinished = unfinished();
        let (temporary, file) = create_beside(path)?;
        unfinished.insert(temporary.clone());
        Ok((Self { temporary }, file))
    }

    /// Syncs `file` to disk, then renames it to `path`.
    pub(crate) fn rename(self, file: &File, path: &Path) -> io::Result<()> {
        file.sync_data()?;
        let mut unfinished = unfinished();
        fs::rename(&self.temporary, path)?;
        unfinished.remove(&self.temporary);
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // `rename` has removed the entry already.
        if unfinished().remove(&self.temporary) {
            // Ignore failure: the caller reports the error that kept the file from being finished.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Calls `fill` on a new file beside `path`, then renames it to `path`.
pub(crate) fn atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let write = || -> io::Result<()> {
        let (unfinished, file) = Unfinished::beside(path)?;
        let mut writer = BufWriter::new(file);
        fill(&mut writer)?;
        unfinished.rename(&writer.into_inner()?, path)
    };
    write().map_err(|error| Error::file(path, format!("cannot write: {error}")).because(error))
}

/// Creates a folder and its missing parents.
///
/// # Errors
///
/// If the folder cannot be made; the message names it.
pub fn make_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(|error| {
        Error::file(path, format!("cannot make this output folder: {error}")).because(error)
    })
}
