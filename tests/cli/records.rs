//! `run.json` and the archive, for runs that succeed and runs that fail.

use std::path::PathBuf;

use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use serde_json::{Value, json};

use super::hostile::walk;
use super::run::{ProcessOutput, Workspace, network, program};

fn entries(workspace: &Workspace) -> Vec<String> {
    let file = std::fs::File::open(workspace.at("maps/attention_maps.npz")).unwrap();
    let mut names = NpzReader::new(file).unwrap().names().unwrap();
    names.sort();
    names
}

/// Copies of an input under other names.
fn inputs(workspace: &Workspace, names: &[&str]) -> Vec<PathBuf> {
    let copy = |name: &&str| {
        std::fs::copy(network("plain2d.input.npy"), workspace.at(name)).unwrap();
        workspace.at(name)
    };
    names.iter().map(copy).collect()
}

#[test]
fn an_archive_is_named_after_its_inputs() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let mut all = inputs(&workspace, &["a.npy", "c.npy"]);
    all.insert(1, workspace.array("b.npy", &ArrayD::zeros(vec![1, 9])));
    let options = "--archive --label 0,1 --layer features.4,features";
    let ran = workspace.map(&model, &all, options).failed(1, &["b.npy", "1 of 3"]);
    let maps = |stem: &str| {
        ["features.4/class0", "features.4/class1", "features/class0", "features/class1"]
            .map(|map| format!("{stem}/{map}"))
    };
    assert_eq!(entries(&workspace), [maps("a"), maps("c")].concat());
    let report = workspace.report();
    let archive = workspace.at("maps/attention_maps.npz");
    assert_eq!((&report["archive"], &report["error"]), (&json!(archive), &Value::Null));
    assert!(ran.stdout.contains(archive.to_str().unwrap()));
    // Each layer is listed once, though every target has a map of it.
    assert_eq!(report["layers"], json!(["features.4", "features"]));
    assert!(std::fs::read_to_string(workspace.at("maps/run.json")).unwrap().ends_with("}\n"));

    // A run without maps leaves the older archive.
    let before = std::fs::read(&archive).unwrap();
    workspace.map(&model, &all[1..2], options).failed(1, &["1 of 1"]);
    assert_eq!(std::fs::read(&archive).unwrap(), before);
    assert_eq!(workspace.report()["archive"], Value::Null);
    assert!(
        walk(&workspace.at("maps"))
            .iter()
            .all(|file| !file.to_str().unwrap().contains("/.medcam-"))
    );
}

/// The shell limits files to 96 blocks of 512 bytes; a map has 18 KiB.
#[cfg(unix)]
#[test]
fn an_archive_that_cannot_grow_costs_no_map() {
    let workspace = Workspace::new();
    let all = inputs(&workspace, &["a.npy", "b.npy", "c.npy", "d.npy"]);
    let medcam = program();
    let mut command = std::process::Command::new("sh");
    command.envs(medcam.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.env_remove("LD_LIBRARY_PATH").args([
        "-c",
        "trap '' XFSZ; ulimit -f 96; exec \"$@\"",
        "sh",
    ]);
    command.arg(medcam.get_program()).arg("map").arg(network("plain2d.traced.pt")).args(&all);
    command.arg("-o").arg(workspace.at("maps")).arg("--archive");
    let words = ["c.npy", "cannot write to this archive, which is given up", "was not written"];
    let ran = ProcessOutput::of(&mut command).failed(1, &words);
    assert!(!ran.stderr.contains("drop failed"), "{}", ran.stderr);
    let report = workspace.report();
    assert!(report["error"].as_str().unwrap().contains("attention_maps.npz"));
    assert_eq!((&report["failed"], &report["archive"]), (&json!(1), &Value::Null));
    let maps = ["a", "b", "c", "d"].map(|stem| workspace.at(format!("maps/features/{stem}.npy")));
    let mut left = walk(&workspace.at("maps"));
    left.sort();
    assert_eq!(left, [&maps[..], &[workspace.at("maps/run.json")]].concat());
}

#[test]
fn scores_that_cannot_be_written_cost_no_report() {
    let workspace = Workspace::new();
    let input = [workspace.picture("p.png")];
    std::fs::create_dir_all(workspace.at("maps/scores.xlsx/full")).unwrap();
    let mask = workspace.array("mask.npy", &ArrayD::ones(vec![33, 47]));
    let options = format!("--label 1 --archive --mask {}", mask.display());
    let ran = workspace.map(&network("plain2d.traced.pt"), &input, &options);
    ran.failed(1, &["error: ", "maps/scores.xlsx: cannot write"]);
    let report = workspace.report();
    assert!(report["error"].as_str().unwrap().contains("scores.xlsx"));
    assert_eq!((&report["failed"], &report["scores"]), (&json!(0), &json!([])));
    assert_eq!(entries(&workspace), ["p/features/class1"]);
}

#[test]
fn an_input_that_the_model_fails_on_hints_at_the_card() {
    let workspace = Workspace::new();
    let model = workspace.at("model.pt");
    std::fs::copy(network("plain2d.traced.pt"), &model).unwrap();
    let one = ArrayD::zeros(vec![1, 3, 1, 1]);
    let input = [workspace.array("one.npy", &one)];
    workspace.map(&model, &input, "").failed(1, &["Output size is too small", "see --card"]);
    let other = [network("plain2d.input.npy")];
    let ran = workspace.map(&model, &other, "--label 99").failed(1, &["out of range"]);
    assert!(!ran.stderr.contains("--card"), "{}", ran.stderr);
    std::fs::write(workspace.at("model.toml"), "[input]").unwrap();
    let ran = workspace.map(&model, &input, "").failed(1, &["Output size is too small"]);
    assert!(!ran.stderr.contains("--card"), "{}", ran.stderr);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_input() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    for name in ["pipe.npy", "pipe.png", "pipe.nii", "pipe.nii.gz"] {
        let made = std::process::Command::new("mkfifo").arg(workspace.at(name)).status().unwrap();
        assert!(made.success());
        workspace
            .map(&model, &[workspace.at(name)], "")
            .failed(1, &[name, "a pipe or device, not a file"]);
    }
}
