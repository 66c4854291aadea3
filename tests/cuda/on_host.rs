//! The tests of this program, run on the host: again as a process of its own, with the driver and the
//! kernels that g++ makes of the same sources. `tests/cuda_on_host/README.md` says what that finds.

use std::ffi::OsString;
use std::process::Command;

#[path = "on_host/build.rs"]
mod build;
#[path = "on_host/caught.rs"]
mod caught;
#[path = "on_host/mutations.rs"]
mod mutations;
#[path = "on_host/refusals.rs"]
mod refusals;

use build::{Flavour, Kernels, build, built};

use crate::common;

/// Part of the names of tests that others would disturb, which a process of their own runs.
const ALONE: &str = "alone_";

/// A run of this program as a process of its own.
struct Run<'a> {
    flavour: Flavour,
    /// Of threads, warps and blocks: `forward`, `reverse`, or the seed of a shuffle.
    order: &'a str,
    /// Which tests, as arguments of this program.
    tests: &'a [&'a str],
    variables: &'a [(&'a str, &'a str)],
}

/// Whether a run passed, and its output.
struct Outcome {
    passed: bool,
    text: String,
}

impl Run<'_> {
    fn of(&self, kernels: &Kernels) -> Outcome {
        let built_files = build(self.flavour, kernels);
        let libraries: Vec<_> =
            built_files.libraries.iter().map(|path| path.display().to_string()).collect();
        let mut path = OsString::from(&built_files.driver);
        if let Some(inherited) = std::env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(inherited);
        }
        let preloaded: Vec<_> =
            self.flavour.preloaded().iter().map(|path| path.display().to_string()).collect();
        let output = command(self.flavour)
            .env("LD_LIBRARY_PATH", path)
            .env("LD_PRELOAD", preloaded.join(":"))
            // Rust code is not instrumented, and both sides keep some memory until the process ends: no leak check.
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .env("UBSAN_OPTIONS", "print_stacktrace=1")
            .env("TSAN_OPTIONS", "atexit_sleep_ms=0:ignore_noninstrumented_modules=1")
            .env("MEDCAM_ON_HOST_KERNELS", libraries.join(":"))
            .env("MEDCAM_ON_HOST_ORDER", self.order)
            .env("MEDCAM_ON_HOST", "1")
            .env("MEDCAM_REQUIRE_CUDA", "1")
            .env("MEDCAM_CACHE_DIR", built().join("cache"))
            .envs(self.variables.iter().copied())
            .args(self.tests)
            .args(["--skip", "on_host::"])
            .args(if self.tests.contains(&ALONE) { &[][..] } else { &["--skip", ALONE] })
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Outcome { passed: output.status.success(), text: text.into_owned() }
    }
}

/// This program, started so that the sanitizer can find room for its tables.
fn command(flavour: Flavour) -> Command {
    let program = std::env::current_exe().unwrap();
    let fixed = || Command::new("setarch").args(["-R", "true"]).status();
    if flavour == Flavour::Thread && fixed().is_ok_and(|status| status.success()) {
        let mut command = Command::new("setarch");
        command.arg("-R").arg(program);
        return command;
    }
    Command::new(program)
}

/// Runs the tests whose names hold `part`, or what MEDCAM_ON_HOST_TESTS asks for, and fails unless
/// they pass.
fn passes(flavour: Flavour, order: &str, part: &str) {
    let asked = std::env::var("MEDCAM_ON_HOST_TESTS");
    let part = asked.as_deref().unwrap_or(part);
    let tests = [part, "the_device_is_the_host"];
    let run = Run { flavour, order, tests: &tests, variables: &[] };
    let outcome = run.of(&Kernels::of(common::programs()));
    let text = outcome.text;
    assert!(outcome.passed, "{flavour:?}, {order}:\n{text}");
    assert!(text.contains("the_device_is_the_host ... ok"), "{text}");
    if asked.is_ok() {
        println!("{text}");
    }
}

#[test]
fn plain_forward() {
    passes(Flavour::Plain, "forward", "");
}

#[test]
fn plain_reverse() {
    passes(Flavour::Plain, "reverse", "");
}

#[test]
fn plain_shuffled() {
    passes(Flavour::Plain, "20240607", "");
}

#[test]
fn address_sanitizer() {
    passes(Flavour::Address, "forward", "");
}

#[test]
fn waits() {
    passes(Flavour::Plain, "forward", ALONE);
}

/// Only the small tests: each CUDA thread is a thread to ThreadSanitizer.
#[test]
fn thread_sanitizer() {
    passes(Flavour::Thread, "forward", "small_");
}
