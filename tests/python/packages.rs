//! The package, built and installed as a user does, and the environments that it is tried in.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// What set-up put in this variable.
fn set_up(variable: &str) -> PathBuf {
    match env::var_os(variable) {
        Some(path) => path.into(),
        None => panic!("{variable} is not set: run `python3 scripts/setup.py test` first"),
    }
}

/// What a process printed; it must succeed.
pub fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}\n{}\n{}", text[0], text[1]);
    text.concat()
}

/// Python, without what this process was told of libraries and packages.
fn python(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH").env_remove("PYTHONPATH").env("PYTHONNOUSERSITE", "1");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// An environment of its own, with the package, NumPy and nothing else; made once.
///
/// The extension is built with the profile of these tests, whose dependencies are built already.
fn environment() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        output_of(python(&set_up("MEDCAM_PYTHON")).args(["-m", "venv", "--clear"]).arg(&folder));
        let mut install = python(&folder.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet", "--no-input"]);
        install.args(["--disable-pip-version-check"]);
        install.args(["--config-settings", "build-args=--profile=dev", "./python"]);
        output_of(install.current_dir(REPOSITORY));
        folder
    })
}

fn site_packages() -> PathBuf {
    let code = "import sysconfig; print(sysconfig.get_path('platlib'))";
    let said = output_of(python(&environment().join("bin/python")).args(["-c", code]));
    said.trim().into()
}

/// Python with the package, NumPy and pytest.
pub fn with_numpy() -> Command {
    let mut command = python(&environment().join("bin/python"));
    command.env("PYTHONPATH", set_up("MEDCAM_PYTEST"));
    command
}

/// Python with the same build of the package, PyTorch, the libraries that it accelerates, and what
/// networks of the tests are written with.
pub fn with_torch() -> Command {
    let mut command = python(&set_up("MEDCAM_PYTHON"));
    let others = ["MEDCAM_PEERS", "MEDCAM_NETWORKS_PACKAGES", "MEDCAM_PYTEST"].map(set_up);
    let folders = [site_packages()].into_iter().chain(others);
    command.env("PYTHONPATH", env::join_paths(folders).unwrap());
    command
}
