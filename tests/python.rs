//! The Python package: its own tests, in an environment with NumPy alone and in one with PyTorch and the
//! libraries that it accelerates, and its numbers, which are those of the ops.
#![cfg(feature = "dlpack")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[allow(dead_code, reason = "it serves tests/ops.rs too")]
#[path = "ops/common.rs"]
mod common;
#[path = "python/numbers.rs"]
mod numbers;
#[path = "python/packages.rs"]
mod packages;

use std::process::Command;

use packages::{REPOSITORY, output_of, with_numpy, with_torch};

/// Runs the package's own tests, and prints why some were skipped.
fn own_tests(mut python: Command) -> String {
    python.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "python/tests"]);
    let said = output_of(python.current_dir(REPOSITORY));
    println!("{said}");
    said
}

#[test]
fn with_numpy_alone() {
    let said = own_tests(with_numpy());
    assert!(said.contains(" passed") && said.contains("PyTorch is not installed here"), "{said}");
}

#[test]
fn with_pytorch_and_the_libraries_beneath_which_it_goes() {
    let said = own_tests(with_torch());
    // TorchCAM has no release for Python 3.10.
    let lacks = |line: &str| line.contains("is not installed") && !line.contains("torchcam");
    // An older PyTorch may lack what the spared backward stands on; the pinned one has it.
    let is_off = |line: &str| line.contains("this PyTorch has not");
    assert!(said.contains(" passed"), "{said}");
    assert!(!said.lines().any(|line| lacks(line) || is_off(line)), "{said}");
}
