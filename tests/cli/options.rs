//! The effects of the options of `medcam map`.

use std::ffi::OsStr;
use std::process::Command;

use medcam::volumes::{self, MapType, Volume};
use ndarray::{Array3, ArrayD, Axis, s};
use serde_json::json;

use super::run::{ProcessOutput, Workspace, deepbet, network, program, shape, warnings};
use crate::common::{Manifest, array, difference};

/// The position of a voxel index in the scanner's space.
fn apply(volume: &Volume, voxel: [f64; 3]) -> [f64; 3] {
    [0, 1, 2]
        .map(|r| volume.affine[r][3] + (0..3).map(|c| volume.affine[r][c] * voxel[c]).sum::<f64>())
}

/// The eight outer corners of the field of view.
fn corners(volume: &Volume) -> Vec<[f64; 3]> {
    let corner = |i: usize| {
        let extents = shape(volume);
        apply(
            volume,
            [0, 1, 2].map(|axis| match i >> axis & 1 {
                0 => -0.5,
                _ => extents[axis] as f64 - 0.5,
            }),
        )
    };
    (0..8).map(corner).collect()
}

#[test]
fn maps_of_another_size_cover_the_same_field_of_view() {
    let workspace = Workspace::new();
    let input = workspace.volume("v.nii.gz");
    let image = Volume::read(&input).unwrap();
    let mut shapes = Vec::new();
    for size in ["layer", "32,40,48", "1,7,9"] {
        let options = format!("--size {size} --picture");
        let model = network("interpolating3d.traced.pt");
        workspace.map(&model, std::slice::from_ref(&input), &options).succeeded();
        let map = workspace.nifti("down2/v.nii.gz");
        for (theirs, ours) in corners(&image).iter().zip(corners(&map)) {
            for axis in 0..3 {
                assert!((theirs[axis] - ours[axis]).abs() < 1e-3, "{size}: {theirs:?} {ours:?}");
            }
        }
        shapes.push(shape(&map));
    }
    assert!(shapes[0] < [17, 20, 23]);
    assert_eq!(shapes[1..], [[32, 40, 48], [1, 7, 9]]);

    let picture = workspace.picture("p.png");
    let plain2d = network("plain2d.traced.pt");
    workspace.map(&plain2d, std::slice::from_ref(&picture), "--size layer").succeeded();
    assert_eq!(workspace.npy("features/p.npy").shape(), [4, 5]);
    workspace.map(&plain2d, &[picture], "--size 1,70,80").succeeded();
    assert_eq!(workspace.npy("features/p.npy").shape(), [70, 80]);
}

#[test]
fn the_score_is_taken_before_or_after_the_softmax() {
    let workspace = Workspace::new();
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == "softmax2d").unwrap();
    let expected = case.network.output_score_map.as_ref().unwrap();
    let input = network(&case.network.input);
    assert_eq!(case.network.label, "best");
    let options = format!("--score output --layer {}", expected.layer);
    workspace.map(&network(case.file), std::slice::from_ref(&input), &options).succeeded();
    let after = workspace.npy(&format!("{}/softmax2d.input.npy", expected.layer));
    assert!(difference(&after, &array(&expected.map)) <= 1e-5);
    workspace.map(&network(case.file), &[input], &options.replace("output", "logits")).succeeded();
    let before = workspace.npy(&format!("{}/softmax2d.input.npy", expected.layer));
    assert!(difference(&after, &before) > 1e-3);
    assert_eq!(workspace.report()["final_activation"], "softmax");
}

#[test]
fn maps_with_the_numbers_of_m3d_cam() {
    let workspace = Workspace::new();
    let manifest = Manifest::read();
    let file = |name: &str| {
        let case = manifest.cases().find(|case| case.network.name == name).unwrap();
        (network(case.file), [network(&case.network.input)])
    };
    let (model, input) = file("plain2d");
    let map = |compat: &str| {
        let options = format!("--layer features.4 --label 1 --compat {compat}");
        workspace.map(&model, &input, &options).succeeded();
        workspace.npy("features.4/plain2d.input.npy")
    };
    let (ours, theirs) = (map("none"), map("m3dcam"));
    let greatest = |maps: &ArrayD<f32>| maps.iter().copied().fold(0.0, f32::max);
    assert!((greatest(&ours) - 1.0).abs() < 1e-6);
    // M3d-CAM normalises before it resamples, so the maximum is below 1.
    assert!((0.5..0.999).contains(&greatest(&theirs)), "{}", greatest(&theirs));

    // In segmentation, M3d-CAM's `auto` selects the layer of the logits.
    let (model, input) = file("unet2d");
    workspace.map(&model, &input, "--label 1 --compat m3dcam").succeeded();
    let report = workspace.report();
    assert_eq!(report["layers"], json!(["head"]));
    assert!(warnings(&report, 0).contains(&"REDRAWS_OUTPUT"));
    let options = &report["options"];
    assert_eq!((&options["compat"], &options["score"]), (&json!("m3dcam"), &json!("output")));
}

#[test]
fn a_class_and_a_list_of_layers() {
    let workspace = Workspace::new();
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == "unet2d").unwrap();
    let class = &case.network.class_maps;
    let input = network(&case.network.input);
    // A layer that is named twice has one map.
    let options = format!("--label {} --layer {1},enc2,{1} --json", class.label, class.layer);
    let ran = workspace.map(&network(case.file), &[input], &options).succeeded();
    let map = workspace.npy(&format!("{}/unet2d.input.npy", class.layer));
    assert!(difference(&map, &array(&class.map)) <= 1e-5);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report, workspace.report());
    assert_eq!(report["layers"], json!([class.layer, "enc2"]));
    assert_eq!(report["inputs"][0]["explained"][0]["classes"].as_array().unwrap().len(), 3);
    assert_eq!(report["inputs"][0]["explained"][0]["classes"][0]["index"], class.label);
}

#[test]
fn a_target_mask_confines_the_score() {
    let workspace = Workspace::new();
    let [model, t1, card] = deepbet();
    let card = card.to_str().unwrap().to_owned();
    let map = |options: &str| {
        let options = format!("--card {card} {options}");
        workspace.map(&model, std::slice::from_ref(&t1), &options).succeeded();
        let report = workspace.report();
        let layer = report["layers"][0].as_str().unwrap();
        (workspace.nifti(&format!("{layer}/T1.nii.gz")).data.into_dyn(), report)
    };
    let (whole, _) = map("--label 1 --save-output");

    // Half of the predicted brain, as a mask on the image's grid; the model's axes are RAS.
    let image = Volume::read(&t1).unwrap();
    assert_eq!(image.axis_codes(), ['L', 'A', 'S']);
    let output = workspace.npy("T1_output.npy");
    let brain = output.slice(s![0, 1, .., .., ..]);
    let extents = shape(&image);
    let mask = Array3::from_shape_fn(extents, |(x, y, z)| {
        let at = |n: usize, axis: usize| n * 128 / extents[axis];
        let is_brain = brain[[127 - at(x, 0), at(y, 1), at(z, 2)]] > 0.5;
        f32::from(u8::from(is_brain && x < extents[0] / 2))
    });
    assert!(mask.sum() > 1000.0);
    image.write_map(workspace.at("mask.nii.gz"), &mask, MapType::U8).unwrap();
    let (half, report) =
        map(&format!("--label 1 --target-mask {}", workspace.at("mask.nii.gz").display()));
    assert!(difference(&whole, &half) > 0.05);
    assert_eq!(report["inputs"][0]["explained"][0]["classes"][0]["index"], 1);
}

#[test]
fn predicted_of_a_class_is_its_mask() {
    let workspace = Workspace::new();
    let model = network("unet2d.traced.pt");
    let input = network("unet2d.input.npy");
    let map = |options: &str| {
        workspace.map(&model, std::slice::from_ref(&input), options).succeeded();
        workspace.npy("bottleneck/unet2d.input.npy")
    };
    let predicted = map("--label predicted:1 --save-output");
    let output = workspace.npy("unet2d.input_output.npy");
    let classes = output.shape()[1];
    let mask = output.map_axis(Axis(1), |scores| {
        f32::from(u8::from((0..classes).all(|c| c == 1 || scores[1] > scores[c])))
    });
    assert!(mask.sum() > 0.0);
    let mask: ArrayD<f32> = mask.insert_axis(Axis(1));
    volumes::write_npy(workspace.at("mask.npy"), &mask, MapType::U8).unwrap();
    // In a u8 file, a mask of 1 is 255. The scale of the score does not change the map.
    let region = map(&format!("--label 1 --target-mask {}", workspace.at("mask.npy").display()));
    assert!(difference(&predicted, &region) <= 1e-5);
}

#[test]
fn an_empty_target_is_a_warning_and_a_zero_map() {
    let workspace = Workspace::new();
    let extents = array("unet2d.input.npy").shape().to_vec();
    let mut mask = ArrayD::<f32>::zeros(vec![extents[0], 1, extents[2], extents[3]]);
    mask.index_axis_mut(Axis(0), 1).fill(1.0);
    let mask = workspace.array("mask.npy", &mask);
    let options = format!("--label 1 --target-mask {}", mask.display());
    let ran = workspace.map(&network("unet2d.traced.pt"), &[network("unet2d.input.npy")], &options);
    assert!(ran.succeeded().stderr.contains("sample 0: the target mask has no voxel"));
    let report = workspace.report();
    let codes = warnings(&report, 0);
    assert_eq!(codes.iter().filter(|code| **code == "EMPTY_TARGET").count(), 2);
    let map = workspace.npy("bottleneck/unet2d.input.npy");
    assert!(map.index_axis(Axis(0), 0).iter().all(|v| *v == 0.0));
    assert!(map.index_axis(Axis(0), 2).iter().all(|v| *v == 0.0));
    // The second sample's mask covers the whole sample, so its map is that without a mask.
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == "unet2d").unwrap();
    assert_eq!(case.network.label, 1);
    let whole = array(&case.layers.maps["bottleneck"]);
    let second = |map: &ArrayD<f32>| map.index_axis(Axis(0), 1).to_owned();
    assert!(difference(&second(&map), &second(&whole)) <= 1e-5);
}

#[test]
fn a_card_beside_the_model_is_picked_up() {
    let workspace = Workspace::new();
    let model = workspace.at("mö del.pt");
    std::fs::copy(network("plain2d.traced.pt"), &model).unwrap();
    let card = "classes = [\"none\", \"cat\", \"dog\", \"cow\"]\n[input]\ncolor = \"rgb\"\n\
                size = [40, 50]\n";
    std::fs::write(workspace.at("mö del.toml"), card).unwrap();
    // A gray image, which only the card turns into three channels.
    let gray = image::GrayImage::from_fn(47, 33, |x, y| {
        image::Luma([u8::try_from((x * y) % 256).unwrap()])
    });
    volumes::write_png(workspace.at("gray.png"), &gray.into()).unwrap();
    workspace.map(&model, &[workspace.at("gray.png")], "--label 2").succeeded();
    let report = workspace.report();
    assert_eq!(report["card"], workspace.at("mö del.toml").to_str().unwrap());
    assert_eq!(
        report["inputs"][0]["explained"][0]["classes"],
        json!([{"index": 2, "name": "dog"}])
    );
    assert_eq!(workspace.npy("features/gray.npy").shape(), [33, 47]);
}

#[test]
fn the_number_of_threads_does_not_change_the_map() {
    let workspace = Workspace::new();
    let input = network("unet3d.input.npy");
    let map = |threads: i32| {
        let options = format!("--label 0 --threads {threads}");
        workspace
            .map(&network("unet3d.traced.pt"), std::slice::from_ref(&input), &options)
            .succeeded();
        assert_eq!(workspace.report()["threads"], threads);
        workspace.npy("bottleneck/unet3d.input.npy")
    };
    let one = map(1);
    assert!(difference(&one, &map(3)) <= 1e-6);
}

#[test]
fn a_cluster_or_an_affinity_sets_the_threads() {
    let workspace = Workspace::new();
    let (model, input) = (network("plain2d.traced.pt"), network("plain2d.input.npy"));
    let threads = |command: &mut Command, options: &[&str]| {
        command.env_remove("OMP_NUM_THREADS").args([OsStr::new("map"), model.as_os_str()]);
        command.arg(&input).arg("-o").arg(workspace.at("maps")).args(options);
        ProcessOutput::of(command).succeeded();
        workspace.report()["threads"].as_u64().unwrap()
    };
    assert_eq!(threads(program().env("SLURM_CPUS_PER_TASK", "3"), &[]), 3);
    assert_eq!(threads(program().env("SLURM_CPUS_PER_TASK", "3"), &["--threads", "1"]), 1);
    // Not a number that a job could have.
    let all = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(threads(program().env("SLURM_CPUS_PER_TASK", "0"), &[]), all);
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(program().get_program()).env_remove("LD_LIBRARY_PATH");
    assert_eq!(threads(&mut pinned, &[]), 1);
}
