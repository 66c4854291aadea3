//! Compiled kernels on disk, so that only the first process on a machine compiles.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::nvrtc::{Compiler, options};
use super::program::HEADERS;
use super::{Program, Scalar};
use crate::error::Result;

/// The version of the format of an entry: change it with the format.
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

    /// The machine code of one build, if it is on disk and whole.
    pub(super) fn kept(
        &self,
        program: &Program,
        scalar: Scalar,
        compiler: &Compiler,
    ) -> Option<Vec<u8>> {
        read(&self.path(program, scalar, compiler)?)
    }

    /// The machine code of one build, compiled and kept.
    ///
    /// A folder that cannot be read or written is no error: there is one warning, and each process
    /// compiles for itself.
    pub(super) fn build(
        &self,
        program: &Program,
        scalar: Scalar,
        compiler: &Compiler,
    ) -> Result<Vec<u8>> {
        let cubin = compiler.compile(program, scalar)?;
        let Some(path) = self.path(program, scalar, compiler) else { return Ok(cubin) };
        if let Err(error) = write(&path, &cubin) {
            static WARNED: Once = Once::new();
            WARNED.call_once(|| {
                tracing::warn!(
                    "compiled kernels are not kept, so that each process compiles them again: {}: \
                     {error}; name another folder in MEDCAM_CACHE_DIR",
                    path.parent().unwrap_or(&path).display()
                );
            });
        }
        Ok(cubin)
    }

    fn path(&self, program: &Program, scalar: Scalar, compiler: &Compiler) -> Option<PathBuf> {
        let name = name(program, scalar, &compiler.arch(), compiler.version());
        Some(self.folder.as_ref()?.join(name))
    }
}

/// The file of a build, named after everything that its machine code depends on.
fn name(program: &Program, scalar: Scalar, arch: &str, version: (i32, i32)) -> String {
    let mut hash = Sha256::new();
    // Each part is hashed behind its length, so that no other split of the same bytes has this name.
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

/// Writes an entry by renaming a finished file, so that another process never reads half of it.
fn write(path: &Path, cubin: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}", std::process::id()));
    let entry = [FORMAT, &Sha256::digest(cubin), cubin].concat();
    let written = fs::write(&temporary, entry).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Remove the partial entry. Ignore failure: there may be nothing to remove.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::super::choice::Wanted;
    use super::*;

    static PROGRAM: Program = Program {
        stem: "cached",
        source: "extern \"C\" __global__ void cached_f32(float* to) { to[0] = VALUE; }",
        scalars: &[Scalar::F32],
        defines: &[("VALUE", 1)],
        kernels: &[],
    };

    fn cache_in(folder: &Path) -> Cache {
        let folder = folder.as_os_str().to_owned();
        Cache::new(|name| (name == "MEDCAM_CACHE_DIR").then(|| folder.clone()))
    }

    /// As a device gets it: what is kept, else built.
    fn cubin(cache: &Cache) -> Vec<u8> {
        let compiler = Compiler::choose(Wanted { arch: (9, 0), driver: None }).unwrap();
        let kept = cache.kept(&PROGRAM, Scalar::F32, &compiler);
        kept.unwrap_or_else(|| cache.build(&PROGRAM, Scalar::F32, &compiler).unwrap())
    }

    /// The only file of a folder.
    fn entry(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let entry = files.next().unwrap();
        assert_eq!(files.next(), None);
        entry
    }

    #[test]
    fn the_second_process_reads_what_the_first_compiled() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made/on/the/way");
        let compiled = cubin(&cache_in(&folder));
        assert!(compiled.starts_with(b"\x7fELF"));
        assert_eq!(cubin(&cache_in(&folder)), compiled);
        // The planted bytes come back, so the entry was read and nothing was compiled.
        let planted = b"machine code".to_vec();
        write(&entry(&folder), &planted).unwrap();
        assert_eq!(cubin(&cache_in(&folder)), planted);
    }

    #[test]
    fn a_damaged_entry_is_compiled_and_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path());
        let compiled = cubin(&cache);
        let whole = fs::read(entry(folder.path())).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        let short = FORMAT.len() + DIGEST_BYTES;
        for damaged in [&flipped, &whole[..whole.len() - 1], &whole[..short], &whole[..9], b""] {
            fs::write(entry(folder.path()), damaged).unwrap();
            assert_eq!(cubin(&cache), compiled);
            assert_eq!(fs::read(entry(folder.path())).unwrap(), whole);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Not even root makes a folder beneath a file.
        assert!(cubin(&cache_in(&file.path().join("folder"))).starts_with(b"\x7fELF"));
        assert_eq!(fs::read(file.path()).unwrap(), b"");
        // A folder in the place of an entry can be neither read nor replaced.
        let folder = tempfile::tempdir().unwrap();
        cubin(&cache_in(folder.path()));
        let entry = entry(folder.path());
        fs::remove_file(&entry).unwrap();
        fs::create_dir_all(entry.join("full")).unwrap();
        assert!(cubin(&cache_in(folder.path())).starts_with(b"\x7fELF"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn threads_that_write_one_entry_leave_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| cubin(&cache_in(folder.path())))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|cubin| *cubin == all[0]));
        assert_eq!(read(&entry(folder.path())).unwrap(), all[0]);
    }

    #[test]
    fn the_environment_names_the_folder_or_turns_it_off() {
        let folder = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(own, _)| *own == name);
            Cache::new(|name| find(name).map(|(_, value)| value.into())).folder
        };
        let home = ("HOME", "/home/eva");
        let set = |path: &str| Some(PathBuf::from(path));
        assert_eq!(folder(&[home]), set("/home/eva/.cache/medcam/kernels"));
        assert_eq!(folder(&[home, ("XDG_CACHE_HOME", "/x")]), set("/x/medcam/kernels"));
        assert_eq!(folder(&[home, ("MEDCAM_CACHE_DIR", "/kept")]), set("/kept"));
        assert_eq!(folder(&[home, ("MEDCAM_KERNEL_CACHE", "off")]), None);
        assert_eq!(folder(&[("MEDCAM_CACHE_DIR", "/kept"), ("MEDCAM_KERNEL_CACHE", "off")]), None);
        assert_eq!(folder(&[]), None);
        assert_eq!(folder(&[("HOME", "")]), None);
        let none = Cache { folder: None };
        assert!(cubin(&none).starts_with(b"\x7fELF"));
    }

    #[test]
    fn an_entry_is_named_after_all_that_it_depends_on() {
        fn change(change: impl Fn(&mut Program)) -> Program {
            let Program { stem, source, scalars, defines, kernels } = PROGRAM;
            let mut program = Program { stem, source, scalars, defines, kernels };
            change(&mut program);
            program
        }
        let own = name(&PROGRAM, Scalar::F32, "sm_90", (13, 0));
        assert!(own.starts_with("cached-f32-sm_90-") && own.ends_with(".cubin"), "{own}");
        let other_source = change(|program| program.source = "");
        let other_define = change(|program| program.defines = &[("VALUE", 2)]);
        let others = [
            name(&other_source, Scalar::F32, "sm_90", (13, 0)),
            name(&other_define, Scalar::F32, "sm_90", (13, 0)),
            name(&PROGRAM, Scalar::F16, "sm_90", (13, 0)),
            name(&PROGRAM, Scalar::F32, "sm_80", (13, 0)),
            name(&PROGRAM, Scalar::F32, "sm_90", (13, 1)),
        ];
        assert!(others.iter().all(|other| *other != own), "{others:?}");
    }
}
