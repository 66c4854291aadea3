//! Unusable inputs among usable ones: only the unusable ones fail.

use std::io::Write;
use std::path::PathBuf;

use medcam::volumes::{self, MapType, Volume};
use ndarray::{Array3, ArrayD};

use super::run::{Workspace, network};
use crate::common::array;

/// Runs `bad` inputs between two good ones. Checks that each bad input is reported with its words,
/// and that the good ones have their maps.
#[track_caller]
fn among_good(
    workspace: &Workspace,
    model: &str,
    good: [PathBuf; 2],
    bad: &[(PathBuf, &str)],
    layer: &str,
) {
    let [first, last] = good;
    let mut inputs = vec![first];
    inputs.extend(bad.iter().map(|(path, _)| path.clone()));
    inputs.push(last);
    let ran = workspace.map(&network(model), &inputs, "");
    let report = workspace.report();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(&format!("{} of {} input(s) failed", bad.len(), inputs.len())));
    assert_eq!(report["failed"], bad.len());
    for (index, (path, words)) in bad.iter().enumerate() {
        let error = report["inputs"][index + 1]["error"].as_str().unwrap();
        assert!(error.contains(words) && error.contains(path.to_str().unwrap()), "{error}");
        assert!(ran.stderr.contains(&format!("error: {error}")), "{}", ran.stderr);
        assert_eq!(report["inputs"][index + 1]["outputs"], serde_json::json!([]));
        let stem = volumes::stem_of(path);
        for suffix in [".nii.gz", ".npy", ".png"] {
            assert!(!workspace.at(format!("maps/{layer}/{stem}{suffix}")).exists());
        }
    }
    for index in [0, inputs.len() - 1] {
        let outputs = report["inputs"][index]["outputs"].as_array().unwrap();
        assert!(!outputs.is_empty());
        for output in outputs {
            assert!(ran.stdout.contains(output.as_str().unwrap()));
            assert!(PathBuf::from(output.as_str().unwrap()).is_file());
        }
    }
    assert_eq!(report["layers"], serde_json::json!([layer]));
}

#[test]
fn a_2d_network_among_bad_inputs() {
    let workspace = Workspace::new();
    let good = array("plain2d.input.npy");
    let gray = good.slice(ndarray::s![.., ..1, .., ..]).to_owned().into_dyn();
    let mut nan = good.clone();
    nan[[1, 0, 2, 3]] = f32::NAN;
    let flat = good.index_axis(ndarray::Axis(0), 0).to_owned();
    let picture = |name: &str, picture: image::DynamicImage| {
        volumes::write_png(workspace.at(name), &picture).unwrap();
        workspace.at(name)
    };
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(workspace.at(name), bytes).unwrap();
        workspace.at(name)
    };
    std::fs::create_dir(workspace.at("folder.png")).unwrap();
    let npy = std::fs::read(network("plain2d.input.npy")).unwrap();
    let mut complex = npy.clone();
    let descr = complex.windows(3).position(|w| w == b"<f4").unwrap();
    complex[descr + 1] = b'c';
    let bad = [
        (workspace.array("gray.npy", &gray), "1 channel(s); the model's first convolution takes 3"),
        (picture("dull.png", image::GrayImage::new(47, 33).into()), "1 channel(s)"),
        (workspace.array("rank3.npy", &flat), "[3, 33, 47], not (B, C, H, W)"),
        (workspace.array("scalar.npy", &ArrayD::zeros(vec![])), "shape [], not (B, C, H, W)"),
        (
            workspace.array("none.npy", &ArrayD::zeros(vec![0, 3, 8, 8])),
            "empty, with shape [0, 3, 8, 8]",
        ),
        (
            workspace.array("nan.npy", &nan),
            "1 of 13959 values are not finite, the first is NaN at index [1, 0, 2, 3]",
        ),
        (file("half.npy", &npy[..npy.len() / 2]), "truncated: header promises"),
        (file("complex.npy", &complex), "dtype '<c4' is not read"),
        (file("empty.npy", &[]), "the file is empty"),
        (file("noise.png", b"no picture"), "not an image"),
        (picture("one.png", image::RgbImage::new(1, 1).into()), "Output size is too small"),
        (workspace.volume("volume.nii.gz"), "the model is 2D, the volume has shape [17, 20, 23]"),
        (workspace.at("missing.png"), "cannot open"),
        (workspace.at("folder.png"), "directory"),
        (file("scan.dcm", b"DICM"), "unknown kind of file; readable are .nii.gz"),
    ];
    let good = [network("plain2d.input.npy"), workspace.picture("last.png")];
    among_good(&workspace, "plain2d.traced.pt", good, &bad, "features");
}

#[test]
fn a_3d_network_among_bad_inputs() {
    let workspace = Workspace::new();
    let good = [workspace.volume("first.nii.gz"), workspace.volume("last.nii")];
    let whole = std::fs::read(&good[1]).unwrap();
    let zipped = std::fs::read(&good[0]).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let mut file = std::fs::File::create(workspace.at(name)).unwrap();
        file.write_all(bytes).unwrap();
        workspace.at(name)
    };
    let with_nan = {
        let mut bytes = whole.clone();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    // An image of two channels: `dim[0]` = 4, `dim[4]` = 2, and the voxels twice.
    let two_channels = {
        let mut bytes = whole.clone();
        bytes[40..42].copy_from_slice(&4_i16.to_le_bytes());
        bytes[48..50].copy_from_slice(&2_i16.to_le_bytes());
        bytes.extend_from_slice(&whole[352..]);
        bytes
    };
    let bad = [
        (file("empty.nii", &[]), "the file is empty"),
        (file("empty_zipped.nii.gz", &[]), "the file is empty"),
        (file("half.nii", &whole[..whole.len() / 2]), "truncated: the header promises"),
        (file("half_zipped.nii.gz", &zipped[..zipped.len() / 2]), "truncated: the header promises"),
        (file("header.nii", &whole[..100]), "truncated: a NIfTI header has"),
        (file("noise.nii", &[7; 999]), "not NIfTI"),
        (file("nan.nii", &with_nan), "1 of 7820 values are not finite"),
        (
            file("channels.nii", &two_channels),
            "2 channel(s); the model's first convolution takes 1",
        ),
        (workspace.picture("photo.png"), "the model is 3D, the input is a 2D image"),
        (network("plain2d.input.npy"), "[3, 3, 33, 47], not (B, C, D, H, W)"),
    ];
    among_good(&workspace, "interpolating3d.traced.pt", good, &bad, "down2");

    // A card may replace NaN by 0.
    std::fs::write(workspace.at("card.toml"), "[input]\nnan = \"zero\"").unwrap();
    let options = format!("--card {}", workspace.at("card.toml").display());
    let model = network("interpolating3d.traced.pt");
    workspace.map(&model, &[workspace.at("nan.nii")], &options).succeeded();
}

#[test]
fn a_class_that_is_not_there() {
    let workspace = Workspace::new();
    for (model, input, count) in [
        ("plain2d", "plain2d.input.npy", "4 class(es), 0 to 3"),
        ("unet2d", "unet2d.input.npy", "class(es)"),
    ] {
        for label in ["99", "predicted:99", "18446744073709551615"] {
            let model = network(&format!("{model}.traced.pt"));
            let ran = workspace.map(&model, &[network(input)], &format!("--label {label}"));
            ran.failed(1, &[input, "is out of range", count]);
            assert_eq!(workspace.report()["failed"], 1);
        }
    }
}

#[test]
fn masks_that_do_not_fit() {
    let workspace = Workspace::new();
    let image = workspace.volume("v.nii");
    let model = network("interpolating3d.traced.pt");
    let mask = |array: &Array3<f32>| {
        Volume::read(&image)
            .unwrap()
            .write_map(workspace.at("m.nii"), array, MapType::F32)
            .unwrap();
        format!("--target-mask {}", workspace.at("m.nii").display())
    };
    let inputs = std::slice::from_ref(&image);
    let small = mask(&Array3::ones([17, 20, 22]));
    workspace
        .map(&model, inputs, &small)
        .failed(1, &["v.nii", "mask", "[17, 20, 22]", "[17, 20, 23]"]);
    let nan = workspace.array("nan.npy", &ArrayD::from_elem(vec![17, 20, 23], f32::NAN));
    let nan = format!("--target-mask {}", nan.display());
    workspace.map(&model, inputs, &nan).failed(1, &["v.nii", "mask", "NaN or infinite"]);
    let missing = format!("--target-mask {}", workspace.at("none.nii").display());
    workspace.map(&model, inputs, &missing).failed(1, &["none.nii", "cannot open"]);
    let mask = format!("--target-mask {}", workspace.picture("p.png").display());
    let picture = [workspace.picture("photo.png")];
    let ran = workspace.map(&network("plain2d.traced.pt"), &picture, &mask);
    ran.failed(1, &["photo.png", "a mask needs an output with one score per voxel"]);
}

#[test]
fn folders_that_cannot_be_written() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let inputs = [network("plain2d.input.npy")];
    std::fs::write(workspace.at("maps"), "a file").unwrap();
    workspace.map(&model, &inputs, "").failed(1, &["maps", "cannot make this output folder"]);
    std::fs::remove_file(workspace.at("maps")).unwrap();

    // One layer's folder is blocked: the maps of the other layer are written, and run.json lists
    // them.
    std::fs::create_dir(workspace.at("maps")).unwrap();
    std::fs::write(workspace.at("maps/features"), "a file").unwrap();
    let ran = workspace.map(&model, &inputs, "--layer features.0,features");
    let ran =
        ran.failed(1, &["plain2d.input.npy", "maps/features: cannot make this output folder"]);
    let kept = workspace.at("maps/features.0/plain2d.input.npy");
    assert!(kept.is_file() && ran.stdout.contains(kept.to_str().unwrap()));
    let report = workspace.report();
    assert_eq!(report["inputs"][0]["outputs"], serde_json::json!([kept]));
    assert!(report["inputs"][0]["error"].as_str().unwrap().contains("maps/features"));
}
