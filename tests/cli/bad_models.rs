//! Models that do not load, do not run, or have no useful map; layers; cards; devices.

use std::process::Command;

use super::run::{ProcessOutput, Workspace, network, program, warnings};
use crate::common::Manifest;

#[test]
fn models_that_are_no_models() {
    let workspace = Workspace::new();
    let whole = std::fs::read(network("plain2d.traced.pt")).unwrap();
    let noise: Vec<u8> =
        (0..5000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for (name, bytes) in
        [("garbage.pt", &noise[..]), ("half.pt", &whole[..whole.len() / 2]), ("empty.pt", &[])]
    {
        std::fs::write(workspace.at(name), bytes).unwrap();
        let words = [name, "not a TorchScript file, or is damaged", "torch.jit.trace"];
        let ran = workspace.map(&workspace.at(name), &[network("plain2d.input.npy")], "");
        let ran = ran.failed(1, &words);
        assert!(ran.stderr.len() < 600 && ran.stdout.is_empty(), "{}", ran.stderr);
        ProcessOutput::of(
            program().arg("layers").arg(workspace.at(name)).args(["--shape", "1,3,8,8"]),
        )
        .failed(1, &words);
    }
    let input = [network("plain2d.input.npy")];
    workspace.map(&workspace.at("none.pt"), &input, "").failed(1, &["none.pt", "cannot be opened"]);
    workspace.map(&workspace.at(""), &input, "").failed(1, &["is a folder"]);
    assert!(!workspace.at("maps/run.json").exists());
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn a_checkpoint_is_told_from_a_model() {
    let Ok(python) = std::env::var("MEDCAM_PYTHON") else {
        println!("skipped: MEDCAM_PYTHON names no Python with torch");
        return;
    };
    let workspace = Workspace::new();
    let script = "import sys, torch\n\
                  torch.save(torch.nn.Linear(2, 2).state_dict(), sys.argv[1])\n\
                  torch.save(torch.nn.Linear(2, 2), sys.argv[2])\n";
    let files = [workspace.at("weights.pt"), workspace.at("module.pt")];
    let status = Command::new(python).args(["-c", script]).args(&files).status().unwrap();
    assert!(status.success());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let words = [name, "looks like a checkpoint of torch.save", "torch.jit.trace"];
        workspace.map(&file, &[network("plain2d.input.npy")], "").failed(1, &words);
    }
}

#[test]
fn odd_models_are_refused_by_name() {
    let manifest = Manifest::read();
    let file = |name: &str| {
        let odd = manifest.odd.iter().find(|odd| odd.name == name).unwrap();
        (network(&odd.file), network(&odd.inputs[0]))
    };
    for (name, options, words) in [
        ("two_inputs", "", ["two_inputs.pt", "forward takes 2 inputs (x, y)", "Wrap the model"]),
        ("nan", "", ["nan.input0.npy", "the model's output", "2 of 4 values are NaN or infinite"]),
        ("vector", "", ["vector.input0.npy", "[2, 12]", "(B, C, H, W)"]),
        ("detached", "--layer gate", ["detached.input0.npy", "layer 'gate'", "no gradient"]),
        ("detached", "--layer mask", ["detached.input0.npy", "layer 'mask'", "no gradient"]),
    ] {
        let workspace = Workspace::new();
        let (model, input) = file(name);
        workspace.map(&model, &[input], options).failed(1, &words);
        if name != "two_inputs" {
            let report = workspace.report();
            assert_eq!(report["failed"], 1, "{name}");
            let error = report["inputs"][0]["error"].as_str().unwrap();
            assert!(error.contains(words[1]), "{error}");
            assert_eq!(report["inputs"][0]["outputs"], serde_json::json!([]));
        }
    }
}

#[test]
fn a_map_of_zeros_is_written_with_a_warning() {
    let workspace = Workspace::new();
    let ran =
        workspace.map(&network("zero_map.pt"), &[network("zero_map.input0.npy")], "--picture");
    // A batch cannot be drawn, but its maps are written.
    let words = ["warning[ZERO_MAP]", "layer 'relu', best, sample 1", "another layer or class"];
    assert_eq!(ran.failed(1, &["overlay", "one sample"]).code, Some(1));
    assert_eq!(workspace.npy("relu/zero_map.input0.npy").shape(), [2, 1, 11, 13]);
    assert_eq!(workspace.report()["inputs"][0]["outputs"].as_array().unwrap().len(), 1);

    let ran =
        workspace.map(&network("zero_map.pt"), &[network("zero_map.input0.npy")], "").succeeded();
    assert!(words.iter().all(|word| ran.stderr.contains(word)), "{}", ran.stderr);
    assert_eq!(warnings(&workspace.report(), 0), ["ZERO_MAP", "ZERO_MAP"]);
    assert!(workspace.npy("relu/zero_map.input0.npy").iter().all(|v| *v == 0.0));
}

#[test]
fn layers_that_are_not_there_or_carry_nothing() {
    let workspace = Workspace::new();
    let inputs = [network("plain2d.input.npy")];
    let map = |layer: &str| {
        workspace.map(&network("plain2d.traced.pt"), &inputs, &format!("--layer {layer}"))
    };
    map("fetures.4")
        .failed(1, &["layer 'fetures.4'", "none of this name", "features.4", "medcam layers"]);
    map("features.4#2").failed(1, &["layer 'features.4#2'", "runs 1 time"]);
    map("head")
        .failed(1, &["layer 'head' cannot carry a map", "[1, 4]", "auto would take is 'features'"]);
    map("pool").failed(1, &["layer 'pool' cannot carry a map", "no spatial extent"]);
    map("features,nope").failed(1, &["layer 'nope'"]);
    assert_eq!(workspace.report()["failed"], 1);
    map("../up").failed(1, &["layer '../up'", "none of this name"]);
}

#[test]
fn cards_that_are_no_cards() {
    let workspace = Workspace::new();
    let model = workspace.at("model.pt");
    std::fs::copy(network("interpolating3d.traced.pt"), &model).unwrap();
    let inputs = [workspace.volume("v.nii")];
    let card = workspace.at("model.toml");
    for (text, words) in [
        ("classes = [\n[input", ["model.toml", "line 2", "not a card"]),
        ("orientaton = \"RAS\"", ["model.toml", "unknown field `orientaton`", "`input`"]),
        ("[input]\norientation = \"RAX\"", ["model.toml", "line 2", "RAX"]),
        ("[input]\nsize = [8, 8]", ["v.nii", "`size` has 2 numbers", "3D"]),
        ("[input]\nsize = [32767, 32767, 32767]", ["v.nii", "no memory", "32767"]),
    ] {
        std::fs::write(&card, text).unwrap();
        workspace.map(&model, &inputs, "").failed(1, &words);
    }
    // An explicit card takes precedence over the one beside the model.
    std::fs::write(workspace.at("other.toml"), "name = \"other\"").unwrap();
    let other = format!("--card {}", workspace.at("other.toml").display());
    workspace.map(&model, &inputs, &other).succeeded();
    workspace
        .map(&model, &inputs, "--card nowhere.toml")
        .failed(1, &["nowhere.toml", "cannot read"]);
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn a_device_that_is_not_there() {
    if medcam::Device::Cuda(0).available().is_ok() {
        println!("skipped: this machine has a CUDA device");
        return;
    }
    let workspace = Workspace::new();
    let input = [network("plain2d.input.npy")];
    for device in ["cuda", "cuda:7"] {
        let ran =
            workspace.map(&network("plain2d.traced.pt"), &input, &format!("--device {device}"));
        ran.failed(1, &["cuda:", "0 CUDA device(s)", "Use --device cpu", "nvidia-smi"]);
    }
    workspace.map(&network("plain2d.traced.pt"), &input, "--device auto").succeeded();
    assert_eq!(workspace.report()["device"], "cpu");
}
