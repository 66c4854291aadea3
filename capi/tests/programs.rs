//! C and C++ programs on the built library: numbers, refusals, threads, memory, and the examples.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Language, compile, folder, install, is_there, package, run};

/// What a static libmedcam.a needs beside it, as README.md says.
const SYSTEM: [&str; 4] = ["-lpthread", "-ldl", "-lm", "-lgcc_s"];

/// How the library gets into a program.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    Shared,
    Static,
}

/// Compiles a C program against an installed library.
fn program(source: &str, link: Link, flags: &[&str]) -> PathBuf {
    let stem = Path::new(source).file_stem().unwrap().to_str().unwrap();
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let prefix = folder(&format!("{stem}-{}", MADE.fetch_add(1, Ordering::Relaxed)));
    install(&prefix);
    let executable = prefix.join(stem);
    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    let archive = lib.join("libmedcam.a");
    let include = format!("-I{}", include.display());
    let (search, rpath) = (format!("-L{}", lib.display()), format!("-Wl,-rpath,{}", lib.display()));
    let mut all = vec!["-std=c99", "-g", "-O1", &include, "-o", executable.to_str().unwrap()];
    all.extend(flags);
    match link {
        Link::Shared => all.extend([&search, "-lmedcam", &rpath]),
        Link::Static => all.push(archive.to_str().unwrap()),
    }
    all.extend(SYSTEM);
    compile(Language::C, &all, &[&package(source)]);
    executable
}

/// Runs a program, with what it printed.
#[expect(clippy::print_stdout, reason = "what the programs say")]
fn say(command: &mut Command) -> String {
    let output = String::from_utf8(run(command).stdout).unwrap();
    print!("{output}");
    output
}

#[test]
fn numbers() {
    for link in [Link::Shared, Link::Static] {
        say(&mut Command::new(program("tests/c/numbers.c", link, &[])));
    }
}

#[test]
fn refusals() {
    for link in [Link::Shared, Link::Static] {
        say(&mut Command::new(program("tests/c/refusals.c", link, &[])));
    }
}

#[test]
fn threads() {
    say(&mut Command::new(program("tests/c/threads.c", Link::Shared, &["-pthread"])));
}

#[test]
fn limits() {
    say(&mut Command::new(program("tests/c/limits.c", Link::Shared, &[])));
}

/// Where there is no GPU the program says so; with `MEDCAM_REQUIRE_CUDA` that is a failure.
#[test]
fn gpu() {
    say(&mut Command::new(program("tests/c/gpu.c", Link::Shared, &[])));
}

#[test]
fn memory_stays() {
    // malloc keeps small freed blocks of each size in a cache, which fills up over many sizes.
    let tunables = "glibc.malloc.tcache_count=0";
    let program = program("tests/c/memory.c", Link::Shared, &[]);
    say(Command::new(program).env("GLIBC_TUNABLES", tunables));
}

#[test]
fn clean_under_valgrind() {
    if !is_there("valgrind") {
        return;
    }
    for source in ["tests/c/numbers.c", "tests/c/refusals.c"] {
        // The threads of the pool live as long as the process: what is theirs is "possibly lost".
        say(Command::new("valgrind")
            .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
            .args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"])
            .arg(program(source, Link::Shared, &[])));
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "says why it is skipped")]
fn clean_under_address_sanitizer() {
    let probe = folder("sanitizer");
    std::fs::write(probe.join("empty.c"), "int main(void) { return 0; }\n").unwrap();
    let probed = Command::new(Language::C.compiler())
        .args(["-fsanitize=address", "empty.c"])
        .current_dir(&probe)
        .output();
    if !probed.is_ok_and(|probed| probed.status.success()) {
        eprintln!("skipped: the C compiler has no AddressSanitizer");
        return;
    }
    for source in ["tests/c/numbers.c", "tests/c/refusals.c", "tests/c/threads.c"] {
        let flags = ["-fsanitize=address", "-fno-omit-frame-pointer", "-pthread"];
        // Leaks are valgrind's: here their search fails wherever a process may not be traced.
        say(Command::new(program(source, Link::Shared, &flags))
            .env("ASAN_OPTIONS", "detect_leaks=0"));
    }
}

#[test]
fn the_example_in_c() {
    if !is_there("pkg-config") {
        return;
    }
    let prefix = folder("cam");
    install(&prefix);
    let lib = prefix.join("lib");
    let flags = run(Command::new("pkg-config")
        .args(["--cflags", "--libs", "medcam"])
        .env("PKG_CONFIG_PATH", lib.join("pkgconfig")));
    let flags = String::from_utf8(flags.stdout).unwrap();
    let executable = prefix.join("cam");
    let mut all = vec!["-std=c99", "-o", executable.to_str().unwrap()];
    all.extend(flags.split_whitespace());
    compile(Language::C, &all, &[&package("examples/cam.c")]);
    let said = say(Command::new(&executable).env("LD_LIBRARY_PATH", &lib));
    assert!(said.contains(": 255 in the centre, 0 in the corner; "), "{said}");
}

#[test]
#[expect(clippy::print_stderr, reason = "says why it is skipped")]
fn the_example_in_cpp() {
    let Ok(torch) = env::var("LIBTORCH") else {
        eprintln!("skipped: LIBTORCH does not say where libtorch is");
        return;
    };
    if !is_there(&Language::Cpp.compiler()) {
        return;
    }
    let prefix = folder("cam_torch");
    install(&prefix);
    let prefix = prefix.to_str().unwrap();
    let executable = format!("{prefix}/cam_torch");
    // Not `compile`: the headers of libtorch do not compile without warnings.
    run(Command::new(Language::Cpp.compiler())
        .args(["-std=c++17", "-o", &executable])
        .arg(package("examples/cam_torch.cpp"))
        .args([format!("-I{prefix}/include"), format!("-L{prefix}/lib"), "-lmedcam".to_owned()])
        .arg(format!("-Wl,-rpath,{prefix}/lib"))
        .args(["/include", "/include/torch/csrc/api/include"].map(|at| format!("-I{torch}{at}")))
        .args([format!("-L{torch}/lib"), format!("-Wl,-rpath,{torch}/lib")])
        .args(["-ltorch", "-ltorch_cpu", "-lc10"]));
    let said = say(&mut Command::new(executable));
    assert!(said.contains("from torch's operators"), "{said}");
}
