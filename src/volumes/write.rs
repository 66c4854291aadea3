//! Writing files so that a crash leaves the old file or the new one, never half a file.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;
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

/// Calls `fill` on a new file beside `path`, then renames it to `path`.
pub(crate) fn atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let refuse =
        |error: io::Error| Error::file(path, format!("cannot write: {error}")).because(error);
    let unique =
        format!(".medcam-{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_file_name(unique);
    let write = || -> io::Result<()> {
        let mut writer = BufWriter::new(File::create_new(&temporary)?);
        fill(&mut writer)?;
        writer.into_inner()?.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // The write failed already; that the leftover cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
        refuse(error)
    })
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
