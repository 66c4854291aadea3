//! No output replaces what the run was given.

use std::path::{Path, PathBuf};

use super::hostile::walk;
use super::run::{Bench, Ran, network, program};

/// A picture in a folder of its own, made if it is not there.
fn picture(bench: &Bench, name: &str) -> PathBuf {
    std::fs::create_dir_all(bench.at(name).parent().unwrap()).unwrap();
    bench.picture(name)
}

/// Checks that a run is refused, and leaves every file in `maps` as it was.
#[track_caller]
fn refused(bench: &Bench, model: &Path, inputs: &[PathBuf], options: &str, words: &[&str]) {
    let before: Vec<_> = walk(&bench.at("maps")).into_iter().map(content).collect();
    bench.map(model, inputs, options).failed(2, &[words, &["would replace", "-o"]].concat());
    let after: Vec<_> = walk(&bench.at("maps")).into_iter().map(content).collect();
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
        let bench = Bench::new();
        let inputs: Vec<_> = files.iter().map(|name| picture(&bench, name)).collect();
        refused(&bench, &model, &inputs, options, words);
    };
    run(&["maps/input/p.png"], "--backend gbp --guide all", &["maps/input/p.png"]);
    run(&["maps/features/p.png"], "--layer features.0,features", &["maps/features/p.png"]);
    run(&["maps/fused/p.png"], "--layer full --fuse max", &["maps/fused/p.png"]);
    let several = ["p.png", "maps/features/p_class2.png"];
    run(&several, "--layer features --label 1,2", &["maps/features/p_class2.png"]);
    let overlay = ["p.png", "maps/features/p_overlay.png"];
    let bench = Bench::new();
    let inputs = overlay.map(|name| picture(&bench, name));
    // Two maps of one name; without the picture there are none.
    bench.map(&model, &inputs, "--layer features --picture").failed(2, &["the same name"]);

    let bench = Bench::new();
    let input = [picture(&bench, "p.png")];
    std::fs::create_dir_all(bench.at("maps/features")).unwrap();
    let with = |option: &str, file: &str| format!("{option} {}", bench.at(file).display());
    let output =
        [input[0].clone(), bench.array("maps/p_output.npy", &ndarray::ArrayD::zeros(vec![1]))];
    refused(&bench, &model, &output, "--save-output", &["maps/p_output.npy"]);
    std::fs::write(bench.at("maps/run.json"), "[input]").unwrap();
    refused(&bench, &model, &input, &with("--card", "maps/run.json"), &["maps/run.json"]);
    picture(&bench, "maps/mean_scores.png");
    let mask = with("--mask", "maps/mean_scores.png");
    refused(&bench, &model, &input, &mask, &["maps/mean_scores.png"]);
    picture(&bench, "maps/features/p.png");
    let mask = with("--label 1 --layer features --target-mask", "maps/features/p.png");
    refused(&bench, &model, &input, &mask, &["maps/features/p.png"]);
    let archive = bench.at("maps/attention_maps.npz");
    std::fs::copy(&model, &archive).unwrap();
    refused(&bench, &archive, &input, "--archive", &["attention_maps.npz"]);

    let options = [Path::new("-o"), &bench.at("maps")];
    let mut score = program();
    score.arg("score").args([&bench.at("maps/mean_scores.png"), &input[0]]).args(options);
    Ran::of(&mut score).failed(2, &["mean_scores.png", "would replace"]);
}

#[test]
fn what_the_model_tells_is_refused_before_it_is_written() {
    let bench = Bench::new();
    let model = network("plain2d.traced.pt");
    let inputs = [picture(&bench, "maps/features/p.png"), picture(&bench, "q.png")];
    let before = std::fs::read(&inputs[0]).unwrap();
    let ran = bench.map(&model, &inputs, "--label 1 --save-output");
    ran.failed(1, &["maps/features/p.png", "would replace", "1 of 2 input(s) failed"]);
    assert_eq!(std::fs::read(&inputs[0]).unwrap(), before);
    assert_eq!(bench.report()["inputs"][0]["outputs"], serde_json::json!([]));
    assert!(!bench.at("maps/p_output.npy").exists() && bench.at("maps/features/q.png").exists());
}

#[cfg(unix)]
#[test]
fn a_link_to_an_input_is_the_input() {
    let bench = Bench::new();
    let model = network("plain2d.traced.pt");
    let input = [picture(&bench, "scans/p.png")];
    std::os::unix::fs::symlink(bench.at("scans"), bench.at("features")).unwrap();
    std::fs::create_dir(bench.at("maps")).unwrap();
    std::os::unix::fs::symlink(bench.at("scans"), bench.at("maps/features")).unwrap();
    let words = ["maps/features/p.png", "scans/p.png", "would replace"];
    bench.map(&model, &input, "--layer features").failed(2, &words);
    bench.map(&model, &input, "").failed(1, &words);
}
