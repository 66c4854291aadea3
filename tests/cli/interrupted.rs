//! Runs that a signal ends: no half-written file stays, and `run.json` records what was done.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ndarray::ArrayD;
use serde_json::Value;

use super::run::{ProcessOutput, Workspace, network, program};

/// Large inputs, so that a run spends most of its time on writing maps.
fn inputs(workspace: &Workspace, count: usize) -> Vec<PathBuf> {
    let values = |i: usize| {
        ArrayD::from_shape_fn(vec![1, 3, 160, 190], |at| {
            ((at[2] * (i + 3) + at[3] * 7) % 23) as f32
        })
    };
    (0..count).map(|i| workspace.array(&format!("x{i:02}.npy"), &values(i))).collect()
}

fn start(workspace: &Workspace, inputs: &[PathBuf]) -> Child {
    let mut command = program();
    command
        .arg("map")
        .arg(network("plain2d.traced.pt"))
        .args(inputs)
        .arg("-o")
        .arg(workspace.at("maps"));
    command.args(["--layer", "full", "--archive"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(120), "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    files(folder).into_iter().filter(hidden).collect()
}

fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(kill.unwrap().success());
}

/// The record of an interrupted run, of which each file that it names is whole.
fn record(maps: &Path, inputs: usize) -> Value {
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(maps.join("run.json")).unwrap()).unwrap();
    let done = record["inputs"].as_array().unwrap();
    let not_begun = record["interrupted"]["not_begun"].as_u64().unwrap();
    assert_eq!(done.len() as u64 + not_begun, inputs as u64);
    for output in done.iter().flat_map(|input| input["outputs"].as_array().unwrap()) {
        medcam::volumes::read_npy(output.as_str().unwrap()).unwrap();
    }
    record
}

#[test]
fn a_signal_finishes_what_is_begun() {
    let workspace = Workspace::new();
    let (inputs, maps) = (inputs(&workspace, 40), workspace.at("maps"));
    for (name, number, after) in [("INT", 2, 1), ("TERM", 15, 3)] {
        let _ = std::fs::remove_dir_all(&maps);
        let mut child = start(&workspace, &inputs);
        wait_for(|| files(&maps).iter().filter(|file| file.ends_with("x00.npy")).count() >= after);
        signal(&child, name);
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "{status}");

        assert_eq!(temporaries(&maps), Vec::<PathBuf>::new());
        let record = record(&maps, inputs.len());
        assert_eq!(record["interrupted"]["signal"], format!("SIG{name}"));
        assert!(record["interrupted"]["not_begun"].as_u64().unwrap() > 0);
        assert_eq!(record["failed"], 0);
        let done = record["inputs"].as_array().unwrap();
        assert!(!done.is_empty() && done.iter().all(|input| input.get("warnings").is_some()));
        assert!(maps.join("attention_maps.npz").exists());
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let workspace = Workspace::new();
    let (inputs, maps) = (inputs(&workspace, 40), workspace.at("maps"));
    for (name, number, after) in [("TERM", 15, 7), ("INT", 2, 3), ("TERM", 15, 12)] {
        let _ = std::fs::remove_dir_all(&maps);
        let mut child = start(&workspace, &inputs);
        wait_for(|| files(&maps).iter().any(|file| file.ends_with("x00.npy")));
        std::thread::sleep(Duration::from_millis(after));
        signal(&child, "INT");
        // Signals that arrive together count as one.
        std::thread::sleep(Duration::from_millis(1));
        signal(&child, name);
        let status = child.wait().unwrap();
        assert!([Some(number), Some(2)].contains(&status.signal()), "{status}");

        assert_eq!(temporaries(&maps), Vec::<PathBuf>::new());
        for input in record(&maps, inputs.len())["inputs"].as_array().unwrap() {
            let whole = input.get("warnings").is_some();
            assert!(whole || input["error"] == format!("interrupted by SIG{name}"), "{input}");
        }
    }
}

/// The next run into a folder removes the temporary files of a run killed by `kill -9`, and keeps
/// those of a live run.
#[test]
fn leftovers_go_with_the_next_run() {
    let workspace = Workspace::new();
    let (maps, layer) = (workspace.at("maps"), workspace.at("maps/features"));
    std::fs::create_dir_all(&layer).unwrap();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let (dead, living) = (dead.id(), std::process::id());
    let stale = [
        maps.join(format!(".medcam-{dead}-0.tmp")),
        layer.join(format!(".medcam-{dead}-17.tmp")),
        layer.join(format!(".medcam-{}-3.tmp", u32::MAX)),
    ];
    let others = [
        maps.join(format!(".medcam-{living}-0.tmp")),
        layer.join(format!(".medcam-{dead}-x.tmp")),
        maps.join("medcam-1-0.tmp"),
        maps.join(".medcam-notes.tmp"),
    ];
    stale.iter().chain(&others).for_each(|path| std::fs::write(path, b"half").unwrap());
    // A file of a live run on another machine: its process does not exist here, but it holds the
    // lock.
    let held = layer.join(format!(".medcam-{dead}-99.tmp"));
    let file = std::fs::File::create_new(&held).unwrap();
    file.lock().unwrap();

    workspace.map(&network("plain2d.traced.pt"), &[network("plain2d.input.npy")], "").succeeded();
    stale.iter().for_each(|path| assert!(!path.exists(), "{}", path.display()));
    others.iter().chain([&held]).for_each(|path| assert!(path.exists(), "{}", path.display()));
}

/// The folder holds a temporary file of the name that the next run would take, as in containers,
/// where every run has the same process id.
#[test]
fn a_killed_run_stops_no_other() {
    let workspace = Workspace::new();
    let inputs = inputs(&workspace, 40);
    let mut child = start(&workspace, &inputs);
    wait_for(|| !temporaries(&workspace.at("maps")).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    // The archive's temporary file, at least, exists during the whole run.
    assert!(!temporaries(&workspace.at("maps")).is_empty());
    workspace.map(&network("plain2d.traced.pt"), &inputs[..1], "").succeeded();
    assert_eq!(temporaries(&workspace.at("maps")), Vec::<PathBuf>::new());
}

/// A link to a model in a store of models, where the card lies beside the model's file.
#[test]
fn a_linked_model_has_its_card() {
    let workspace = Workspace::new();
    let store = workspace.at("store");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::copy(network("plain2d.traced.pt"), store.join("a1b2.pt")).unwrap();
    std::fs::write(store.join("a1b2.toml"), "classes = [\"zero\", \"one\", \"two\"]\n").unwrap();
    std::os::unix::fs::symlink(store.join("a1b2.pt"), workspace.at("model.pt")).unwrap();
    let input = [network("plain2d.input.npy")];
    workspace.map(&workspace.at("model.pt"), &input, "--label 1").succeeded();
    let card = workspace.report()["card"].as_str().unwrap().to_owned();
    assert!(card.ends_with("store/a1b2.toml"), "{card}");
    // A card beside the link takes precedence.
    std::fs::write(workspace.at("model.toml"), "classes = [\"null\", \"eins\"]\n").unwrap();
    workspace.map(&workspace.at("model.pt"), &input, "--label 1").succeeded();
    assert_eq!(workspace.report()["inputs"][0]["explained"][0]["classes"][0]["name"], "eins");
}

#[test]
fn that_the_first_of_several_outputs_is_explained_is_said_once() {
    let workspace = Workspace::new();
    let input = network("several.input.npy");
    let copy = workspace.at("copy.npy");
    std::fs::copy(&input, &copy).unwrap();
    let said = |ran: &ProcessOutput| ran.stderr.matches("the first is explained").count();
    for (file, options, times) in [
        ("several.TupleOf.traced.pt", "", 1),
        ("several.TupleOf.traced.pt", "--explain-output 0", 0),
        ("plain2d.traced.pt", "", 0),
    ] {
        let inputs = if file.starts_with("plain") {
            vec![network("plain2d.input.npy")]
        } else {
            vec![input.clone(), copy.clone()]
        };
        let ran = workspace.map(&network(file), &inputs, options).succeeded();
        assert_eq!(said(&ran), times, "{file} {options}: {}", ran.stderr);
    }
}
