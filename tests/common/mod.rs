//! Helpers of all tests: the folders that set-up made, and the networks with their expected maps.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use medcam::{Device, volumes};
use ndarray::ArrayD;
use serde::Deserialize;

/// The folder that `scripts/setup.py test` made and put in this environment variable.
pub fn folder(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(folder) => folder.into(),
        None => panic!("{variable} is not set: run `python3 scripts/setup.py test` first"),
    }
}

#[derive(Deserialize)]
pub struct Manifest {
    pub networks: Vec<Network>,
    pub odd: Vec<Odd>,
    pub guided: Vec<Guided>,
    pub aliases: Aliases,
    pub several: Several,
    pub unstable: Unstable,
}

/// A V-Net with a parametric ReLU, and the late layers whose map of Grad-CAM++ single precision misses,
/// by how much.
#[derive(Deserialize)]
pub struct Unstable {
    pub file: String,
    pub input: String,
    pub layers: BTreeMap<String, f32>,
}

/// A network without modules: its operations are its layers.
#[derive(Deserialize)]
pub struct Frozen {
    pub file: String,
    /// The expected map of auto's layer, and those of ReLUs by name.
    pub auto: String,
    pub maps: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub struct Network {
    pub name: String,
    pub task: String,
    pub label: serde_json::Value,
    pub input: String,
    pub traced: String,
    pub scripted: String,
    pub twin_traced: Option<String>,
    pub twin_scripted: Option<String>,
    pub output_traced: String,
    pub output_scripted: String,
    #[serde(flatten)]
    pub traced_layers: NetworkLayers,
    pub scripted_layers: NetworkLayers,
    pub class_maps: OtherMap,
    pub output_score_map: Option<OtherMap>,
    pub frozen: Frozen,
    /// By how much single precision misses the map of Grad-CAM++ of each layer of the scripted network.
    pub plus_plus_errors: BTreeMap<String, f32>,
}

/// The layers of a network, by the names in one TorchScript module.
#[derive(Deserialize)]
pub struct NetworkLayers {
    pub auto: String,
    pub named: String,
    pub list: Vec<String>,
    pub full: Vec<String>,
    /// Layers that run more than once.
    pub shared: Vec<String>,
    /// Layers whose map single precision does not determine.
    pub unstable: Vec<String>,
    /// Files of expected maps by layer.
    pub maps: BTreeMap<String, String>,
    /// Error of plain autograd in single precision for each map; the expected maps are in double.
    pub single_precision_errors: BTreeMap<String, f32>,
    /// The module with parameters in double, if single precision is too imprecise for some layers.
    pub double: Option<String>,
}

#[derive(Deserialize)]
pub struct OtherMap {
    #[serde(default)]
    pub label: usize,
    pub layer: String,
    pub map: String,
}

#[derive(Deserialize)]
pub struct Odd {
    pub name: String,
    pub file: String,
    pub inputs: Vec<String>,
    pub layers: Vec<String>,
}

/// The expected results of guided backpropagation for a network.
#[derive(Deserialize)]
pub struct Guided {
    pub name: String,
    pub label: serde_json::Value,
    pub input: String,
    /// The network in double, traced or scripted, and its out-of-place twins.
    pub files: Vec<String>,
    pub relu: GuidedGradient,
    pub all: GuidedGradient,
}

#[derive(Deserialize)]
pub struct GuidedGradient {
    /// The gradient at the input.
    pub gradient: String,
    /// Number of guided activations in one forward.
    pub count: usize,
}

/// One TorchScript module of a network.
pub struct Case<'a> {
    pub network: &'a Network,
    pub kind: &'static str,
    pub file: &'a str,
    pub twin: Option<&'a str>,
    pub output: &'a str,
    pub layers: &'a NetworkLayers,
}

impl Manifest {
    pub fn read() -> Self {
        let text =
            std::fs::read_to_string(folder("MEDCAM_NETWORKS").join("manifest.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Every network, traced and scripted.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        self.networks.iter().flat_map(|network| {
            [
                Case {
                    network,
                    kind: "traced",
                    file: &network.traced,
                    twin: network.twin_traced.as_deref(),
                    output: &network.output_traced,
                    layers: &network.traced_layers,
                },
                Case {
                    network,
                    kind: "scripted",
                    file: &network.scripted,
                    twin: network.twin_scripted.as_deref(),
                    output: &network.output_scripted,
                    layers: &network.scripted_layers,
                },
            ]
        })
    }
}

/// Networks that overwrite tensors which others still hold (`tests/networks/aliases.py`).
#[derive(Deserialize)]
pub struct Aliases {
    pub input: String,
    pub networks: Vec<AliasNetwork>,
}

#[derive(Deserialize)]
pub struct AliasNetwork {
    pub name: String,
    pub files: Vec<String>,
    pub output: String,
    /// Files of expected HiResCAM maps by layer.
    pub maps: BTreeMap<String, String>,
    /// Layers whose maps must be refused.
    pub refused: Vec<String>,
}

impl Aliases {
    pub fn read() -> Self {
        Manifest::read().aliases
    }
}

/// Models that return several tensors.
#[derive(Deserialize)]
pub struct Several {
    pub input: String,
    /// Expected results by `HEAD.logits` and `HEAD.output`: the place where the score is taken.
    pub heads: BTreeMap<String, Head>,
    pub models: Vec<SeveralModel>,
}

#[derive(Deserialize)]
pub struct Head {
    pub output: String,
    /// Files of expected maps by layer.
    pub maps: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub struct SeveralModel {
    pub file: String,
    /// Names of its outputs main, coarse and image.
    pub names: Vec<String>,
    /// Whether the graph shows which value each output is.
    #[serde(rename = "told")]
    pub in_graph: bool,
}

impl Several {
    pub fn read() -> Self {
        Manifest::read().several
    }
}

pub fn array(file: &str) -> ArrayD<f32> {
    volumes::read_npy(folder("MEDCAM_NETWORKS").join(file)).unwrap()
}

pub fn model(file: &str) -> medcam::Model {
    medcam::load(folder("MEDCAM_NETWORKS").join(file), Device::Cpu).unwrap()
}

pub fn tensor(file: &str) -> medcam::tch::Tensor {
    medcam::to_tensor(&array(file), Device::Cpu, medcam::tch::Kind::Float).unwrap()
}

/// The largest absolute difference between two arrays of one shape; NaN counts as infinite.
pub fn difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
}
