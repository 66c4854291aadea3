//! Compiled kernels on disk, so that only the first process on a machine compiles.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::nvrtc::{library, options};
use super::program::HEADERS;
use super::{Program, Scalar, compile};
use crate::error::Result;

/// Changed when what an entry holds changes.
const FORMAT: &[u8] = b"medcam kernel 1\n";
const DIGEST_BYTES: usize = 32;

/// A folder of compiled kernels; `None` keeps nothing.
pub(super) struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The folder that the environment names: `MEDCAM_CACHE_DIR`, else `medcam/kernels` in the
    /// user's cache folder; none with `MEDCAM_KERNEL_CACHE=off`, or for a user without a home.
    pub(super) fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        if set("MEDCAM_KERNEL_CACHE").is_some_and(|value| value == "off") {
            return Self { folder: None };
        }
        let user = || {
            let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
            Some(cache.or_else(home)?.join("medcam").join("kernels"))
        };
        Self { folder: set("MEDCAM_CACHE_DIR").map(PathBuf::from).or_else(user) }
    }

    /// The machine code of one build: from disk where it is there and whole, else compiled and kept.
    ///
    /// A folder that cannot be read or written costs a warning, once, and no error.
    pub(super) fn cubin(&self, program: &Program, scalar: Scalar, arch: &str) -> Result<Vec<u8>> {
        let Some(folder) = &self.folder else {
            return Ok(compile(program, scalar, arch, &[])?.cubin);
        };
        let path = folder.join(name(program, scalar, arch, library()?.version));
        if let Some(cubin) = read(&path) {
            return Ok(cubin);
        }
        let cubin = compile(program, scalar, arch, &[])?.cubin;
        if let Err(error) = write(&path, &cubin) {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!(
                    "compiled kernels are not kept, so that each process compiles them again: {}: \
                     {error}; name another folder in MEDCAM_CACHE_DIR",
                    folder.display()
                );
            });
        }
        Ok(cubin)
    }
}

/// The file of a build, named after everything that its machine code depends on.
fn name(program: &Program, scalar: Scalar, arch: &str, version: (i32, i32)) -> String {
    let mut hash = Sha256::new();
    // Lengths keep one part from being read as the beginning of the next.
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(program.stem);
    add(program.source);
    for (name, text) in HEADERS {
        add(name);
        add(text);
    }
    for option in options(program, scalar, arch) {
        add(&option);
    }
    add(&format!("{version:?}"));
    let digest: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{arch}-{digest}.cubin", program.stem, scalar.name())
}

/// An entry, if it is there and whole: the format, the digest of the machine code, the machine code.
fn read(path: &Path) -> Option<Vec<u8>> {
    let entry = fs::read(path).ok()?;
    let (digest, cubin) = entry.strip_prefix(FORMAT)?.split_at_checked(DIGEST_BYTES)?;
    (Sha256::digest(cubin)[..] == *digest).then(|| cubin.to_vec())
}

/// Writes an entry so that another process sees all of it or none of it.
fn write(path: &Path, cubin: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}", std::process::id()));
    let entry = [FORMAT, &Sha256::digest(cubin), cubin].concat();
    let written = fs::write(&temporary, entry).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Half an entry must not lie about; that there may be none to remove is no new error.
        let _ = fs::remove_file(&temporary);
    }
    written
}
