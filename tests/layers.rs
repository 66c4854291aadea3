//! Which layers a network has, and what finding them out costs: operations where there are no modules,
//! shapes without a forward, layers that are named before anything ran.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Manifest, array, difference, model, tensor};
use medcam::tch::{self, Kind, Tensor};
use medcam::{
    Backend, Explainer, Facts, LayerChoice, Model, Network, Options, Request, Result, Settings,
    Tape, Target, inject,
};

fn target(network: &common::Network) -> Target {
    match network.label.as_u64() {
        Some(class) => Target::Class(usize::try_from(class).unwrap()),
        None => Target::Best,
    }
}

fn named(names: &[&str]) -> LayerChoice {
    LayerChoice::Names(names.iter().map(|&name| name.to_owned()).collect())
}

/// Networks whose last activations and sums are functions: with them `auto` has more to take than modules.
const HAVE_FUNCTIONS: [&str; 2] = ["softmax2d", "flat2d"];

#[test]
fn the_operations_of_a_frozen_network_have_the_maps_of_its_modules() {
    let mut compared = 0;
    for network in Manifest::read().networks {
        let of = |choice: LayerChoice| {
            let options = Options::default().target(target(&network)).layers(choice);
            let mut injected = inject(model(&network.frozen.file), options).unwrap();
            let _output = injected.forward(&tensor(&network.input)).unwrap();
            injected
        };
        let auto = of(LayerChoice::Auto);
        let auto = &auto.attention_maps()[0];
        // Freezing folds batch norms into convolutions, which rounds differently.
        let off = difference(&auto.to_array().unwrap(), &array(&network.frozen.auto));
        let has_other_layers = HAVE_FUNCTIONS.contains(&&*network.name);
        assert!(off <= 1e-4 || has_other_layers, "{} {}: {off}", network.name, auto.layer());
        let names: Vec<_> = network.frozen.maps.keys().map(String::as_str).collect();
        if names.is_empty() {
            continue;
        }
        for map in of(named(&names)).attention_maps() {
            let off =
                difference(&map.to_array().unwrap(), &array(&network.frozen.maps[map.layer()]));
            assert!(off <= 1e-4, "{} {}: {off}", network.name, map.layer());
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn the_names_of_operations_are_their_kind_and_place() {
    let network = Manifest::read().networks.into_iter().find(|n| n.name == "resnet18").unwrap();
    let names = || {
        let mut explainer =
            Explainer::new(model(&network.frozen.file), Settings::default()).unwrap();
        let layers = explainer.layers(&tensor(&network.input)).unwrap();
        assert!(layers.has_operations());
        layers.iter().map(|layer| layer.name.clone()).collect::<BTreeSet<_>>()
    };
    let first = names();
    for name in ["conv2d.1", "conv2d.21", "relu.1", "relu.17", "add.8", "max_pool2d.1"] {
        assert!(first.contains(name), "{name} of {first:?}");
    }
    assert!(!first.contains("conv2d.22") && !first.contains("relu.18"), "{first:?}");
    assert_eq!(first, names());
    // Where modules do, operations are no layers.
    let mut explainer = Explainer::new(model(&network.traced), Settings::default()).unwrap();
    assert!(!explainer.layers(&tensor(&network.input)).unwrap().has_operations());
}

/// Networks whose shapes depend on values: a branch on data.
const NEED_A_FORWARD: [&str; 2] = ["aliases.Dependent.scripted.pt", "several.Branch.scripted.pt"];

/// A network that cannot run.
struct Shapes(Model);

impl Network for Shapes {
    fn forward_tapped(&self, _input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        // An error of the crate's.
        tape.tap("no forward\0", &Tensor::new())
    }

    fn forward_shapes(&self, input: &Tensor, tape: &mut Tape) -> Option<Tensor> {
        self.0.forward_shapes(input, tape)
    }

    fn facts(&self) -> Facts {
        self.0.facts()
    }

    fn tap_operations(&mut self, on: bool) -> Result<bool> {
        self.0.tap_operations(on)
    }
}

#[test]
fn shapes_are_found_without_a_forward_and_are_those_of_one() {
    let manifest = Manifest::read();
    let mut files: Vec<(String, String)> = Vec::new();
    for case in manifest.cases() {
        files.push((case.file.to_owned(), case.network.input.clone()));
    }
    files.extend(manifest.networks.iter().map(|n| (n.frozen.file.clone(), n.input.clone())));
    for network in &manifest.aliases.networks {
        let input = &manifest.aliases.input;
        files.extend(network.files.iter().map(|file| (file.clone(), input.clone())));
    }
    let of_several = &manifest.several;
    files.extend(of_several.models.iter().map(|m| (m.file.clone(), of_several.input.clone())));
    let mut without = Vec::new();
    for (file, input) in &files {
        let mut explainer = Explainer::new(Shapes(model(file)), Settings::default()).unwrap();
        let input = tensor(input);
        match explainer.layers(&input) {
            Ok(layers) => {
                let output = model(file).forward(&input.narrow(0, 0, 1)).unwrap();
                assert_eq!(&layers.output_shape()[1..], &output.size()[1..], "{file}");
            }
            Err(error) => {
                assert!(error.to_string().contains("no forward"), "{file}: {error}");
                without.push(file.as_str());
            }
        }
    }
    assert_eq!(without, NEED_A_FORWARD, "of {}", files.len());
}

/// A network in Rust that counts its forwards: "twice" runs two times, and what it gives the first time is
/// what "other" gives too.
struct Counting(Arc<AtomicUsize>);

impl Network for Counting {
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let first = tape.tap("twice", &(input * 2.0))?;
        let other = tape.tap("other", &first)?;
        let second = tape.tap("twice", &(other.square() + 1.0))?;
        let axes: &[i64] = &[2, 3];
        let tail = second.sin().cumsum(3, Kind::Float);
        Ok(tail.mean_dim(axes, false, Kind::Float))
    }
}

fn image(batch: i64) -> Tensor {
    let ramp = Tensor::arange(batch * 3 * 20, (Kind::Float, tch::Device::Cpu));
    (ramp * 0.37).sin().reshape([batch, 3, 4, 5])
}

fn counted(
    choice: LayerChoice,
    backend: Backend,
    batch: i64,
) -> (usize, Vec<ndarray::ArrayD<f32>>) {
    let count = Arc::new(AtomicUsize::new(0));
    let settings = Settings {
        layers: choice,
        backend,
        targets: vec![Target::Class(1)],
        ..Settings::default()
    };
    let mut explainer = Explainer::new(Counting(Arc::clone(&count)), settings).unwrap();
    let explanation = explainer.explain(&image(batch), &Request::default()).unwrap();
    (
        count.load(Ordering::Relaxed),
        explanation.maps.iter().map(|map| map.to_array().unwrap()).collect(),
    )
}

#[test]
fn a_named_layer_costs_no_forward_of_its_own() {
    let backend = Backend::HIRES_CAM;
    let (forwards, last) = counted(named(&["twice", "other"]), backend, 1);
    assert_eq!(forwards, 1);
    let (forwards, picked) = counted(named(&["twice#2", "other"]), backend, 1);
    assert_eq!(forwards, 1);
    assert_eq!(last, picked);
    let (_, first) = counted(named(&["twice#1"]), backend, 1);
    // What "other" gives is what "twice" gave the first time.
    assert_eq!(first[0], last[1]);
    assert_ne!(first[0], last[0]);
    // The order of the names does not matter.
    let (_, turned) = counted(named(&["other", "twice"]), backend, 1);
    assert_eq!((&turned[0], &turned[1]), (&last[1], &last[0]));
    // `auto` has to find out what there is, and a batch what a single sample gives.
    let (forwards, auto) = counted(LayerChoice::Auto, backend, 1);
    assert_eq!((forwards, &auto[0]), (2, &last[0]));
    assert_eq!(counted(named(&["twice"]), backend, 2).0, 2);
}

#[test]
fn a_name_that_no_layer_has_is_refused_and_nothing_is_lost() {
    let settings = Settings { layers: named(&["thrice"]), ..Settings::default() };
    let mut explainer = Explainer::new(Counting(Arc::default()), settings).unwrap();
    for _ in 0..2 {
        let error = explainer.explain(&image(1), &Request::default()).unwrap_err();
        assert!(error.is_layer() && error.to_string().contains("'thrice'"), "{error}");
        assert!(error.to_string().contains("twice"), "{error}");
    }
    for wrong in ["twice#0", "twice#3", "twice#x"] {
        let settings = Settings { layers: named(&[wrong]), ..Settings::default() };
        let mut explainer = Explainer::new(Counting(Arc::default()), settings).unwrap();
        let error = explainer.explain(&image(1), &Request::default()).unwrap_err();
        assert!(error.is_layer() && error.to_string().contains(wrong), "{error}");
    }
}

#[test]
fn layers_are_named_before_anything_runs_where_shapes_need_a_forward() {
    let manifest = Manifest::read();
    let input = tensor(&manifest.aliases.input);
    let network = manifest.aliases.networks.iter().find(|n| n.name == "Dependent").unwrap();
    let file = network.files.iter().find(|file| NEED_A_FORWARD.contains(&file.as_str())).unwrap();
    let explain = |names: &[&str]| {
        let settings = Settings { layers: named(names), ..Settings::default() };
        let mut explainer = Explainer::new(model(file), settings).unwrap();
        explainer.explain(&input.narrow(0, 0, 1), &Request::default())
    };
    for name in network.maps.keys() {
        explain(&[name]).unwrap();
    }
    let error = explain(&["nothing"]).unwrap_err();
    assert!(error.is_layer() && error.to_string().contains("none of this name"), "{error}");
}

#[test]
fn maps_of_grad_cam_plus_plus_that_hang_on_rounding_are_warned_of() {
    let (mut silent, mut warned, mut off) = (0, 0, 0);
    for network in Manifest::read().networks {
        let options = Options::default().backend(Backend::GRAD_CAM_PLUS_PLUS);
        let options = options.target(target(&network)).layers(LayerChoice::Full);
        let mut injected = inject(model(&network.scripted), options).unwrap();
        let _output = injected.forward(&tensor(&network.input)).unwrap();
        let warnings = injected.warnings().iter().filter(|w| w.code == "UNSTABLE_WEIGHTS");
        let layers: BTreeSet<_> = warnings.map(|warning| warning.layer.clone()).collect();
        for (layer, &error) in &network.plus_plus_errors {
            let is_warned = layers.contains(layer);
            if error <= 1e-4 {
                assert!(!is_warned, "{} {layer}: single precision is off by {error}", network.name);
                silent += 1;
            } else if error > 1e-2 {
                off += 1;
                warned += usize::from(is_warned);
            }
        }
    }
    // The others are off because their gradients are, not their weights.
    assert!(silent > 200 && off > 10 && warned > 3, "{silent} silent, {warned} of {off} warned of");
}

#[test]
fn a_late_layer_of_a_v_net_with_negative_activations_is_warned_of() {
    let network = Manifest::read().unstable;
    for (layer, error) in &network.layers {
        assert!(*error > 1e-2, "{layer}: {error}");
        let run = |backend: Backend| {
            let options = Options::default().backend(backend).target(Target::Class(1));
            let mut injected =
                inject(model(&network.file), options.layers(named(&[layer]))).unwrap();
            let _output = injected.forward(&tensor(&network.input)).unwrap();
            injected.warnings().iter().map(|w| w.code.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(run(Backend::GRAD_CAM_PLUS_PLUS), ["UNSTABLE_WEIGHTS"], "{layer}");
        assert!(run(Backend::GRAD_CAM).is_empty(), "{layer}");
    }
    assert!(!network.layers.is_empty());
}
