//! Valid inputs: NIfTI, PNG and npy in, maps out.

use medcam::record::Run;
use medcam::volumes::MapType;
use medcam::{Options, inject, to_array};
use ndarray::Axis;

use super::run::{ProcessOutput, Workspace, deepbet, gray, network, program, shape, warnings};
use crate::common::{Manifest, array, difference, model, tensor};

fn extremes<'a>(values: impl IntoIterator<Item = &'a f32>) -> (f32, f32) {
    values.into_iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)))
}

#[test]
fn deepbet_on_a_t1_image() {
    let workspace = Workspace::new();
    let [model, t1, card] = deepbet();
    let card = card.to_str().unwrap();
    let options = format!("--card {card} --label 1 --picture --save-output --json");
    let ran = workspace.map(&model, std::slice::from_ref(&t1), &options).succeeded();
    let report = workspace.report();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap(), report);
    let run = Run::read(workspace.at("maps/run.json")).unwrap();
    assert_eq!(serde_json::to_value(&run).unwrap(), report);
    assert_eq!(run.outputs().count(), 3);
    let layer = report["layers"][0].as_str().unwrap();

    let map = workspace.nifti(&format!("{layer}/T1.nii.gz"));
    let image = medcam::volumes::Volume::read(&t1).unwrap();
    assert_eq!(shape(&map), shape(&image));
    assert_eq!(map.affine, image.affine);
    assert_eq!(map.axis_codes(), image.axis_codes());
    assert_eq!(extremes(&map.data), (0.0, 1.0));

    let overlay = image::open(workspace.at(format!("maps/{layer}/T1_overlay.png"))).unwrap();
    assert!(overlay.width() > 600 && overlay.height() > 200);
    // The model segments a brain of plausible size, so the image was prepared as in training.
    let output = workspace.npy("T1_output.npy");
    assert_eq!(output.shape(), [1, 2, 128, 128, 128]);
    let brain = output.index_axis(Axis(1), 1).iter().filter(|p| **p > 0.5).count();
    assert!((0.15..0.4).contains(&(brain as f64 / 128.0_f64.powi(3))), "{brain} voxels");

    assert_eq!(report["failed"], 0);
    assert_eq!(report["task"], "segmentation");
    assert_eq!(report["options"]["label"][0], "1");
    assert_eq!(report["model_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(report["medcam"], medcam::VERSION);
    assert!(report["libtorch"].as_str().unwrap().starts_with("2."));
    assert_eq!(report["card"], card);
    assert_eq!(report["inputs"][0]["explained"][0]["classes"][0]["name"], "brain");
    assert_eq!(report["inputs"][0]["outputs"].as_array().unwrap().len(), 3);
    assert!(warnings(&report, 0).is_empty());
    assert!(report["inputs"][0]["seconds"]["inference"].as_f64().unwrap() > 0.0);
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
}

/// In `conv.0`, the noise is too close to the gradient to be recognised by its magnitude; the graph
/// shows it.
#[test]
fn noise_of_deepbet_is_told_alone_and_fused() {
    let [model, t1, card] = deepbet();
    let card = card.to_str().unwrap();
    for (options, expected) in [
        ("--layer conv.0", vec![("conv.0", false)]),
        ("--layer conv.0 --backend layercam", vec![]),
        ("--layer up0 --fuse mean", vec![("up0", false), ("fused", false)]),
        ("--layer conv.0,tp_conv1 --fuse max", vec![("conv.0", true)]),
    ] {
        let workspace = Workspace::new();
        let all = format!("--card {card} --label 1 {options}");
        workspace.map(&model, std::slice::from_ref(&t1), &all).succeeded();
        let report = workspace.report();
        assert!(warnings(&report, 0).iter().all(|&code| code == "WEIGHTS_CANCEL"), "{options}");
        let warnings = report["inputs"][0]["warnings"].as_array().unwrap().iter();
        let layers = warnings.map(|warning| {
            let left_out = warning["message"].as_str().unwrap().contains("leaves this one out");
            (warning["layer"].as_str().unwrap(), left_out)
        });
        assert_eq!(layers.collect::<Vec<_>>(), expected, "{options}");
    }
}

#[test]
fn a_batch_of_npy_gives_what_autograd_and_the_library_give() {
    let workspace = Workspace::new();
    let manifest = Manifest::read();
    for name in ["plain2d", "plain3d"] {
        let case = manifest.cases().find(|case| case.network.name == name).unwrap();
        let input = network(&case.network.input);
        let ran = workspace.map(&network(case.file), &[input], "--save-output").succeeded();
        let layer = &case.layers.auto;
        let map = workspace.npy(&format!("{layer}/{name}.input.npy"));
        assert!(ran.stdout.contains(&format!("{layer}/{name}.input.npy")));
        let extents = array(&case.network.input).shape().to_vec();
        assert_eq!(map.shape()[..2], [extents[0], 1]);
        assert_eq!(map.shape()[2..], extents[2..]);
        assert!(difference(&map, &array(&case.layers.maps[layer])) <= 1e-5);

        let mut injected = inject(model(case.file), Options::default()).unwrap();
        let output = injected.forward(&tensor(&case.network.input)).unwrap();
        assert!(difference(&map, &injected.attention_maps()[0].to_array().unwrap()) <= 1e-6);
        let saved = workspace.npy(&format!("{name}.input_output.npy"));
        assert!(difference(&saved, &to_array(&output).unwrap()) <= 1e-6);
    }
}

#[test]
fn a_png_gives_a_png_and_an_npy() {
    let workspace = Workspace::new();
    let inputs = [workspace.picture("photo.png"), workspace.picture("sp ace ü.png")];
    workspace.map(&network("plain2d.traced.pt"), &inputs, "--picture").succeeded();
    let map = workspace.npy("features/photo.npy");
    assert_eq!(map.shape(), [33, 47]);
    assert_eq!(extremes(&map), (0.0, 1.0));
    let seen = gray(&workspace.at("maps/features/photo.png"));
    let as_4d = map.clone().insert_axis(Axis(0)).insert_axis(Axis(0));
    assert!(difference(&seen.into_dyn(), &as_4d) <= 0.5 / 255.0 + 1e-6);
    assert_eq!(workspace.npy("features/sp ace ü.npy"), map);
    assert!(workspace.at("maps/features/sp ace ü_overlay.png").is_file());

    // The same values as an array give the same map.
    let pixels = medcam::volumes::Image::read(&inputs[0]).unwrap().data.insert_axis(Axis(0));
    let file = workspace.array("photo_as_array.npy", &pixels.into_dyn());
    workspace.map(&network("plain2d.traced.pt"), &[file], "").succeeded();
    assert!(difference(&workspace.npy("features/photo_as_array.npy"), &as_4d) <= 1e-6);
}

#[test]
fn layer_full_makes_a_folder_for_each_layer() {
    let workspace = Workspace::new();
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == "interpolating3d").unwrap();
    let inputs = [workspace.volume("a.nii.gz"), workspace.volume("b.nii")];
    workspace.map(&network(case.file), &inputs, "--layer full").succeeded();
    let report = workspace.report();
    let mut layers: Vec<_> =
        report["layers"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    layers.sort_unstable();
    let mut expected: Vec<_> = case.layers.full.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(layers, expected);
    for layer in layers {
        let maps = ["a", "b"].map(|stem| workspace.nifti(&format!("{layer}/{stem}.nii.gz")));
        assert_eq!(shape(&maps[0]), [17, 20, 23]);
        assert_eq!(maps[0].data, maps[1].data, "{layer}");
    }
    assert!(warnings(&report, 0).contains(&"REDRAWS_OUTPUT"));
}

#[test]
fn layers_are_listed() {
    let model = network("plain2d.traced.pt");
    let list = |options: &str| {
        ProcessOutput::of(program().arg("layers").arg(&model).args(options.split_whitespace()))
            .succeeded()
    };
    let text = list("--shape 1,3,33,47").stdout;
    let line = |name: &str| {
        let found = text.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        found.unwrap_or_else(|| panic!("{name} in {text}")).to_owned()
    };
    assert!(line("features").starts_with('*') && line("features").ends_with("1x16x4x5"));
    assert!(line("features.4").starts_with('+') && line("features.4").contains("Conv2d"));
    assert!(text.lines().any(|line| line.starts_with(' ') && line.contains("Linear")));

    let json: serde_json::Value =
        serde_json::from_str(&list("--shape 1,3,33,47 --json").stdout).unwrap();
    assert_eq!(json["auto"], "features");
    assert_eq!(json["task"], "classification");
    assert_eq!(json["input_shape"], serde_json::json!([1, 3, 33, 47]));
    let layers = json["layers"].as_array().unwrap();
    let named = |name: &str| layers.iter().find(|layer| layer["name"] == name).unwrap();
    assert_eq!(named("features.4")["type"], "Conv2d");
    assert_eq!(named("features.4")["shape"], serde_json::json!([1, 12, 16, 23]));
    assert_eq!(named("features.4")["can_carry_map"], true);
    assert_eq!(named("head")["can_carry_map"], false);

    let workspace = Workspace::new();
    let from_image = list(&format!("--input {}", workspace.picture("p.png").display()));
    assert_eq!(from_image.stdout, text);
}

#[test]
fn layers_takes_the_shape_from_the_card_beside_the_model() {
    let workspace = Workspace::new();
    let model = workspace.at("model.pt");
    std::fs::copy(network("plain3d.traced.pt"), &model).unwrap();
    let list = || ProcessOutput::of(program().arg("layers").arg(&model).arg("--json"));
    list().failed(2, &["--shape B,C,[D,]H,W or --input FILE"]);
    std::fs::write(workspace.at("model.toml"), "[input]\nsize = [18, 20, 22]\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(&list().succeeded().stdout).unwrap();
    assert_eq!(json["input_shape"], serde_json::json!([1, 1, 18, 20, 22]));
}

#[test]
fn u8_maps_are_a_quarter_of_the_size_and_a_rounding_away() {
    let workspace = Workspace::new();
    let model = network("interpolating3d.traced.pt");
    let inputs = [workspace.volume("v.nii"), network("interpolating3d.input.npy")];
    let read = || {
        let nifti = workspace.nifti("down2/v.nii.gz").data.into_dyn();
        (nifti, workspace.npy("down2/interpolating3d.input.npy"))
    };
    workspace.map(&model, &inputs, "").succeeded();
    let (volume, batch) = read();
    workspace.map(&model, &inputs, "--dtype u8").succeeded();
    let (volume_u8, batch_u8) = read();
    assert!(difference(&volume, &volume_u8) <= 0.5 / 255.0 + 1e-6);
    // An .npy of bytes holds values from 0 to 255.
    assert!(difference(&(batch * 255.0), &batch_u8) <= 0.5 + 1e-4);
    let bytes = std::fs::read(workspace.at("maps/down2/interpolating3d.input.npy")).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..64]).contains("|u1"));
    assert_eq!(MapType::default(), MapType::F32);
}
