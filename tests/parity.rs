//! Maps and outputs against plain PyTorch autograd: the networks, their weights, inputs and
//! expected maps come from `tests/networks/make_networks.py`, which does not use medcam.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::collections::BTreeSet;

use common::{Case, Manifest, array, difference, model, tensor};
use medcam::ops::{View, channel_weights};
use medcam::tch::Kind;
use medcam::{
    Attention, Backend, Evidence, Injected, LayerChoice, LayerMaps, Layout, Model, Needs, Options,
    Result, ScoreAt, Shape, Target, inject, to_array,
};

/// Tolerance in units of the maps' range, [0, 1]. We compute in single precision; the expected maps
/// are in double.
const TOLERANCE: f32 = 1e-5;

/// Where channel weights nearly cancel (gradients in front of a norm), plain autograd in single
/// precision misses the map in double by about `TOLERANCE` itself. When all layers are compared, we
/// may miss it by this multiple of autograd's error. The network in double, through the same code,
/// must still be within `TOLERANCE`.
const OF_SINGLE_PRECISION: f32 = 5.0;

fn target(case: &Case) -> Target {
    match case.network.label.as_u64() {
        Some(class) => Target::Class(usize::try_from(class).unwrap()),
        None => Target::Best,
    }
}

fn injected(case: &Case, file: &str, choice: LayerChoice) -> Injected<Model> {
    inject(model(file), Options::default().target(target(case)).layers(choice)).unwrap()
}

fn names(names: &[&String]) -> LayerChoice {
    LayerChoice::Names(names.iter().map(|name| (*name).clone()).collect())
}

/// Compares each map of the batch with the expected one. Returns the number of maps within
/// `TOLERANCE`, and of those beyond.
fn check(case: &Case, choice: LayerChoice, expected: &[&String]) -> (usize, usize) {
    let what = format!("{} {} {choice:?}", case.network.name, case.kind);
    let mut injected = injected(case, case.file, choice);
    let _output = injected.forward(&tensor(&case.network.input)).unwrap();
    let maps = injected.attention_maps();
    let got: BTreeSet<_> = maps.iter().map(|map| map.layer().to_owned()).collect();
    assert_eq!(got, expected.iter().map(|name| (*name).clone()).collect(), "{what}");
    let (mut within, mut beyond) = (0, 0);
    for map in maps.iter().filter(|map| !case.layers.unstable.iter().any(|l| l == map.layer())) {
        let difference =
            difference(&map.to_array().unwrap(), &array(&case.layers.maps[map.layer()]));
        let bound = case.layers.single_precision_errors[map.layer()] * OF_SINGLE_PRECISION;
        assert!(difference <= TOLERANCE.max(bound), "{what} {}: off by {difference}", map.layer());
        if difference <= TOLERANCE {
            within += 1;
        } else {
            beyond += 1;
        }
    }
    (within, beyond)
}

fn for_each(run: impl Fn(&Case)) {
    let manifest = Manifest::read();
    assert!(manifest.networks.len() >= 8);
    manifest.cases().for_each(|case| run(&case));
}

#[test]
fn the_output_is_the_models_own_bit_for_bit() {
    for_each(|case| {
        let plain = model(case.file);
        let input = tensor(&case.network.input);
        let own = to_array(&plain.forward(&input).unwrap()).unwrap();
        let tapped =
            to_array(&injected(case, case.file, LayerChoice::Auto).forward(&input).unwrap())
                .unwrap();
        let bits = |array: &ndarray::ArrayD<f32>| array.mapv(f32::to_bits);
        assert_eq!(bits(&own), bits(&tapped), "{} {}", case.network.name, case.kind);
        // Python's output for the same file; another processor may round the last bits differently.
        let difference = difference(&tapped, &array(case.output));
        assert!(difference <= 1e-4, "{} {}: {difference}", case.network.name, case.kind);
    });
}

#[test]
fn auto_takes_the_right_layer_and_its_map_is_autograds() {
    for_each(|case| {
        assert_eq!(check(case, LayerChoice::Auto, &[&case.layers.auto]), (1, 0));
    });
}

#[test]
fn the_map_of_a_named_layer_is_autograds() {
    for_each(|case| {
        assert_eq!(check(case, names(&[&case.layers.named]), &[&case.layers.named]), (1, 0));
    });
}

#[test]
fn the_maps_of_a_list_are_autograds() {
    for_each(|case| {
        let list: Vec<_> = case.layers.list.iter().collect();
        assert_eq!(check(case, names(&list), &list), (list.len(), 0));
    });
}

#[test]
fn the_maps_of_all_layers_are_autograds() {
    let mut in_double = 0;
    for case in Manifest::read().cases() {
        let full: Vec<_> = case.layers.full.iter().collect();
        let (_, far) = check(&case, LayerChoice::Full, &full);
        let Some(double) = &case.layers.double else {
            assert_eq!(far, 0, "{}", case.network.name);
            continue;
        };
        let mut injected = injected(&case, double, LayerChoice::Full);
        let _output = injected.forward(&tensor(&case.network.input).to_kind(Kind::Double)).unwrap();
        for map in injected.attention_maps() {
            let Some(expected) = case.layers.maps.get(map.layer()) else { continue };
            let difference = difference(&map.to_array().unwrap(), &array(expected));
            assert!(difference <= TOLERANCE, "{double} {}: off by {difference}", map.layer());
        }
        in_double += 1;
    }
    assert!(in_double >= 4);
}

#[test]
fn each_run_of_a_shared_layer_can_be_picked() {
    let mut runs = 0;
    for case in Manifest::read().cases() {
        for name in case.layers.maps.keys().filter(|name| name.contains('#')) {
            check(&case, names(&[name]), &[name]);
            runs += 1;
        }
    }
    assert!(runs > 10, "{runs}");
}

#[test]
fn another_class_and_the_score_after_the_softmax_are_autograds() {
    let mut after = 0;
    for case in Manifest::read().cases().filter(|case| case.kind == "traced") {
        let input = tensor(&case.network.input);
        let run = |target, score, layer: &String| {
            let options = Options::default().target(target).score(score).layers(names(&[layer]));
            let mut injected = inject(model(case.file), options).unwrap();
            let _output = injected.forward(&input).unwrap();
            injected.attention_maps()[0].to_array().unwrap()
        };
        let other = &case.network.class_maps;
        let map = run(Target::Class(other.label), ScoreAt::Logits, &other.layer);
        let difference_of = difference(&map, &array(&other.map));
        assert!(difference_of <= TOLERANCE, "{}: {difference_of}", case.network.name);
        if let Some(other) = &case.network.output_score_map {
            let map = run(target(&case), ScoreAt::Output, &other.layer);
            let difference_of = difference(&map, &array(&other.map));
            assert!(difference_of <= TOLERANCE, "{}: {difference_of}", case.network.name);
            after += 1;
        }
    }
    assert!(after >= 2);
}

#[test]
fn a_batch_gives_what_its_samples_give() {
    for_each(|case| {
        let input = tensor(&case.network.input);
        let mut injected = injected(case, case.file, LayerChoice::Auto);
        let _output = injected.forward(&input).unwrap();
        let batch = injected.attention_maps()[0].to_array().unwrap();
        for sample in 0..3_usize {
            let single = input.narrow(0, i64::try_from(sample).unwrap(), 1);
            let _output = injected.forward(&single).unwrap();
            let single = injected.attention_maps()[0].to_array().unwrap();
            let of_batch = batch.slice_axis(ndarray::Axis(0), (sample..=sample).into()).to_owned();
            let difference = difference(&single, &of_batch);
            assert!(difference <= TOLERANCE, "{} {sample}: {difference}", case.network.name);
        }
    });
}

#[test]
fn in_place_and_out_of_place_twins_agree() {
    let mut twins = 0;
    for case in Manifest::read().cases() {
        let Some(twin) = case.twin else { continue };
        let input = tensor(&case.network.input);
        let maps = |file| {
            let mut injected = injected(&case, file, LayerChoice::Full);
            let _output = injected.forward(&input).unwrap();
            injected
                .attention_maps()
                .iter()
                .map(|map| (map.layer().to_owned(), map.to_array().unwrap()))
                .collect::<Vec<_>>()
        };
        for ((name, a), (twins_name, b)) in maps(case.file).iter().zip(&maps(twin)) {
            assert_eq!(name, twins_name);
            if case.layers.unstable.contains(name) {
                continue;
            }
            let difference = difference(a, b);
            assert!(difference <= TOLERANCE, "{} {name}: {difference}", case.network.name);
        }
        twins += 1;
    }
    assert!(twins >= 8, "{twins}");
}

/// A backend whose `weights_cancel` comes from the numbers alone, whatever the graph says.
#[derive(Debug)]
struct Numbers;

impl Attention for Numbers {
    fn name(&self) -> &'static str {
        "numbers"
    }
    fn title(&self) -> &'static str {
        "Numbers"
    }
    fn needs(&self) -> Needs {
        Needs { layer: true, guided: false }
    }
    fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps> {
        let gradient = to_array(evidence.gradient()?)?;
        let (shape, voxels) = (gradient.shape(), gradient.shape()[2..].iter().product());
        let shape = Shape::new(shape[0], shape[1], [1, 1, voxels])?;
        let view = View::new(gradient.as_slice().unwrap(), shape, Layout::Contiguous)?;
        let cancel = channel_weights::cancel(&view, &channel_weights(&view)?)?;
        let channels: &[i64] = &[1];
        let maps = evidence.finish(&evidence.activation()?.mean_dim(channels, true, None))?;
        Ok(maps.with_weights_cancel(cancel))
    }
}

#[test]
fn where_the_graph_says_that_weights_cancel_they_do() {
    static NUMBERS: Numbers = Numbers;
    let mut flagged = 0;
    for case in Manifest::read().cases() {
        let input = tensor(&case.network.input);
        let options = Options::default().target(target(&case)).layers(LayerChoice::Full);
        let options = options.backend(Backend::new(&NUMBERS));
        let mut injected = inject(model(case.file), options).unwrap();
        let _output = injected.forward(&input).unwrap();
        let noisy: BTreeSet<String> = injected
            .warnings()
            .iter()
            .filter(|warning| warning.code == "WEIGHTS_CANCEL")
            .map(|warning| warning.layer.clone())
            .collect();
        for layer in injected.layers(&input).unwrap().iter().filter(|layer| layer.can_carry_map) {
            let what = format!("{} {} {}", case.network.name, case.kind, layer.name);
            if layer.weights_cancel {
                assert!(
                    noisy.contains(&layer.name),
                    "{what}: flagged by the graph, not by the numbers"
                );
                assert!(!case.layers.maps.contains_key(&layer.name), "{what}: has a stable map");
                flagged += 1;
            } else if noisy.contains(&layer.name) {
                panic!("{what}: flagged by the numbers, not by the graph");
            }
        }
    }
    assert!(flagged >= 20, "{flagged}");
}
