//! The house rules that a compiler does not hold: which room may use which, where `unsafe` and
//! libtorch may appear, how long a file may be, and that each op has its tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms, and the rooms that each may use (itself aside).
const ROOMS: [(&str, &[&str]); 12] = [
    ("error", &[]),
    ("vectors", &[]),
    ("shape", &["error"]),
    ("device", &["error"]),
    ("element", &["device", "vectors"]),
    ("ops", &["error", "vectors", "element", "shape", "device"]),
    ("volumes", &["error", "ops"]),
    ("evaluation", &["error", "ops", "volumes"]),
    ("torch", &["error", "element", "shape", "device", "ops"]),
    ("methods", &["error", "device", "ops", "torch"]),
    ("inject", &["error", "device", "ops", "torch", "methods", "volumes", "evaluation"]),
    ("cli", &["error", "device", "ops", "torch", "methods", "volumes", "evaluation", "inject"]),
];

/// Rooms that may use libtorch's tensors.
const TENSOR_ROOMS: [&str; 4] = ["torch", "methods", "inject", "cli"];

const LONGEST_FILE: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, suffixes: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, suffixes));
        } else if suffixes.iter().any(|suffix| path.to_string_lossy().ends_with(suffix)) {
            found.push(path);
        }
    }
    found
}

/// The room of a file under `src`: its first folder, or its own name.
fn room(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file, line by line, without comments.
fn code(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap().to_owned()).collect()
}

/// The rooms that a line of code names as `crate::room`.
fn rooms_named(line: &str) -> BTreeSet<String> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| ROOMS.iter().any(|(room, _)| room == name))
        .collect()
}

#[test]
fn arrows_go_one_way() {
    let mut seen = BTreeSet::new();
    for file in files(&root().join("src"), &[".rs"]) {
        let own = room(&file);
        if own == "lib" || own == "bin" {
            continue;
        }
        let (_, allowed) = ROOMS
            .iter()
            .find(|(room, _)| *room == own)
            .unwrap_or_else(|| panic!("{}: a room that is not in ROOMS", file.display()));
        seen.insert(own.clone());
        for line in code(&file) {
            for used in rooms_named(&line).iter().filter(|used| **used != own) {
                assert!(allowed.contains(&used.as_str()), "{}: {own} uses {used}", file.display());
            }
        }
    }
    assert_eq!(seen.len(), ROOMS.len(), "{seen:?}");
}

#[test]
fn an_arrow_that_goes_up_would_be_seen() {
    assert!(rooms_named("use crate::inject::Options;").contains("inject"));
    assert!(rooms_named("fn f(x: crate::torch::Tape, y: crate::ops::View)").len() == 2);
}

#[test]
fn unsafe_code_and_foreign_libraries_stay_in_their_rooms() {
    for file in files(&root().join("src"), &[".rs"]) {
        let own = room(&file);
        let launcher = own == "ops" && file.file_name().unwrap() == "cuda.rs";
        let may_be_unsafe = launcher || own == "torch" || own == "device";
        for line in code(&file) {
            let words: Vec<_> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            assert!(may_be_unsafe || !words.contains(&"unsafe"), "{}: {line}", file.display());
            assert!(own == "device" || !words.contains(&"cudarc"), "{}: {line}", file.display());
            let tch = words.contains(&"tch") || words.contains(&"torch_sys");
            assert!(
                !tch || own == "lib" || TENSOR_ROOMS.contains(&own.as_str()),
                "{}: {line}",
                file.display()
            );
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for folder in ["src", "kernels", "tests", "benches", "examples", "scripts"] {
        for file in files(&root().join(folder), &[".rs", ".cpp", ".h", ".py", ".cu", ".cuh"]) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= LONGEST_FILE, "{}: {lines} lines", file.display());
        }
    }
}

#[test]
fn each_op_has_its_tests_under_its_name() {
    let stems = |folder: &str| -> BTreeSet<String> {
        fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    // Folders that several ops share have a header of the same name, and no test of their own.
    let is_shared = |stem: &String| root().join(format!("kernels/lib/{stem}.cuh")).exists();
    let ops: BTreeSet<_> = stems("src/ops")
        .into_iter()
        .filter(|stem| root().join("src/ops").join(stem).is_dir() && !is_shared(stem))
        .collect();
    assert!(ops.len() >= 4);
    let tests = stems("tests/ops");
    assert!(ops.is_subset(&tests), "{ops:?} {tests:?}");
    let launchers: BTreeSet<_> = ops
        .into_iter()
        .filter(|stem| root().join("src/ops").join(stem).join("cuda.rs").exists())
        .collect();
    let tests = stems("tests/cuda");
    assert!(launchers.is_subset(&tests), "{launchers:?} {tests:?}");
    let mut kernels = stems("kernels");
    kernels.retain(|stem| root().join(format!("kernels/{stem}.cu")).exists());
    assert!(kernels.is_subset(&launchers), "{kernels:?} {launchers:?}");
}
