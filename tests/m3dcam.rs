//! `Compat::M3dCam` against M3d-CAM 0.1.22 itself and, where the package fails or is wrong, against
//! plain autograd. Networks and arrays come from `tests/m3dcam/make_expected.py`, which runs the
//! package.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use common::difference;
use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
use medcam::tch::{Kind, Tensor};
use medcam::{
    Compat, Device, Injected, LayerChoice, MapSize, Model, Options, Target, inject, to_tensor,
    volumes,
};
use ndarray::{ArrayD, ArrayView3, Axis, IxDyn};
use serde::Deserialize;
use serde_json::Value;

/// Tolerance of the maps. Where the package is right, it is within 2e-5 of autograd in double
/// precision, and so are we.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Manifest {
    networks: Vec<Network>,
    cases: Vec<Case>,
    evaluation: Evaluation,
}

#[derive(Deserialize)]
struct Network {
    name: String,
    file: String,
    task: String,
    /// The discriminator of the label `above`.
    above: f64,
    /// The result of the package's `get_layers`.
    layers: Vec<String>,
    input: Place,
    arrays: String,
}

/// Offset and shape of an array in its file.
#[derive(Deserialize)]
struct Place {
    at: usize,
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    network: String,
    backend: String,
    label: Value,
    layer: Value,
    samples: i64,
    /// `right`, `wrong` or `fails`.
    status: String,
    /// The fault of the package.
    why: Option<String>,
    /// The maps by layer; empty if the right result is an error.
    layer_maps: BTreeMap<String, Place>,
    map: Option<Place>,
}

#[derive(Deserialize)]
struct Evaluation {
    scores: Vec<SingleScore>,
    runs: Vec<Run>,
    arrays: String,
}

#[derive(Deserialize)]
struct SingleScore {
    map: Place,
    mask: Place,
    metric: String,
    threshold: Value,
    score: Option<f64>,
}

#[derive(Deserialize)]
struct Run {
    network: String,
    backend: String,
    layers: Value,
    label: Value,
    metric: String,
    threshold: Value,
    forwards: Vec<Forward>,
    scores: Vec<LayerScore>,
    means: Vec<LayerScore>,
}

#[derive(Deserialize)]
struct Forward {
    input: Place,
    mask: Place,
}

#[derive(Deserialize)]
struct LayerScore {
    layer: String,
    score: Option<f64>,
}

fn folder() -> PathBuf {
    common::folder("MEDCAM_M3DCAM")
}

/// All arrays of one file.
struct Arrays(ArrayD<f32>);

impl Arrays {
    fn read(file: &str) -> Self {
        Self(volumes::read_npy(folder().join(file)).unwrap())
    }

    fn get(&self, place: &Place) -> ArrayD<f32> {
        let length = place.shape.iter().product::<usize>();
        let values = &self.0.as_slice().unwrap()[place.at..place.at + length];
        ArrayD::from_shape_vec(IxDyn(&place.shape), values.to_vec()).unwrap()
    }

    fn tensor(&self, place: &Place) -> Tensor {
        to_tensor(&self.get(place), Device::Cpu, Kind::Float).unwrap()
    }
}

impl Manifest {
    fn read() -> Self {
        let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn network(&self, name: &str) -> &Network {
        self.networks.iter().find(|network| network.name == name).unwrap()
    }
}

/// The target for a label of M3d-CAM; `above` is the threshold of its discriminator.
fn target(label: &Value, above: f64) -> Target {
    match label {
        Value::Null => Target::All,
        Value::Number(class) => Target::Class(usize::try_from(class.as_u64().unwrap()).unwrap()),
        label if label == "best" => Target::Best,
        label if label == "above" => Target::Function(Arc::new(move |y| y * y.gt(above))),
        label => panic!("{label}"),
    }
}

fn layers(layer: &Value) -> LayerChoice {
    match layer {
        Value::String(layer) if layer == "auto" => LayerChoice::Auto,
        Value::String(layer) if layer == "full" => LayerChoice::Full,
        Value::String(layer) => LayerChoice::Names(vec![layer.clone()]),
        several => LayerChoice::Names(serde_json::from_value(several.clone()).unwrap()),
    }
}

fn injected(
    network: &Network,
    backend: &str,
    layers: LayerChoice,
    target: Target,
) -> Injected<Model> {
    let options = Options::default()
        .compat(Compat::M3dCam)
        .backend(backend.parse().unwrap())
        .layers(layers)
        .target(target);
    inject(medcam::load(folder().join(&network.file), Device::Cpu).unwrap(), options).unwrap()
}

/// The maps of one forward, by layer.
fn maps(
    injected: &mut Injected<Model>,
    input: &Tensor,
    size: MapSize,
) -> medcam::Result<Vec<(String, ArrayD<f32>)>> {
    injected.set_size(size);
    let _output = injected.forward(input)?;
    Ok(injected
        .attention_maps()
        .iter()
        .map(|map| (map.layer().to_owned(), map.to_array().unwrap()))
        .collect())
}

/// Compares each map of a case; returns the number of maps.
fn check(case: &Case, network: &Network, arrays: &Arrays) -> usize {
    let target = target(&case.label, network.above);
    let mut injected = injected(network, &case.backend, layers(&case.layer), target);
    let input = arrays.tensor(&network.input).narrow(0, 0, case.samples);
    if case.layer_maps.is_empty() {
        assert!(maps(&mut injected, &input, MapSize::Layer).is_err(), "{}", case.name);
        return 1;
    }
    let close = |what: &str, ours: &ArrayD<f32>, place: &Place| {
        let off = difference(ours, &arrays.get(place));
        assert!(off <= TOLERANCE, "{} {what}: off by {off} ({:?})", case.name, case.why);
    };
    let on_layer = maps(&mut injected, &input, MapSize::Layer).unwrap();
    let found: HashMap<_, _> = on_layer.iter().map(|(layer, map)| (layer.as_str(), map)).collect();
    for (layer, place) in &case.layer_maps {
        // M3d-CAM names the input's map by an empty string.
        let ours = found.get(if layer.is_empty() { "input" } else { layer });
        close(layer, ours.unwrap_or_else(|| panic!("{}: no map of {layer}", case.name)), place);
    }
    if case.layer != "full" && case.layer_maps.len() == 1 {
        assert!(case.layer.is_array() || on_layer.len() == 1, "{}", case.name);
    }
    let Some(place) = &case.map else { return case.layer_maps.len() };
    let only = case.layer_maps.keys().next().unwrap();
    let at_input = maps(&mut injected, &input, MapSize::Input).unwrap();
    let (_, map) = at_input.iter().find(|(layer, _)| layer == only || only.is_empty()).unwrap();
    close("at the input's size", map, place);
    case.layer_maps.len() + 1
}

/// Compares all cases that `chosen` selects; returns the number of cases and of maps.
fn check_all(chosen: impl Fn(&Case) -> bool) -> (usize, usize) {
    // The networks are so small that several threads would only wait for one another.
    medcam::tch::set_num_threads(1);
    let manifest = Manifest::read();
    let (mut cases, mut compared) = (0, 0);
    for network in &manifest.networks {
        let arrays = Arrays::read(&network.arrays);
        for case in manifest.cases.iter().filter(|case| case.network == network.name) {
            if chosen(case) {
                compared += check(case, network, &arrays);
                cases += 1;
            }
        }
    }
    (cases, compared)
}

#[test]
#[expect(clippy::print_stderr, reason = "says how much was compared")]
fn where_the_package_is_right_compat_gives_its_maps() {
    let (cases, compared) = check_all(|case| case.status == "right");
    eprintln!("{cases} cases of M3d-CAM 0.1.22, {compared} maps");
    assert!(cases >= 550, "{cases}");
    let manifest = Manifest::read();
    for backend in ["gcam", "gcampp", "gbp", "ggcam"] {
        for (dimensions, task) in [
            ("2d", "classification"),
            ("2d", "segmentation"),
            ("3d", "classification"),
            ("3d", "segmentation"),
        ] {
            let of_kind = manifest.cases.iter().filter(|case| {
                case.status == "right"
                    && case.backend == backend
                    && case.network.ends_with(dimensions)
                    && manifest.network(&case.network).task == task
            });
            let count = of_kind.count();
            assert!(count >= 8, "{backend} {dimensions} {task}: {count}");
        }
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "says how much was compared")]
fn where_the_package_is_wrong_compat_is_right() {
    let (cases, compared) = check_all(|case| case.status != "right");
    eprintln!("{cases} cases in which M3d-CAM 0.1.22 is wrong or fails, {compared} maps");
    assert!(cases >= 400, "{cases}");
    let faults: BTreeSet<_> =
        Manifest::read().cases.into_iter().filter_map(|case| case.why).collect();
    assert!(faults.len() >= 12, "{faults:?}");
}

#[test]
#[expect(clippy::print_stderr, reason = "says how much was compared")]
fn auto_is_not_the_packages_without_compat() {
    // In segmentation, the map of the package's `auto` redraws the output. `tests/parity.rs` tests
    // our own `auto`.
    let manifest = Manifest::read();
    let mut redrawn = 0;
    for network in manifest.networks.iter().filter(|network| network.task == "segmentation") {
        let input = Arrays::read(&network.arrays).tensor(&network.input);
        let mut injected = injected(network, "gcam", LayerChoice::Auto, Target::Class(0));
        let _output = injected.forward(&input).unwrap();
        let layer = injected.attention_maps()[0].layer().to_owned();
        let warned = injected.warnings().iter().any(|warning| warning.code == "REDRAWS_OUTPUT");
        assert!(warned, "{} {layer}", network.name);
        let ours = injected.layers(&input).unwrap().auto().unwrap();
        assert_ne!(ours.name, layer, "{}", network.name);
        redrawn += 1;
    }
    eprintln!("{redrawn} networks");
    assert!(redrawn >= 8, "{redrawn}");
}

fn metric(name: &str) -> Metric {
    name.parse().unwrap()
}

fn threshold(value: &Value) -> Threshold {
    match value {
        Value::String(text) => text.parse().unwrap(),
        value => value.to_string().parse().unwrap(),
    }
}

/// `(D, H, W)` of one map or mask; 2D has `D = 1`.
fn volume(array: &ArrayD<f32>) -> ArrayView3<'_, f32> {
    match array.ndim() {
        2 => array.view().insert_axis(Axis(0)).into_dimensionality().unwrap(),
        _ => array.view().into_dimensionality().unwrap(),
    }
}

fn same_score(what: &str, ours: f64, package: Option<f64>) {
    match package {
        Some(package) => assert!((ours - package).abs() <= 1e-4, "{what}: {ours} and {package}"),
        None => assert!(ours.is_nan(), "{what}: {ours} and NaN"),
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "says how much was compared")]
fn scores_of_single_maps_are_the_packages() {
    let evaluation = Manifest::read().evaluation;
    let arrays = Arrays::read(&evaluation.arrays);
    for score in &evaluation.scores {
        let (map, mask) = (arrays.get(&score.map), arrays.get(&score.mask));
        let evaluator =
            Evaluator::new(Scoring::new(vec![metric(&score.metric)], threshold(&score.threshold)));
        let ours = evaluator.compute(volume(&map), volume(&mask)).unwrap()[0];
        let what = format!("{} {} at {}", score.metric, score.threshold, score.map.at);
        same_score(&what, ours, score.score);
    }
    eprintln!("{} scores", evaluation.scores.len());
    assert!(evaluation.scores.len() >= 100);
}

#[test]
#[expect(clippy::print_stderr, reason = "says how much was compared")]
fn a_study_has_the_scores_and_means_of_the_packages_tables() {
    let manifest = Manifest::read();
    let arrays = Arrays::read(&manifest.evaluation.arrays);
    let mut compared = 0;
    for run in &manifest.evaluation.runs {
        let network = manifest.network(&run.network);
        let mut injected =
            injected(network, &run.backend, layers(&run.layers), target(&run.label, 0.0));
        let mut evaluator =
            Evaluator::new(Scoring::new(vec![metric(&run.metric)], threshold(&run.threshold)))
                .layer_order(network.layers.clone());
        for forward in &run.forwards {
            let masks = arrays.get(&forward.mask);
            let maps = maps(&mut injected, &arrays.tensor(&forward.input), MapSize::Layer).unwrap();
            for (layer, maps) in &maps {
                for (sample, map) in maps.outer_iter().enumerate() {
                    let map = map.index_axis(Axis(0), 0).to_owned();
                    let mask = masks.index_axis(Axis(0), sample).index_axis(Axis(0), 0).to_owned();
                    evaluator.add(volume(&map), volume(&mask), layer, None, "").unwrap();
                }
            }
        }
        assert_eq!(evaluator.scores().len(), run.scores.len());
        for (ours, package) in evaluator.scores().iter().zip(&run.scores) {
            assert_eq!(ours.layer, package.layer, "{}", run.network);
            same_score(&run.network, ours.score, package.score);
            compared += 1;
        }
        let means = evaluator.means();
        assert_eq!(means.len(), run.means.len());
        for (ours, package) in means.iter().zip(&run.means) {
            assert_eq!(ours.layer, package.layer, "{}", run.network);
            same_score(&run.network, ours.mean, package.score);
            compared += 1;
        }
    }
    eprintln!("{compared} scores and means");
    assert!(compared >= 50, "{compared}");
}
