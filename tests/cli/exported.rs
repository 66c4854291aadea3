//! The maps of a module under Python's `inject`, and those of the program on the file of `export`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use medcam::volumes::read_npy;

use super::packages::{REPOSITORY, output_of, with_torch};
use super::run::Workspace;

#[test]
fn maps_of_the_exported_file_are_those_of_the_live_module() {
    let files = Workspace::new();
    let mut export = with_torch();
    export.arg("tests/cli/exported.py").arg(files.at("")).current_dir(REPOSITORY);
    output_of(&mut export);
    let (mut compared, mut noisy) = (0, 0);
    for network in fs::read_dir(files.at("")).unwrap() {
        let network = network.unwrap().path();
        for run in fs::read_dir(&network).unwrap() {
            let run = run.unwrap().path();
            if run.is_dir() {
                let (same, noise) = compare(&network, &run);
                compared += same;
                noisy += noise;
            }
        }
    }
    assert!(compared > 200 && noisy < compared / 4, "{compared} maps, {noisy} of noise");
}

/// Compares the maps of a run; returns how many were equal, and how many are noise.
fn compare(network: &Path, run: &Path) -> (usize, usize) {
    let name = run.file_name().unwrap().to_str().unwrap();
    let (layers, method) = name.split_once('-').unwrap();
    let program = Workspace::new();
    let guide = if matches!(method, "gbp" | "ggcam") { "--guide all" } else { "" };
    let options = format!("--backend {method} --layer {layers} {guide}");
    let image = network.join("image.npy");
    program.map(&network.join("model.pt"), &[image], &options).succeeded();
    let noise = fs::read_to_string(run.join("noise.txt")).unwrap();
    let stems = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let named =
            entries.filter(|path| path.is_dir() || path.extension() == Some("npy".as_ref()));
        named.map(|path| path.file_name().unwrap().to_str().unwrap().replace(".npy", "")).collect()
    };
    let live = stems(run);
    assert_eq!(live, stems(&program.at("maps")), "{}", run.display());
    let (mut same, mut noisy) = (0, 0);
    for layer in live {
        if noise.lines().any(|line| line == layer) {
            noisy += 1;
            continue;
        }
        let map = program.npy(&format!("{layer}/image.npy"));
        let live = read_npy(run.join(format!("{layer}.npy"))).unwrap();
        let far = (&map - &live).fold(0.0, |far: f32, d| far.max(d.abs()));
        assert!(far <= 1e-6, "{} {layer}: {far}", run.display());
        same += 1;
    }
    (same, noisy)
}
