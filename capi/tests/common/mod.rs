//! Builds the library as its users get it, and C programs on top of it.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "shared by tests")]

pub mod random;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

/// What a C source is compiled as.
#[derive(Debug, Clone, Copy)]
pub enum Language {
    C,
    Cpp,
}

impl Language {
    pub fn extension(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cpp => "cpp",
        }
    }

    pub fn compiler(self) -> String {
        let (variable, default) = match self {
            Self::C => ("CC", "cc"),
            Self::Cpp => ("CXX", "c++"),
        };
        env::var(variable).unwrap_or_else(|_| default.to_owned())
    }
}

/// The built libraries.
#[derive(Debug)]
pub struct Libraries {
    pub shared: PathBuf,
    pub archive: PathBuf,
}

/// A folder for the files of one test, empty at first.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// This package, or a file of it.
pub fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds the libraries in the profile of this test. Cargo does not build them for integration
/// tests, and in a build of the whole workspace they would have the features of all its packages,
/// and libtorch.
pub fn libraries() -> &'static Libraries {
    static BUILT: OnceLock<Libraries> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let executable = env::current_exe().unwrap();
        // target/<profile>/deps/<test>
        let profile = executable.ancestors().nth(2).unwrap().file_name().unwrap();
        let profile = if profile == "debug" { OsStr::new("dev") } else { profile };
        let built = run(Command::new(env!("CARGO"))
            .args(["build", "-p", "medcam-capi", "--lib", "--message-format=json", "--profile"])
            .arg(profile)
            .arg("--target-dir")
            .arg(target)
            .arg("--manifest-path")
            .arg(package("Cargo.toml")));
        let messages = String::from_utf8(built.stdout).unwrap();
        let files: Vec<PathBuf> = messages
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|message: &serde_json::Value| {
                let crate_types = message["target"]["crate_types"].as_array();
                crate_types.is_some_and(|types| types.iter().any(|of| of == "staticlib"))
            })
            .filter_map(|message| message["filenames"].as_array().cloned())
            .flatten()
            .map(|file| file.as_str().unwrap().into())
            .collect();
        let file = |extension: &str| {
            let file = files.iter().find(|file| file.extension() == Some(OsStr::new(extension)));
            file.unwrap_or_else(|| panic!("no .{extension} among {files:?}")).clone()
        };
        Libraries { shared: file("so"), archive: file("a") }
    })
}

/// Installs the built libraries and headers under `prefix`, as README.md says.
pub fn install(prefix: &Path) {
    let Libraries { shared, archive } = libraries();
    assert_eq!(shared.parent(), archive.parent());
    run(Command::new("sh").arg(package("install.sh")).arg(prefix).arg(shared.parent().unwrap()));
}

/// Runs a command to its end. Panics where it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Compiles with warnings as errors.
pub fn compile(language: Language, flags: &[&str], files: &[&Path]) {
    const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
    run(Command::new(language.compiler()).args(WARNINGS).args(files).args(flags));
}

/// Whether a program is there; says so where it is not.
#[expect(clippy::print_stderr, reason = "says why a test is skipped")]
pub fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: there is no {program}");
    }
    there
}
