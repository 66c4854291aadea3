//! Files that torch 2.15 wrote: what libtorch has the operators for gives what torch 2.15 gives, and what it
//! lacks is named. `tests/newer_torch/make_files.py` made the files, which knows nothing of medcam.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::difference;
use medcam::tch::{Kind, Tensor};
use medcam::{
    Device, Error, Injected, LayerChoice, Model, Options, Target, inject, to_array, to_tensor,
    volumes,
};
use ndarray::ArrayD;

/// As in `tests/parity.rs`.
const TOLERANCE: f32 = 1e-5;

/// Networks whose every operator that runs is in this libtorch.
const RUNNING: [&str; 4] = ["interpolate", "upsample", "broadcast", "constant"];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/newer_torch").join(file)
}

fn array(file: &str) -> ArrayD<f32> {
    volumes::read_npy(path(file)).unwrap()
}

fn input() -> Tensor {
    to_tensor(&array("input.npy"), Device::Cpu, Kind::Float).unwrap()
}

fn load(name: &str) -> Model {
    medcam::load(path(&format!("{name}.pt")), Device::Cpu).unwrap()
}

fn injected(name: &str, layers: LayerChoice) -> Injected<Model> {
    let options = Options::default().target(Target::Class(1)).layers(layers);
    inject(load(name), options).unwrap()
}

fn second() -> LayerChoice {
    LayerChoice::Names(vec!["second".to_owned()])
}

fn refusal(name: &str) -> Error {
    medcam::load(path(&format!("{name}.pt")), Device::Cpu).unwrap_err()
}

fn assert_told(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    assert!(!message.contains('\n'), "more than one line: {message}");
}

#[test]
fn the_output_is_that_of_the_newer_torch_bit_for_bit() {
    for name in RUNNING {
        let expected = array(&format!("{name}.output.npy"));
        let own = load(name).forward(&input()).unwrap();
        assert_eq!(to_array(&own).unwrap(), expected, "{name}");
        for layers in [second(), LayerChoice::Full] {
            let output = injected(name, layers).forward(&input()).unwrap();
            assert_eq!(to_array(&output).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn maps_are_those_of_autograd_in_double_precision() {
    for name in RUNNING {
        let mut injected = injected(name, second());
        let _output = injected.forward(&input()).unwrap();
        let [map] = injected.attention_maps() else { panic!("{name}: not one map") };
        let worst = difference(&map.to_array().unwrap(), &array(&format!("{name}.map.npy")));
        assert!(worst <= TOLERANCE, "{name}: off by {worst}");
    }
}

#[test]
fn an_operator_that_runs_and_is_missing_is_named() {
    let words = "aten::_upsample_lanczos2d_aa was added after torch 2.11, which medcam runs on; export the \
                 network with torch 2.11, or without that operator";
    let plain = load("lanczos").forward(&input()).unwrap_err();
    let tapped = injected("lanczos", second()).forward(&input()).unwrap_err();
    for error in [plain, tapped] {
        assert!(error.is_model());
        assert_told(&error, &["lanczos.pt: ", words]);
    }
}

#[test]
fn what_torch_does_not_know_is_named_at_load() {
    let newer =
        ["which medcam runs on", "most likely a newer one", "Export the network with torch 2.11"];
    for (name, what) in [
        ("unknown_operator", "aten::relu_of_tomorrow is no operator of torch 2.11"),
        (
            "unknown_argument",
            "aten::relu is called with arguments that it does not take in torch 2.11",
        ),
        ("unknown_type", "Tansor is no type of torch 2.11"),
    ] {
        let error = refusal(name);
        assert!(error.is_file());
        assert_told(&error, &newer);
        assert_told(&error, &[&format!("{name}.pt: {what}")]);
    }
    assert_told(&refusal("unknown_operator"), &["torch.jit.trace leaves out what does not run"]);
    assert_told(&refusal("unknown_argument"), &["(Keyword argument slope unknown)"]);
    let format =
        ["version 99 of TorchScript's file format", "a newer torch than torch 2.11", "up to 10"];
    assert_told(&refusal("newer_format"), &format);
}

#[test]
fn what_an_extension_has_is_named_at_load() {
    let extension =
        ["of the extension `torchvision`, which libtorch does not have", "leave it out"];
    for (name, what) in [
        ("unknown_extension", "torchvision::relu is an operator "),
        ("unknown_class", "torchvision.Video is a class "),
    ] {
        let error = refusal(name);
        assert!(error.is_file() && !error.to_string().contains("newer one"));
        assert_told(&error, &extension);
        assert_told(&error, &[&format!("{name}.pt: {what}")]);
    }
}
