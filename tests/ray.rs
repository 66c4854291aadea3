//! The driver of `examples/ray` on a real cluster of two workers on this machine, one of which is killed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
#[allow(dead_code, reason = "it serves tests/cli.rs too")]
#[path = "cli/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ndarray::ArrayD;
use serde_json::Value;

use run::{ProcessOutput, Workspace, network};

const CASES: usize = 12;

/// What both the driver's workers and the undisturbed run get.
const OPTIONS: [&str; 2] = ["--layer", "full"];

/// Images so large that a worker is killed long before it has explained all of them.
fn images(workspace: &Workspace) -> Vec<PathBuf> {
    let values = |i: usize| {
        ArrayD::from_shape_fn(vec![1, 3, 320 + i, 380], |at| {
            ((at[1] * 5 + at[2] * (i + 3) + at[3] * 7) % 23) as f32 / 23.0
        })
    };
    (0..CASES).map(|i| workspace.array(&format!("x{i:02}.npy"), &values(i))).collect()
}

fn manifest(workspace: &Workspace) -> PathBuf {
    let lines: String = (0..CASES).map(|i| format!("case-{i:02},x{i:02}.npy\n")).collect();
    let path = workspace.at("cases.csv");
    fs::write(&path, format!("id,image\n{lines}")).unwrap();
    path
}

fn driver(workspace: &Workspace) -> Command {
    let mut command = Command::new(common::folder("MEDCAM_PYTHON"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ray/cohort.py"));
    command.arg(network("plain2d.traced.pt")).arg(manifest(workspace));
    command.arg("-o").arg(workspace.at("cohort"));
    command.args(["--workers", "2", "--num-cpus-per-worker", "1"]);
    command.args(["--medcam", env!("CARGO_BIN_EXE_medcam"), "--"]).args(OPTIONS);
    command.env("PYTHONPATH", common::folder("MEDCAM_RAY")).env("PYTHONNOUSERSITE", "1");
    command.env_remove("LD_LIBRARY_PATH").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// A driver that does not outlive a test that fails; Ray's processes end with it.
struct Running {
    child: Child,
    messages: PathBuf,
}

impl Running {
    fn start(workspace: &Workspace) -> Self {
        let messages = workspace.at("messages");
        let file = File::create(&messages).unwrap();
        let child = driver(workspace).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self { child, messages }
    }

    fn messages(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.messages).unwrap()).into_owned()
    }

    /// The process of the worker that is ready first.
    fn first_worker(&mut self) -> u32 {
        let start = Instant::now();
        loop {
            let messages = self.messages();
            let after = messages.split_once("is ready: process ").map(|(_, after)| after);
            // The number is complete once the space after it is there.
            if let Some((process, _)) = after.and_then(|after| after.split_once(' ')) {
                return process.parse().unwrap();
            }
            assert!(self.child.try_wait().unwrap().is_none(), "{messages}");
            assert!(start.elapsed() < Duration::from_secs(180), "no worker: {messages}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill_worker(process: u32) {
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap();
    let command = String::from_utf8_lossy(&command);
    assert!(command.contains("--worker"), "{command}");
    let kill = Command::new("kill").arg("-KILL").arg(process.to_string()).status();
    assert!(kill.unwrap().success());
}

/// The lines of the journal.
fn journal(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks that each case is done exactly once; returns the content of all files by path.
fn files_of_all_cases(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let lines = journal(folder);
    assert_eq!(lines[0]["line"], "run");
    assert_eq!(lines[0]["cases"], CASES);
    let ended: Vec<_> = lines.iter().filter(|line| line["line"] == "ended").collect();
    let mut ids: Vec<_> = ended.iter().map(|line| line["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let expected: Vec<_> = (0..CASES).map(|i| format!("case-{i:02}")).collect();
    assert_eq!(ids, expected);
    let mut files = BTreeMap::new();
    for line in ended {
        assert_eq!(line["status"], "done", "{line}");
        let outputs = line["outputs"].as_array().unwrap();
        assert!(!outputs.is_empty(), "{line}");
        for output in outputs {
            let file = output["file"].as_str().unwrap();
            let content = fs::read(folder.join(file)).unwrap();
            assert_eq!(output["bytes"], content.len(), "{file}");
            assert!(files.insert(file.to_owned(), content).is_none(), "{file} twice");
        }
    }
    files
}

#[test]
fn a_killed_worker_costs_no_case() {
    let workspace = Workspace::new();
    let images = images(&workspace);
    let mut running = Running::start(&workspace);
    let worker = running.first_worker();
    kill_worker(worker);
    let status = running.child.wait().unwrap();
    let messages = running.messages();
    assert!(status.success(), "{messages}");
    assert!(messages.contains("tried again alone"), "{messages}");

    // Cases that were in flight were begun twice, but every case ended once.
    let folder = workspace.at("cohort");
    let files = files_of_all_cases(&folder);
    let begun = journal(&folder).iter().filter(|line| line["line"] == "begun").count();
    assert!(begun > CASES, "{begun}");

    // The same files as those of one undisturbed process, which calls the cases by their images.
    let mut options = vec!["--threads", "1"];
    options.extend(OPTIONS);
    workspace.map_with(&network("plain2d.traced.pt"), &images, options).succeeded();
    for (file, content) in &files {
        let undisturbed = workspace.at("maps").join(file.replace("case-", "x"));
        assert!(fs::read(&undisturbed).unwrap() == *content, "{file}");
    }

    // A second run finds nothing to do.
    let before = fs::read(folder.join("journal.jsonl")).unwrap();
    let again = ProcessOutput::of(&mut driver(&workspace)).succeeded();
    assert!(again.stderr.contains("12 cases, 12 ended before"), "{}", again.stderr);
    assert_eq!(fs::read(folder.join("journal.jsonl")).unwrap(), before);
}
