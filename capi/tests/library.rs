//! What the library depends on, what it exports, and how it is named.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{libraries, package, run};
use goblin::elf::Elf;
use goblin::elf::sym::{STB_LOCAL, STT_NOTYPE};

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(package("include/medcam.h")).unwrap();
    let lines = header.lines().filter(|line| !line.starts_with([' ', '/', '#', '}']));
    let lines = lines.filter(|line| !line.starts_with("typedef"));
    let name = |line: &str| {
        let (before, _) = line.split_once('(')?;
        Some(before.rsplit([' ', '*']).next()?.to_owned())
    };
    lines.filter_map(name).collect()
}

#[test]
fn it_exports_what_the_header_declares() {
    let file = fs::read(&libraries().shared).unwrap();
    let elf = Elf::parse(&file).unwrap();
    let exported = elf.dynsyms.iter().filter(|symbol| {
        !symbol.is_import() && symbol.st_bind() != STB_LOCAL && symbol.st_type() != STT_NOTYPE
    });
    let exported: BTreeSet<String> =
        exported.map(|symbol| elf.dynstrtab.get_at(symbol.st_name).unwrap().to_owned()).collect();
    assert!(exported.len() > 15, "{exported:?}");
    assert_eq!(exported, declared());
}

#[test]
fn it_needs_the_system_alone() {
    let file = fs::read(&libraries().shared).unwrap();
    let elf = Elf::parse(&file).unwrap();
    let known = ["libc.so", "libm.so", "libgcc_s.so", "libpthread.so", "libdl.so", "ld-linux"];
    let foreign: Vec<_> = elf
        .libraries
        .iter()
        .filter(|needed| !known.iter().any(|known| needed.starts_with(known)))
        .collect();
    assert!(foreign.is_empty(), "it needs {foreign:?}");
}

#[test]
fn its_name_is_its_abi() {
    let file = fs::read(&libraries().shared).unwrap();
    let elf = Elf::parse(&file).unwrap();
    let abi = match (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR")) {
        ("0", minor) => format!("0.{minor}"),
        (major, _) => major.to_owned(),
    };
    assert_eq!(elf.soname, Some(&*format!("libmedcam.so.{abi}")));
}

#[test]
fn no_files_and_no_torch_are_in_it() {
    let tree = run(Command::new(env!("CARGO"))
        .args(["tree", "-p", "medcam-capi", "-e", "normal", "--prefix", "none", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let packages: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains("medcam-capi") && packages.contains("medcam"), "{packages:?}");
    let unwanted = [
        "parquet",
        "rust_xlsxwriter",
        "image",
        "png",
        "nifti",
        "flate2",
        "plotters",
        "csv",
        "clap",
        "tch",
        "torch-sys",
    ];
    let found: Vec<_> = unwanted.into_iter().filter(|name| packages.contains(name)).collect();
    assert!(found.is_empty(), "the C library is built with {found:?}");
}
