//! Models that return several tensors, in any container: each output can be explained, and its maps
//! are plain autograd's (`tests/networks/several.py`).
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{Several, array, difference, model, tensor};
use medcam::{Injected, LayerChoice, Model, Network, Options, Output, Target, inject, to_array};

const HEADS: [&str; 3] = ["main", "coarse", "image"];

/// As in `tests/parity.rs`.
const TOLERANCE: f32 = 1e-5;

fn choose(file: &str, output: &str) -> Model {
    model(file).with_output(&output.parse().unwrap()).unwrap()
}

fn maps(model: Model, layers: LayerChoice) -> Injected<Model> {
    inject(model, Options::default().target(Target::Class(1)).layers(layers)).unwrap()
}

fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> LayerChoice {
    LayerChoice::Names(names.into_iter().cloned().collect())
}

/// Runs a test for each file and output, with the output's name, its head, and whether the graph
/// shows which value it is.
fn for_each(run: impl Fn(&Several, &str, &str, &str, bool)) {
    let several = Several::read();
    assert!(several.models.len() >= 10);
    for model in &several.models {
        for (head, name) in HEADS.iter().zip(&model.names) {
            run(&several, &model.file, name, head, model.in_graph);
        }
    }
}

#[test]
fn the_output_is_the_chosen_one_bit_for_bit() {
    for_each(|several, file, name, head, _| {
        let input = tensor(&several.input);
        let bits = |output| to_array(&output).unwrap().mapv(f32::to_bits);
        let own = choose(file, name).forward(&input).unwrap();
        let expected = array(&several.heads[&format!("{head}.output")].output);
        let off = difference(&to_array(&own).unwrap(), &expected);
        assert!(off <= 1e-5, "{file} {name}: {off}");
        let stem = names([&"stem".to_owned()]);
        let tapped = maps(choose(file, name), stem).forward(&input).unwrap();
        assert_eq!(bits(own), bits(tapped), "{file} {name}");
    });
}

#[test]
fn the_map_of_each_output_is_autograds() {
    for_each(|several, file, name, head, in_graph| {
        // If only a run shows which tensor the output is, the score is taken from that tensor.
        let score = if in_graph { "logits" } else { "output" };
        let expected = &several.heads[&format!("{head}.{score}")].maps;
        let mut injected = maps(choose(file, name), names(expected.keys()));
        let _output = injected.forward(&tensor(&several.input)).unwrap();
        for map in injected.attention_maps() {
            let off = difference(&map.to_array().unwrap(), &array(&expected[map.layer()]));
            assert!(off <= TOLERANCE, "{file} {name} {}: {off}", map.layer());
        }
        let softmax = injected.network().facts().final_activation;
        let expected = (in_graph && head == "main").then_some("softmax");
        assert_eq!(softmax.as_deref(), expected, "{file} {name}");
    });
}

#[test]
fn the_first_tensor_is_the_default() {
    let several = Several::read();
    for of in &several.models {
        let input = tensor(&several.input);
        let first = model(&of.file).forward(&input).unwrap();
        let named = choose(&of.file, &of.names[0]).forward(&input).unwrap();
        assert_eq!(first, named, "{}", of.file);
        let again = model(&of.file).with_output(&Output::First).unwrap();
        assert_eq!(first, again.forward(&input).unwrap(), "{}", of.file);
    }
}

#[test]
fn layers_are_judged_by_the_chosen_output() {
    let several = Several::read();
    let input = tensor(&several.input);
    // By head: layers that can carry a map, those of them that redraw the output, and the choice of
    // auto.
    let expected = BTreeMap::from([
        ("main", (vec!["deep", "main", "stem", "up"], vec!["main"], "up")),
        ("coarse", (vec!["coarse", "deep", "stem"], vec!["coarse", "deep"], "stem")),
        ("image", (vec!["deep", "stem"], vec![], "deep")),
    ]);
    for of in several.models.iter().filter(|of| of.in_graph) {
        for (head, name) in HEADS.iter().zip(&of.names) {
            let mut injected = maps(choose(&of.file, name), LayerChoice::Auto);
            let layers = injected.layers(&input).unwrap();
            let that = |wanted: &dyn Fn(&medcam::Layer) -> bool| {
                let mut names: Vec<_> =
                    layers.iter().filter(|l| wanted(l)).map(|l| l.name.clone()).collect();
                names.sort();
                names
            };
            let (run, redraw, auto) = &expected[head];
            assert_eq!(that(&|layer| layer.can_carry_map), *run, "{} {name}", of.file);
            let redraws = that(&|layer| layer.can_carry_map && layer.redraws_output);
            assert_eq!(redraws, *redraw, "{} {name}", of.file);
            // The heads of the other outputs do not run.
            let heads: Vec<_> = HEADS.iter().filter(|head| layers.get(head).is_some()).collect();
            assert_eq!(heads, [head], "{} {name}", of.file);
            assert_eq!(layers.auto().unwrap().name, *auto, "{} {name}", of.file);
        }
        let other = names([&"coarse".to_owned()]);
        let error = maps(choose(&of.file, &of.names[0]), other).forward(&input).unwrap_err();
        assert!(error.is_layer(), "{error}");
        assert!(error.to_string().contains("only another output of the model does"), "{error}");
    }
}

#[test]
fn an_output_that_is_not_there_is_refused_with_a_list_of_those_that_are() {
    let several = Several::read();
    let input = tensor(&several.input);
    for (file, wish, words) in [
        (
            "several.TupleOf.traced.pt",
            "3",
            "as output 3; what it returns is 0 [2, 3, 25, 31], 1 [2,",
        ),
        ("several.TupleOf.scripted.pt", "out", "as output 'out'; what it returns is 0 [2, 3, 25"),
        (
            "several.DictOf.scripted.pt",
            "main",
            "0 'out' [2, 3, 25, 31], 1 'aux' [2, 3, 13, 16], 2 'im",
        ),
        (
            "several.NamedOf.scripted.pt",
            "main",
            "0 'out' [2, 3, 25, 31], 1 'aux' [2, 3, 13, 16], 2 'im",
        ),
        (
            "several.Nested.scripted.pt",
            "0",
            "0 (no tensor: None), 1 '1.0.0' [2, 3, 25, 31], 2 '1.1.0'",
        ),
        ("several.Loop.scripted.pt", "9", "0 [2, 3, 25, 31], 1 [2, 3, 13, 16], 2 [2, 4]"),
        ("plain2d.traced.pt", "1", "as output 1; what it returns is 0 ["),
    ] {
        let wrong = choose(file, wish);
        let input =
            if file.starts_with("plain") { tensor("plain2d.input.npy") } else { input.copy() };
        let own = wrong.forward(&input).unwrap_err();
        let tapped = maps(wrong, LayerChoice::Auto).forward(&input).unwrap_err();
        for error in [own, tapped] {
            assert!(error.is_model(), "{error}");
            // Layers are found with one sample.
            let text = error.to_string().replace("[1,", "[2,");
            assert!(text.contains("forward returns no tensor") && text.contains(words), "{text}");
            assert!(text.contains("--explain-output") && text.len() < 400, "{text}");
        }
    }
}
