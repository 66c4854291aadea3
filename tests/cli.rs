//! The program, run as a process: its files, its messages and its exit codes.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
mod cli {
    pub mod bad_inputs;
    pub mod bad_models;
    pub mod clashes;
    pub mod cohort;
    pub mod cohort_faults;
    pub mod evaluate;
    pub mod exported;
    pub mod gallery;
    pub mod hostile;
    pub mod images;
    pub mod interrupted;
    pub mod memory;
    pub mod oblique;
    pub mod options;
    pub mod outputs;
    #[allow(dead_code, reason = "it serves tests/python.rs too")]
    #[path = "../python/packages.rs"]
    pub mod packages;
    pub mod records;
    pub mod run;
    pub mod score;
    pub mod usage;
    pub mod wild;
}
