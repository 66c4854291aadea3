//! The house rules that a compiler does not hold: which room, op or file may use which, where
//! `unsafe` and foreign libraries may appear, how long a file may be, and that each op has its
//! kernel, tests and bench under its name. `layering/planted*.rs` show that each rule catches
//! what breaks it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "layering/arrows.rs"]
mod arrows;
#[path = "layering/circles.rs"]
mod circles;
#[path = "layering/includes.rs"]
mod includes;
#[path = "layering/planted.rs"]
mod planted;
#[path = "layering/planted_arrows.rs"]
mod planted_arrows;
#[path = "layering/rules.rs"]
mod rules;
#[path = "layering/stems.rs"]
mod stems;
#[path = "layering/tree.rs"]
mod tree;
#[path = "layering/words.rs"]
mod words;

use std::fs;
use std::path::Path;

use rules::Tables;
use tree::Files;
use words::Words;

/// Rooms, and the rooms that each may use (itself aside). A room is a folder of `src`, or a file there
/// (a base file). A row that allows what nothing uses fails too.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("vectors", &[]),
    ("shape", &["error"]),
    ("device", &["error"]),
    ("element", &["device", "vectors"]),
    ("ops", &["error", "vectors", "element", "shape", "device"]),
    ("dlpack", &["error", "element", "shape", "device", "ops"]),
    ("task", &["error"]),
    ("components", &[]),
    ("version", &[]),
    ("warning", &[]),
    ("volumes", &["error", "ops"]),
    ("evaluation", &["error", "ops", "volumes"]),
    ("record", &["error", "task", "warning"]),
    ("outputs", &["error", "volumes", "evaluation", "record", "warning"]),
    ("torch", &["error", "task"]),
    ("bridge", &["error", "element", "shape", "device", "ops", "torch"]),
    ("methods", &["error", "ops", "task", "components", "torch", "bridge"]),
    ("explain", &["error", "ops", "task", "warning", "torch", "bridge", "methods"]),
    (
        "inject",
        &[
            "error",
            "warning",
            "torch",
            "bridge",
            "methods",
            "volumes",
            "evaluation",
            "explain",
            "outputs",
        ],
    ),
    (
        "cohort",
        &[
            "error",
            "warning",
            "torch",
            "bridge",
            "methods",
            "volumes",
            "evaluation",
            "record",
            "explain",
            "outputs",
        ],
    ),
    (
        "cli",
        &[
            "error",
            "task",
            "version",
            "torch",
            "methods",
            "volumes",
            "evaluation",
            "record",
            "outputs",
            "explain",
            "cohort",
        ],
    ),
];

/// Shared reductions: folders of `src/ops` that any op may use, named as in `kernels/lib`.
const REDUCTIONS: &[&str] = &["channel_sums", "extremes", "resampling", "voxel_sums"];

/// The op that puts others together, and may use all of them.
const CHAINS: &str = "fused";

/// Ops that use another op's contract or its shared files, but never its `cpu.rs` or `cuda.rs`.
const OPS: &[(&str, &str)] = &[
    ("elementwise", "project"),
    ("guided_product", "normalize"),
    ("guided_product", "resample"),
    ("resample", "normalize"),
    ("summary", "channel_weights"),
];

/// Ops without a kernel of their own.
const NO_KERNEL: &[&str] = &["fused"];

const WORDS: &[Words<'_>] = &[
    (&["unsafe"], &["device", "ops/*/cuda.rs", "dlpack", "torch", "bridge"]),
    (&["cudarc"], &["device"]),
    (
        &["tch", "torch_sys"],
        &["lib.rs", "torch", "bridge", "methods", "explain", "inject", "cohort", "cli"],
    ),
];

/// Headers of the shim that declare what several files define, or nothing.
const ALONE: &[&str] = &["libtorch.h", "shim.h"];

const LONGEST_FILE: usize = 400;

/// Arrows that a rule forbids and that stay, from file to file; one that is gone must go from here too.
const GRANTED: &[(&str, &str)] = &[
    // The written truth of the product is made of the written truths of its parts.
    ("ops/guided_product/cpu.rs", "ops/normalize/cpu.rs"),
    ("ops/guided_product/cpu.rs", "ops/resample/cpu.rs"),
    // On its own grid a map is not resampled: what is left is the launch of `rescale`.
    ("ops/resample/cuda.rs", "ops/normalize/cuda.rs"),
];

const TABLES: Tables<'_> =
    Tables { rooms: ROOMS, reductions: REDUCTIONS, chains: CHAINS, ops: OPS };

/// The files of some folders, by their path within the repository.
fn read(folders: &[&str], suffixes: &[&str]) -> Files {
    let mut found = Files::new();
    for folder in folders {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                found.extend(read(&[&name], suffixes));
            } else if suffixes.iter().any(|suffix| name.ends_with(suffix)) {
                found.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    found
}

/// The library's source, by path within `src`.
fn library() -> Files {
    let files = read(&["src"], &[".rs"]).into_iter();
    let files = files.map(|(name, text)| (name["src/".len()..].to_owned(), text));
    files.filter(|(name, _)| !name.starts_with("bin/")).collect()
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn arrows_go_one_way() {
    none(&TABLES.judge(&arrows::arrows(&library()), GRANTED));
}

#[test]
fn tables_say_no_more_than_what_is_there() {
    let files = library();
    none(&TABLES.beside_the_facts(&arrows::arrows(&files), &files));
}

#[test]
fn includes_go_one_way() {
    let files = read(&["src", "kernels", "tests"], &[".h", ".cpp", ".cu", ".cuh"]);
    none(&includes::judge(&files));
}

#[test]
fn headers_lie_beside_their_source() {
    none(&includes::without_twin(&read(&["src/torch/shim"], &[".h", ".cpp"]), ALONE));
}

#[test]
fn unsafe_code_and_foreign_libraries_stay_in_their_rooms() {
    none(&words::misplaced(&library(), WORDS));
    let programs = read(&["src/bin"], &[".rs"]);
    none(&words::misplaced(&programs, &[(&["unsafe", "cudarc", "tch", "torch_sys"], &[])]));
}

#[test]
fn no_file_is_too_long() {
    let folders = ["src", "kernels", "tests", "benches", "examples", "scripts"];
    none(&too_long(&read(&folders, &[".rs", ".cpp", ".h", ".py", ".cu", ".cuh"])));
}

fn too_long(files: &Files) -> Vec<String> {
    let lengths = files.iter().map(|(file, text)| (file, text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > LONGEST_FILE);
    long.map(|(file, lines)| format!("{file}: {lines} lines")).collect()
}

#[test]
fn each_op_has_its_files_under_its_name() {
    let files = read(&["src", "kernels", "tests", "benches"], &[".rs", ".cu", ".cuh", ".md"]);
    none(&stems::missing(&files, NO_KERNEL, REDUCTIONS));
}
