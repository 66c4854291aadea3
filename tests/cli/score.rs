//! `medcam score`: its results for valid pairs and its errors for others.

use std::path::PathBuf;

use medcam::volumes::{self, MapType, Volume};
use ndarray::{Array3, ArrayD, array};
use serde_json::{Value, json};

use super::run::{ProcessOutput, Workspace, program};

fn score(map: &PathBuf, mask: &PathBuf, options: &str) -> ProcessOutput {
    ProcessOutput::of(program().arg("score").args([map, mask]).args(options.split_whitespace()))
}

const ALL: &str = "ioa,wioa,iou,wiou,pointing_game,relevance_mass,relevance_rank";

fn pair(workspace: &Workspace) -> [PathBuf; 2] {
    std::fs::create_dir(workspace.at("conv4")).unwrap();
    [
        workspace.array("conv4/scan.npy", &array![[0.0, 0.25, 0.5, 1.0, 0.75]].into_dyn()),
        workspace.array("mask.npy", &array![[0.0, 1.0, 1.0, 1.0, 0.0]].into_dyn()),
    ]
}

#[test]
fn scores_by_hand() {
    let workspace = Workspace::new();
    let [map, mask] = pair(&workspace);
    let ran = score(&map, &mask, &format!("--metric {ALL} --threshold 0.5")).succeeded();
    let values: Vec<f64> = ran
        .stdout
        .lines()
        .zip(ALL.split(','))
        .map(|(line, name)| line.strip_prefix(name).unwrap().trim().parse().unwrap())
        .collect();
    let expected = [2. / 3., 1.5 / 2.25, 2. / 4., 1.5 / 3.75, 1., 1.75 / 2.5, 2. / 3.];
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{values:?}");
    }
    assert_eq!(ran.stderr, "");
    let ran = score(&map, &mask, "").succeeded();
    assert!(ran.stdout.starts_with("wioa 0.") && ran.stdout.lines().count() == 1);
}

#[test]
fn json_and_files() {
    let workspace = Workspace::new();
    let [map, mask] = pair(&workspace);
    let folder = workspace.at("made/scores");
    let options = format!("--metric iou,ioa --threshold 0.5 --json -o {}", folder.display());
    let ran = score(&map, &mask, &options).succeeded();
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["scores"], json!({"iou": 0.5, "ioa": 2.0 / 3.0}));
    assert_eq!((&report["threshold"], &report["class"]), (&json!("0.5"), &Value::Null));
    let files = ["scores.xlsx", "scores.csv", "mean_scores.png"].map(|name| folder.join(name));
    assert_eq!(report["outputs"], json!(files));
    let table = std::fs::read_to_string(&files[1]).unwrap();
    assert!(table.contains("\n0.5,conv4,,scan,iou\n"), "{table}");
    assert!(image::open(&files[2]).unwrap().width() > 700);
}

#[test]
fn labels_and_what_has_no_score() {
    let workspace = Workspace::new();
    let [map, _] = pair(&workspace);
    let labels = workspace.array("labels.npy", &array![[0.0, 2.0, 2.0, 2.0, 1.0]].into_dyn());
    let of = |class: &str| score(&map, &labels, &format!("--metric ioa --threshold 0.5 {class}"));
    assert_eq!(of("--class 1").succeeded().stdout, "ioa 0.3333333333333333\n");
    assert_eq!(of("--class 2").succeeded().stdout, "ioa 0.6666666666666666\n");
    let none = of("--class 3").succeeded();
    assert_eq!(none.stdout, "ioa 0\n");
    assert!(none.stderr.contains("warning[EMPTY_MASK]") && none.stderr.contains("no class 3"));
    of("").failed(1, &["labels.npy", "neither 0 nor 1 at 3 of the 5 voxels", "2 at [0, 0, 1]"]);

    let flat = workspace.array("flat.npy", &ArrayD::from_elem(vec![1, 5], 0.5));
    let ran = score(&flat, &labels, "--metric ioa,iou --class 2 --json").succeeded();
    assert!(ran.stderr.contains("warning[CONSTANT_MAP]") && ran.stderr.contains("flat.npy"));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["scores"], json!({"ioa": null, "iou": 0.0}));
}

/// A map against masks on its own grid, on a coarser grid, and on a part of its field of view.
#[test]
fn volumes_lie_where_their_affines_say() {
    let workspace = Workspace::new();
    let image = workspace.volume("scan.nii.gz");
    let map = &image;
    let mask = |name: &str, shape: (usize, usize, usize)| {
        let corner = Array3::from_shape_fn(shape, |(i, j, k)| {
            f32::from(2 * i < shape.0 && 2 * j < shape.1 && 2 * k < shape.2)
        });
        Volume::read(&image).unwrap().write_map(workspace.at(name), &corner, MapType::F32).unwrap();
        workspace.at(name)
    };
    let same = score(map, &mask("same.nii.gz", (17, 20, 23)), "").succeeded().stdout;
    let coarse = score(map, &mask("coarse.nii.gz", (9, 10, 12)), "").succeeded().stdout;
    let value = |text: &str| text.trim().strip_prefix("wioa ").unwrap().parse::<f64>().unwrap();
    assert!((value(&same) - value(&coarse)).abs() < 0.1, "{same} {coarse}");
    let crop = mask("crop.nii", (17, 20, 23));
    let mut bytes = std::fs::read(&crop).unwrap();
    // Removes one slice and its voxels.
    bytes[46..48].copy_from_slice(&22_i16.to_le_bytes());
    bytes.truncate(352 + 17 * 20 * 22 * 4);
    std::fs::write(&crop, bytes).unwrap();
    score(map, &crop, "").failed(1, &["scan.nii.gz", "another field of view"]);
}

#[test]
fn pictures() {
    let workspace = Workspace::new();
    let draw = |name: &str, value: &dyn Fn(u32) -> u8| {
        let picture = image::GrayImage::from_fn(8, 4, |x, _| image::Luma([value(x)]));
        volumes::write_png(workspace.at(name), &picture.into()).unwrap();
        workspace.at(name)
    };
    let map = draw("map.png", &|x| if x < 4 { 200 } else { 10 });
    let mask = draw("mask.png", &|x| if x < 2 { 255 } else { 0 });
    let labels = draw("labels.png", &|x| u8::from(x < 2) * 3);
    assert_eq!(score(&map, &mask, "--metric ioa").succeeded().stdout, "ioa 0.5\n");
    assert_eq!(score(&map, &labels, "--metric ioa --class 3").succeeded().stdout, "ioa 0.5\n");
    let colour = workspace.picture("colour.png");
    score(&colour, &mask, "").failed(1, &["colour.png", "map: a picture in colour"]);
}

#[test]
fn bad_options_and_bad_files() {
    let workspace = Workspace::new();
    let [map, mask] = pair(&workspace);
    for (options, word) in [
        ("--metric dice", "expected one of ioa, wioa"),
        ("--metric ioa,,iou", "expected one of ioa, wioa"),
        ("--metric ioa,ioa", "ioa is there twice"),
        ("--threshold 1.5", "expected otsu or a number from 0 to 1"),
        ("--threshold -0.5", "expected otsu or a number from 0 to 1"),
        ("--threshold nan", "expected otsu or a number from 0 to 1"),
        ("--class -1", "--class"),
        ("--class one", "--class"),
    ] {
        score(&map, &mask, options).failed(2, &[word]);
    }
    ProcessOutput::of(program().arg("score").arg(&map)).failed(2, &["MASK"]);

    let array = |name: &str, shape: &[usize], value| {
        workspace.array(name, &ArrayD::from_elem(shape, value))
    };
    let nan = array("nan.npy", &[1, 5], f32::NAN);
    score(&nan, &mask, "").failed(1, &["nan.npy", "map: 5 of the 5 voxels are not finite"]);
    score(&map, &nan, "").failed(1, &["nan.npy", "mask: 5 of the 5 voxels are not finite"]);
    let deep = array("deep.npy", &[3, 4, 5], 1.0);
    score(&map, &deep, "").failed(1, &["deep.npy", "2D", "3D"]);
    let half = array("half.npy", &[1, 5], 0.5);
    score(&map, &half, "").failed(1, &["half.npy", "neither 0 nor 1 at 5 of the 5 voxels"]);
    let batch = array("batch.npy", &[2, 1, 4, 5], 1.0);
    score(&batch, &mask, "").failed(1, &["batch.npy", "shape [2, 1, 4, 5]", "one sample"]);
    let empty = array("empty.npy", &[0, 5], 1.0);
    score(&map, &empty, "").failed(1, &["empty.npy", "no voxels"]);
    let volume = workspace.volume("v.nii");
    score(&map, &volume, "").failed(1, &["v.nii", "has the same shape"]);
    let missing = workspace.at("none.npy");
    score(&missing, &mask, "").failed(1, &["none.npy", "cannot open"]);
    score(&map, &missing, "").failed(1, &["none.npy", "cannot open"]);
    let blocked = format!("-o {}", mask.display());
    score(&map, &mask, &blocked).failed(1, &["mask.npy", "cannot make this output folder"]);
}
