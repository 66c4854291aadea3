//! Writing files so that a crash leaves the old file or the new one, never half a file.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// `round(255·value)`, clamped; NaN becomes 0.
#[expect(clippy::cast_possible_truncation, reason = "clamped to 0..=255; `as` saturates")]
#[expect(clippy::cast_sign_loss, reason = "clamped to 0..=255")]
pub(crate) fn to_u8(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// A file under a name of its own beside the one that it will have; removed if it is dropped before.
#[derive(Debug)]
pub(crate) struct Unfinished {
    temporary: PathBuf,
}

impl Unfinished {
    /// A new, empty file in the folder of `path`.
    pub(crate) fn beside(path: &Path) -> io::Result<(Self, File)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unique =
            format!(".medcam-{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let temporary = path.with_file_name(unique);
        let file = File::create_new(&temporary)?;
        Ok((Self { temporary }, file))
    }

    /// Puts what was written to `file` in the place of `path`.
    pub(crate) fn rename(self, file: &File, path: &Path) -> io::Result<()> {
        file.sync_data()?;
        fs::rename(&self.temporary, path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already after `rename`; else something failed, and that this does too adds nothing.
        let _ = fs::remove_file(&self.temporary);
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

/// Makes a folder and those above it, if they are not there.
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
