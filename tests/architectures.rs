//! The field's architectures, exported by `tests/networks/make_architectures.py`: each loads,
//! `auto` selects the layer that was determined by hand, and its maps are plain autograd's.
//! docs/networks.md is for their users.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{difference, folder};
use medcam::tch::{Kind, Tensor};
use medcam::{
    Backend, Device, Guide, Injected, LayerChoice, Model, Options, Output, Target, Task, inject,
    to_array, to_tensor, volumes,
};
use ndarray::ArrayD;
use serde::Deserialize;

/// Both tolerances are those of `tests/parity.rs`.
const TOLERANCE: f32 = 1e-5;
const OF_SINGLE_PRECISION: f32 = 5.0;

#[derive(Deserialize)]
struct Manifest {
    architectures: Vec<Architecture>,
}

/// One of the field's architectures.
#[derive(Deserialize)]
struct Architecture {
    task: String,
    label: serde_json::Value,
    /// The number of the explained output, if there are several.
    explained: Option<usize>,
    auto: String,
    channels_last: Vec<String>,
    input: String,
    output: String,
    /// Files by kind: traced, scripted.
    exports: BTreeMap<String, String>,
    /// Files of expected maps by layer.
    maps: BTreeMap<String, String>,
    single_precision_errors: BTreeMap<String, f32>,
    double: Option<String>,
}

impl Manifest {
    fn read() -> Self {
        serde_json::from_str(&std::fs::read_to_string(at("manifest.json")).unwrap()).unwrap()
    }
}

fn at(file: &str) -> PathBuf {
    folder("MEDCAM_ARCHITECTURES").join(file)
}

fn array(file: &str) -> ArrayD<f32> {
    volumes::read_npy(at(file)).unwrap()
}

fn tensor(file: &str) -> Tensor {
    to_tensor(&array(file), Device::Cpu, Kind::Float).unwrap()
}

fn load(architecture: &Architecture, file: &str) -> Model {
    let output = architecture.explained.map_or(Output::First, Output::Index);
    medcam::load(at(file), Device::Cpu).unwrap().with_output(&output).unwrap()
}

fn options(architecture: &Architecture) -> Options {
    Options::default().target(match architecture.label.as_u64() {
        Some(class) => Target::Class(usize::try_from(class).unwrap()),
        None => Target::Best,
    })
}

fn injected(architecture: &Architecture, file: &str, layers: LayerChoice) -> Injected<Model> {
    inject(load(architecture, file), options(architecture).layers(layers)).unwrap()
}

fn listed(architecture: &Architecture) -> LayerChoice {
    LayerChoice::Names(architecture.maps.keys().cloned().collect())
}

/// Runs a test for each exported file of each architecture.
fn for_each(run: impl Fn(&Architecture, &str)) {
    let architectures = Manifest::read().architectures;
    assert!(architectures.len() >= 9);
    for architecture in &architectures {
        for file in architecture.exports.values() {
            run(architecture, file);
        }
    }
}

#[test]
fn the_output_is_the_models_own_bit_for_bit() {
    for_each(|architecture, file| {
        let input = tensor(&architecture.input);
        let bits = |output| to_array(&output).unwrap().mapv(f32::to_bits);
        let own = load(architecture, file).forward(&input).unwrap();
        let off = difference(&to_array(&own).unwrap(), &array(&architecture.output));
        assert!(off <= 1e-4, "{file}: {off}");
        let tapped = injected(architecture, file, LayerChoice::Auto).forward(&input).unwrap();
        assert_eq!(bits(own), bits(tapped), "{file}");
    });
}

#[test]
fn auto_takes_a_layer_that_makes_sense() {
    for_each(|architecture, file| {
        let mut injected = injected(architecture, file, LayerChoice::Auto);
        let layers = injected.layers(&tensor(&architecture.input)).unwrap();
        let classifies = layers.task() == Task::Classification;
        assert_eq!(classifies, architecture.task == "classification", "{file}");
        assert_eq!(layers.auto().unwrap().name, architecture.auto, "{file}");
        for name in architecture.maps.keys() {
            let layer = layers.get(name).unwrap();
            assert!(layer.can_carry_map, "{file} {name}");
            let last = architecture.channels_last.contains(name);
            assert_eq!(layer.channels_last, last, "{file} {name}");
        }
    });
}

/// Compares the maps of all listed layers; `allowed` is the tolerance of a layer's map.
fn compare(architecture: &Architecture, file: &str, input: &Tensor, allowed: impl Fn(&str) -> f32) {
    let mut injected = injected(architecture, file, listed(architecture));
    let _output = injected.forward(input).unwrap();
    assert_eq!(injected.attention_maps().len(), architecture.maps.len(), "{file}");
    for map in injected.attention_maps() {
        let name = map.layer();
        let off = difference(&map.to_array().unwrap(), &array(&architecture.maps[name]));
        assert!(off <= allowed(name), "{file} {name}: off by {off}");
        let warned = injected
            .warnings()
            .iter()
            .any(|warning| warning.code == "CHANNELS_LAST" && warning.layer == name);
        assert_eq!(warned, architecture.channels_last.iter().any(|last| last == name), "{name}");
    }
}

#[test]
fn the_maps_are_autograds() {
    let mut in_double = 0;
    for architecture in Manifest::read().architectures {
        let input = tensor(&architecture.input);
        for file in architecture.exports.values() {
            compare(&architecture, file, &input, |name| {
                let bound = architecture.single_precision_errors[name] * OF_SINGLE_PRECISION;
                TOLERANCE.max(bound)
            });
        }
        if let Some(double) = &architecture.double {
            compare(&architecture, double, &input.to_kind(Kind::Double), |_| TOLERANCE);
            in_double += 1;
        }
    }
    assert!(in_double >= 4);
}

#[test]
fn every_backend_makes_maps_of_every_architecture() {
    let names = ["gcam", "gcampp", "gbp", "ggcam", "hirescam", "layercam"];
    let backends: Vec<Backend> = names.iter().filter_map(|name| name.parse().ok()).collect();
    assert!(!backends.is_empty());
    for architecture in Manifest::read().architectures {
        let file = architecture.exports.values().next().unwrap();
        let input = tensor(&architecture.input).narrow(0, 0, 1);
        for &backend in &backends {
            let options = options(&architecture).backend(backend).guide(Guide::All);
            let mut injected = inject(load(&architecture, file), options).unwrap();
            let _output = injected.forward(&input).unwrap();
            let map = injected.attention_maps()[0].to_array().unwrap();
            let what = format!("{file} {backend}");
            let spatial = |shape: &[usize]| shape[2..].to_vec();
            assert_eq!(spatial(map.shape()), spatial(array(&architecture.input).shape()), "{what}");
            assert!(map.iter().all(|value| value.is_finite()), "{what}");
            let first = map.first().unwrap();
            assert!(map.iter().any(|value| value != first), "{what}: the same everywhere");
        }
    }
}
