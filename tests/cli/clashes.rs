//! No output replaces a file that the run reads.

use std::path::{Path, PathBuf};

use super::hostile::walk;
use super::run::{ProcessOutput, Workspace, network, program};

/// Writes a picture, and creates its folder if needed.
fn picture(workspace: &Workspace, name: &str) -> PathBuf {
    std::fs::create_dir_all(workspace.at(name).parent().unwrap()).unwrap();
    workspace.picture(name)
}

/// Checks that a run is refused and leaves every file in `maps` unchanged.
#[track_caller]
fn refused(workspace: &Workspace, model: &Path, inputs: &[PathBuf], options: &str, words: &[&str]) {
    let before: Vec<_> = walk(&workspace.at("maps")).into_iter().map(content).collect();
    workspace.map(model, inputs, options).failed(2, &[words, &["would replace", "-o"]].concat());
    let after: Vec<_> = walk(&workspace.at("maps")).into_iter().map(content).collect();
    assert!(before == after, "{options}: files changed");
}

fn content(path: PathBuf) -> (PathBuf, Vec<u8>) {
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn what_the_arguments_tell_is_refused_at_once() {
    let model = network("plain2d.traced.pt");
    let run = |files: &[&str], options: &str, words: &[&str]| {
        let workspace = Workspace::new();
        let inputs: Vec<_> = files.iter().map(|name| picture(&workspace, name)).collect();
        refused(&workspace, &model, &inputs, options, words);
    };
    run(&["maps/input/p.png"], "--backend gbp --guide all", &["maps/input/p.png"]);
    run(&["maps/features/p.png"], "--layer features.0,features", &["maps/features/p.png"]);
    run(&["maps/fused/p.png"], "--layer full --fuse max", &["maps/fused/p.png"]);
    let several = ["p.png", "maps/features/p_class2.png"];
    run(&several, "--layer features --label 1,2", &["maps/features/p_class2.png"]);
    let overlay = ["p.png", "maps/features/p_overlay.png"];
    let workspace = Workspace::new();
    let inputs = overlay.map(|name| picture(&workspace, name));
    // With `--picture`, the overlay of one input has the name of the other's map; without it,
    // nothing clashes.
    workspace.map(&model, &inputs, "--layer features --picture").failed(2, &["the same name"]);

    let workspace = Workspace::new();
    let input = [picture(&workspace, "p.png")];
    std::fs::create_dir_all(workspace.at("maps/features")).unwrap();
    let with = |option: &str, file: &str| format!("{option} {}", workspace.at(file).display());
    let output =
        [input[0].clone(), workspace.array("maps/p_output.npy", &ndarray::ArrayD::zeros(vec![1]))];
    refused(&workspace, &model, &output, "--save-output", &["maps/p_output.npy"]);
    std::fs::write(workspace.at("maps/run.json"), "[input]").unwrap();
    refused(&workspace, &model, &input, &with("--card", "maps/run.json"), &["maps/run.json"]);
    picture(&workspace, "maps/mean_scores.png");
    let mask = with("--mask", "maps/mean_scores.png");
    refused(&workspace, &model, &input, &mask, &["maps/mean_scores.png"]);
    picture(&workspace, "maps/features/p.png");
    let mask = with("--label 1 --layer features --target-mask", "maps/features/p.png");
    refused(&workspace, &model, &input, &mask, &["maps/features/p.png"]);
    let archive = workspace.at("maps/attention_maps.npz");
    std::fs::copy(&model, &archive).unwrap();
    refused(&workspace, &archive, &input, "--archive", &["attention_maps.npz"]);

    let options = [Path::new("-o"), &workspace.at("maps")];
    let mut score = program();
    score.arg("score").args([&workspace.at("maps/mean_scores.png"), &input[0]]).args(options);
    ProcessOutput::of(&mut score).failed(2, &["mean_scores.png", "would replace"]);
}

#[test]
fn what_the_model_tells_is_refused_before_it_is_written() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let inputs = [picture(&workspace, "maps/features/p.png"), picture(&workspace, "q.png")];
    let before = std::fs::read(&inputs[0]).unwrap();
    let ran = workspace.map(&model, &inputs, "--label 1 --save-output");
    ran.failed(1, &["maps/features/p.png", "would replace", "1 of 2 input(s) failed"]);
    assert_eq!(std::fs::read(&inputs[0]).unwrap(), before);
    assert_eq!(workspace.report()["inputs"][0]["outputs"], serde_json::json!([]));
    assert!(
        !workspace.at("maps/p_output.npy").exists() && workspace.at("maps/features/q.png").exists()
    );
}

#[cfg(unix)]
#[test]
fn a_link_to_an_input_is_the_input() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let input = [picture(&workspace, "scans/p.png")];
    std::os::unix::fs::symlink(workspace.at("scans"), workspace.at("features")).unwrap();
    std::fs::create_dir(workspace.at("maps")).unwrap();
    std::os::unix::fs::symlink(workspace.at("scans"), workspace.at("maps/features")).unwrap();
    let words = ["maps/features/p.png", "scans/p.png", "would replace"];
    workspace.map(&model, &input, "--layer features").failed(2, &words);
    workspace.map(&model, &input, "").failed(1, &words);
}
