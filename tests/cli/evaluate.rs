//! `medcam map --mask` scores maps as `medcam score` scores their files.

use std::path::Path;

use medcam::volumes::{MapType, Volume};
use ndarray::{Array3, ArrayD, Axis, concatenate};
use serde_json::{Value, json};

use super::run::{ProcessOutput, Workspace, network, program, warnings};

/// A mask on the grid of [`Workspace::volume`]: 1 in the slices before `x`, 2 in the others.
fn mask(workspace: &Workspace, name: &str, of: &Path, x: usize) {
    let labels = Array3::from_shape_fn((17, 20, 23), |(i, ..)| if i < x { 1.0 } else { 2.0 });
    Volume::read(of).unwrap().write_map(workspace.at(name), &labels, MapType::F32).unwrap();
}

fn score(map: &Path, mask: &Path, options: &str) -> Value {
    let ran = ProcessOutput::of(program().arg("score").args([map, mask]).args(options.split(' ')));
    let report: Value = serde_json::from_str(&ran.succeeded().stdout).unwrap();
    report["scores"].clone()
}

#[test]
fn scores_of_a_cohort_are_those_of_its_files() {
    scores_of_a_cohort("f32");
}

#[test]
fn scores_of_a_cohort_of_bytes_are_those_of_its_files() {
    scores_of_a_cohort("u8");
}

fn scores_of_a_cohort(dtype: &str) {
    let workspace = Workspace::new();
    let inputs = ["a", "b"].map(|name| workspace.volume(&format!("{name}.nii.gz")));
    std::fs::create_dir(workspace.at("masks")).unwrap();
    mask(&workspace, "masks/a.nii.gz", &inputs[0], 6);
    mask(&workspace, "masks/b.nii.gz", &inputs[1], 9);
    let metrics = "--metric iou,relevance_mass --threshold 0.4";
    let masks = workspace.at("masks");
    let masks = masks.display();
    let options =
        format!("--layer down1,down2 --label 1,2 --dtype {dtype} {metrics} --mask {masks}");
    let model = network("interpolating3d.traced.pt");
    let ran = workspace.map(&model, &inputs, &options).succeeded();

    let report = workspace.report();
    let mut values = Vec::new();
    for (index, stem) in ["a", "b"].iter().enumerate() {
        let scores = report["inputs"][index]["scores"].as_array().unwrap();
        assert_eq!(scores.len(), 4);
        for scored in scores {
            let (layer, class) = (scored["layer"].as_str().unwrap(), &scored["class"]);
            assert_eq!(scored["name"], json!(format!("{stem}_class{class}")));
            let map = workspace.at(format!("maps/{layer}/{stem}_class{class}.nii.gz"));
            let mask = workspace.at(format!("masks/{stem}.nii.gz"));
            let alone = score(&map, &mask, &format!("{metrics} --class {class} --json"));
            assert_eq!(scored["scores"], alone);
            // A zero map has no relevance mass.
            values.extend(alone["relevance_mass"].as_f64());
        }
    }
    assert!(values.len() >= 4, "{values:?}");
    assert!(values.iter().all(|value| *value > 0.0 && *value < 1.0));
    assert!(values.iter().any(|value| (value - values[0]).abs() > 1e-3), "{values:?}");

    let files =
        ["scores.xlsx", "scores.csv", "mean_scores.png"].map(|n| workspace.at("maps").join(n));
    assert_eq!(report["scores"], json!(files));
    assert!(files.iter().all(|file| ran.stdout.contains(file.to_str().unwrap())));
    let table = std::fs::read_to_string(&files[1]).unwrap();
    assert_eq!(table.lines().count(), 1 + 2 * 2 * 2 * 2, "{table}");
}

#[test]
fn a_batch_takes_a_batch_of_masks() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let input = workspace.picture("p.png");
    workspace.map(&model, std::slice::from_ref(&input), "--label 1").succeeded();
    let one = workspace.npy("features/p.npy");
    let (h, w) = (one.shape()[0], one.shape()[1]);
    assert!(one.iter().any(|&value| value == 1.0), "the map shows something");
    // The mask of the second sample is empty.
    let mask = ArrayD::from_shape_fn(vec![2, 1, h, w], |at| {
        f32::from(u8::from(at[0] == 0 && one[[at[2], at[3]]] > 0.5))
    });
    let masks = workspace.array("masks.npy", &mask);
    let image = medcam::volumes::Image::read(&input).unwrap().data.insert_axis(Axis(0));
    let batch = concatenate![Axis(0), image, image];
    let batch = workspace.array("batch.npy", &batch.into_dyn());
    let run = |options: &str| {
        let options = format!("--label 1 --mask {} {options}", masks.display());
        workspace.map(&model, std::slice::from_ref(&batch), &options)
    };
    let ran = run("--metric iou,pointing_game").succeeded();
    let report = workspace.report();
    let scores = &report["inputs"][0]["scores"];
    assert_eq!((&scores[0]["name"], &scores[1]["name"]), (&json!("batch_0"), &json!("batch_1")));
    assert!(scores[0]["scores"]["iou"].as_f64().unwrap() > 0.0);
    assert_eq!(scores[1]["scores"], json!({"iou": 0.0, "pointing_game": null}));
    assert_eq!(warnings(&report, 0), ["EMPTY_MASK"]);
    assert!(ran.stderr.contains("warning[EMPTY_MASK]"), "{}", ran.stderr);
}

#[test]
fn masks_that_do_not_fit() {
    let workspace = Workspace::new();
    let model = network("interpolating3d.traced.pt");
    let inputs = ["a", "b"].map(|name| workspace.volume(&format!("{name}.nii.gz")));
    let run = |inputs: &[_], options: &str| workspace.map(&model, inputs, options);
    std::fs::create_dir(workspace.at("masks")).unwrap();
    mask(&workspace, "masks/a.nii.gz", &inputs[0], 6);
    let (folder, file) = (workspace.at("masks"), workspace.at("masks/a.nii.gz"));
    let (folder, file) = (folder.display(), file.display());

    run(&inputs, "--metric iou").failed(2, &["--mask"]);
    run(&inputs, &format!("--mask {file}")).failed(2, &["one file for 2 inputs", "a folder"]);
    run(&inputs, &format!("--mask {folder}")).failed(2, &["no mask of", "b.nii.gz", "'b'"]);
    run(&inputs[..1], &format!("--mask {folder} --metric best")).failed(2, &["metric \"best\""]);
    run(&inputs[..1], &format!("--mask {folder} --threshold 2")).failed(2, &["threshold"]);
    run(&inputs[..1], &format!("--mask {folder} --mask-values 1")).failed(2, &["'1'", "binary"]);
    assert!(!workspace.at("maps").exists());
    // A mask that does not fit costs neither the maps nor the scores of the other input.
    let small = ArrayD::from_elem(vec![3, 4, 5], 1.0);
    workspace.array("masks/b.npy", &small);
    let ran =
        run(&inputs, &format!("--label 1 --mask {folder}")).failed(1, &["b.npy", "(3, 4, 5)"]);
    assert!(ran.stdout.contains("b.nii.gz"), "{}", ran.stdout);
    let report = workspace.report();
    assert_eq!(report["inputs"][0]["scores"].as_array().unwrap().len(), 1);
    assert_eq!(report["scores"].as_array().unwrap().len(), 3);
    // Refused: two masks of one name, and a 0/1 mask for class 2.
    workspace.array("masks/a.npy", &ArrayD::from_elem(vec![17, 20, 23], 1.0));
    run(&inputs[..1], &format!("--mask {folder}")).failed(2, &["a.npy", "a.nii.gz", "both"]);
    let ones = workspace.at("masks/a.npy");
    let ones = format!("--label 2 --mask {}", ones.display());
    run(&inputs[..1], &ones).failed(1, &["only 0 and 1", "class 2", "binary", "labels"]);
    run(&inputs[..1], &format!("{ones} --mask-values binary")).succeeded();
}
