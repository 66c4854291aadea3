//! Where NVRTC may be on this machine.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::choice::Version;

/// The newest major number of CUDA for which the system's loader is asked; libraries in folders may be of any.
const NEWEST_ASKED_FOR: u32 = 31;

/// A place where NVRTC may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// This file.
    File(PathBuf),
    /// Wherever the system's loader finds this name.
    Loader(String),
}

/// Where NVRTC may be: in the folder `own` and nowhere else, if there is one; otherwise beside libtorch, then
/// on the system's search path. The newest come first in each.
///
/// # Errors
///
/// If `own` has none.
pub(super) fn places(own: Option<&Path>) -> Result<Vec<Place>, String> {
    if let Some(folder) = own {
        let files = libraries_in(folder);
        if files.is_empty() {
            return Err(format!("{} has no libnvrtc.so", folder.display()));
        }
        return Ok(files.into_iter().map(Place::File).collect());
    }
    let mut folders: Vec<PathBuf> = mapped_files().iter().flat_map(|path| beside(path)).collect();
    folders.extend(option_env!("MEDCAM_BUILT_WITH_NVRTC").map(PathBuf::from));
    let searched = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&searched).filter(|path| !path.as_os_str().is_empty()));
    let mut seen = HashSet::new();
    let mut places: Vec<_> = folders
        .iter()
        .flat_map(|folder| libraries_in(folder))
        .filter(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())))
        .map(Place::File)
        .collect();
    let numbered = (12..=NEWEST_ASKED_FOR).rev().map(|major| format!("libnvrtc.so.{major}"));
    places.extend(numbered.chain(["libnvrtc.so".to_owned()]).map(Place::Loader));
    Ok(places)
}

/// The shared libraries of NVRTC in a folder, each file once, the newest by its name first: `libnvrtc.so.13`,
/// `libnvrtc.so`, and `libnvrtc-b51b459d.so.12` as in a libtorch that comes as an archive.
pub(super) fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = named(folder, "libnvrtc");
    // Stable, and a name without a number is the last: it is a link to one of the others.
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut seen = HashSet::new();
    let files = found.into_iter().map(|(_, path)| path);
    files.filter(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone()))).collect()
}

/// The builtins in a folder that belong to NVRTC of a version.
pub(super) fn builtins_in(folder: &Path, version: Version) -> Vec<PathBuf> {
    let number = [version.0, version.1];
    let of_version =
        |numbers: &[i32]| numbers.iter().zip(number).all(|(have, wanted)| *have == wanted);
    let found = named(folder, "libnvrtc-builtins").into_iter();
    found.filter(|(numbers, _)| of_version(numbers)).map(|(_, path)| path).collect()
}

/// The files in a folder called `<stem>.so.12.8` or `<stem>-<hash>.so.12.8`, by path, with the numbers behind `.so`.
fn named(folder: &Path, stem: &str) -> Vec<(Vec<i32>, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            Some((numbers(&entry.file_name().to_string_lossy(), stem)?, entry.path()))
        })
        .collect();
    found.sort_by(|(_, a), (_, b)| a.cmp(b));
    found
}

/// `[12, 8]` of `<stem>.so.12.8` and `<stem>-<hash>.so.12.8`; `None` for other names.
fn numbers(name: &str, stem: &str) -> Option<Vec<i32>> {
    let (front, numbers) = name.strip_prefix(stem)?.split_once(".so")?;
    let is_hash = |hash: &str| hash.len() >= 6 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !front.is_empty() && !front.strip_prefix('-').is_some_and(is_hash) {
        return None;
    }
    if numbers.is_empty() {
        return Some(Vec::new());
    }
    numbers.strip_prefix('.')?.split('.').map(|number| number.parse().ok()).collect()
}

/// Folders where NVRTC comes with a libtorch of which `library` is a file: the same folder in an archive, and
/// `nvidia/*/lib` next to `torch/lib` in a Python environment.
fn beside(library: &Path) -> Vec<PathBuf> {
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    let is_libtorch = ["libtorch", "libc10"].iter().any(|stem| name.starts_with(stem));
    let Some(folder) = library.parent().filter(|_| is_libtorch && name.contains(".so")) else {
        return Vec::new();
    };
    let packages = folder.parent().map(|torch| torch.with_file_name("nvidia"));
    let packages = packages.and_then(|packages| std::fs::read_dir(packages).ok());
    let mut folders: Vec<_> = packages
        .into_iter()
        .flatten()
        .flatten()
        .map(|package| package.path().join("lib"))
        .collect();
    folders.sort();
    folders.insert(0, folder.to_owned());
    folders
}

/// The files of libtorch, and others, that are loaded into this process, where the system tells.
fn mapped_files() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut seen = HashSet::new();
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    paths.filter(|path| path.contains(".so") && seen.insert(*path)).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        folder
    }

    fn file_names(paths: &[PathBuf]) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        paths.iter().map(name).collect()
    }

    #[test]
    fn libraries_are_found_under_all_their_names() {
        let folder = folder_with(&[
            "libnvrtc.so.12",
            "libnvrtc.so.9.2",
            "libnvrtc.so.14",
            "libnvrtc-b51b459d.so.12",
            "libnvrtc.alt.so.13",
            "libnvrtc.so.13.old",
            "libnvrtc_static.a",
            "libnvrtc-builtins.so.12.8",
            "libnvrtc-builtins-0123abcd.so.12.8",
            "libnvrtc-builtins.so.13.0",
            "libnvrtc-builtins.alt.so.13.0",
            "libnvrtc-builtins.so",
            "libnvJitLink.so.12",
        ]);
        let link = folder.path().join("libnvrtc.so");
        std::os::unix::fs::symlink("libnvrtc.so.14", link).unwrap();
        let names =
            ["libnvrtc.so.14", "libnvrtc-b51b459d.so.12", "libnvrtc.so.12", "libnvrtc.so.9.2"];
        assert_eq!(file_names(&libraries_in(folder.path())), names);
        let builtins = |version| file_names(&builtins_in(folder.path(), version));
        assert_eq!(builtins((13, 0)), ["libnvrtc-builtins.so", "libnvrtc-builtins.so.13.0"]);
        let names = [
            "libnvrtc-builtins-0123abcd.so.12.8",
            "libnvrtc-builtins.so",
            "libnvrtc-builtins.so.12.8",
        ];
        assert_eq!(builtins((12, 8)), names);
        assert_eq!(libraries_in(&folder.path().join("missing")), [] as [PathBuf; 0]);
        let plain = folder_with(&["libnvrtc.so"]);
        assert_eq!(file_names(&libraries_in(plain.path())), ["libnvrtc.so"]);
    }

    #[test]
    fn a_folder_that_is_named_is_the_only_place() {
        let folder = folder_with(&["libnvrtc.so.13"]);
        let file = Place::File(folder.path().join("libnvrtc.so.13"));
        assert_eq!(places(Some(folder.path())).unwrap(), [file]);
        let empty = folder_with(&[]);
        let why = places(Some(empty.path())).unwrap_err();
        assert_eq!(why, format!("{} has no libnvrtc.so", empty.path().display()));
        let all = places(None).unwrap();
        for name in ["libnvrtc.so.14", "libnvrtc.so.12", "libnvrtc.so"] {
            assert!(all.contains(&Place::Loader(name.to_owned())), "{all:?}");
        }
    }

    #[test]
    fn folders_beside_libtorch() {
        let environment = tempfile::tempdir().unwrap();
        let root = environment.path();
        for folder in ["torch/lib", "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let folders =
            ["torch/lib", "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"].map(|f| root.join(f));
        assert_eq!(beside(&root.join("torch/lib/libtorch_cpu.so")), folders);
        assert_eq!(beside(&root.join("torch/lib/libgomp.so.1")), [] as [PathBuf; 0]);
        assert_eq!(beside(Path::new("/libtorch/lib/libc10.so")), [Path::new("/libtorch/lib")]);
    }
}
