//! Against plain autograd in eager Python, whose guided activations have their backward written out
//! (`tests/networks/guided.py`), on its networks in double.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::Guide;
use crate::error::{Error, Result};
use crate::torch::{Device, Model, Network, Tape, backward_error, in_libtorch, load};

/// Both are computed in double; the files hold f32. Of the largest value of a gradient.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Manifest {
    guided: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    label: serde_json::Value,
    input: String,
    /// The network traced and scripted, and its out-of-place twins.
    files: Vec<String>,
    plain: Expected,
    relu: Expected,
    all: Expected,
}

#[derive(Deserialize)]
struct Expected {
    gradient: String,
    count: usize,
}

impl Case {
    fn input(&self) -> Tensor {
        read(&self.input)
    }

    fn score(&self, tape: &Tape, output: &Tensor) -> Tensor {
        let logits = tape.noted_logits().unwrap_or_else(|| output.shallow_clone());
        match self.label.as_i64() {
            Some(class) => logits.select(1, class).sum(Kind::Double),
            None => logits.max_dim(1, false).0.sum(Kind::Double),
        }
    }
}

fn networks() -> PathBuf {
    let folder = std::env::var_os("MEDCAM_NETWORKS");
    folder.expect("MEDCAM_NETWORKS is not set: run `python3 scripts/setup.py test` first").into()
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(networks().join("manifest.json")).unwrap();
    serde_json::from_str::<Manifest>(&text).unwrap().guided
}

fn read(file: &str) -> Tensor {
    Tensor::read_npy(networks().join(file)).unwrap().to_kind(Kind::Double)
}

fn model(file: &str) -> Model {
    load(networks().join(file), Device::Cpu).unwrap()
}

/// One forward from an input that requires grad.
fn run(model: &Model, input: &Tensor, tape: &mut Tape) -> (Tensor, Tensor) {
    let input = input.detach().copy().set_requires_grad(true);
    let output = tch::with_grad(|| model.forward_tapped(&input.copy(), tape)).unwrap();
    (input, output)
}

fn gradient(score: &Tensor, of: &Tensor) -> Tensor {
    Tensor::run_backward(&[score], &[of], true, false).remove(0)
}

/// The largest difference, of the largest expected value.
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let largest = expected.abs().max().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / largest
}

/// Bit for bit.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.kind() == b.kind() && a.equal(b)
}

#[test]
fn gradients_are_those_of_plain_autograd_guided_by_hand() {
    let cases = cases();
    assert!(cases.len() >= 18);
    for case in &cases {
        for file in &case.files {
            let (model, input) = (model(file), case.input());
            let plain = model.forward(&input.copy()).unwrap();
            for (guide, expected) in [(Guide::Relu, &case.relu), (Guide::All, &case.all)] {
                let mut tape = Tape::new().unwrap();
                tape.guide(guide);
                let (leaf, output) = run(&model, &input, &mut tape);
                assert!(same(&output.detach(), &plain), "{file} {guide}");
                assert!(same(&leaf.detach(), &input), "{file} {guide}: the input was written to");
                assert_eq!(tape.guided_activations(), expected.count, "{file} {guide}");

                // One forward serves both, in any order.
                let score = case.score(&tape, &output);
                let own = gradient(&score, &leaf);
                tape.set_guided(true);
                let guided = gradient(&score, &leaf);
                tape.set_guided(false);
                assert!(same(&own, &gradient(&score, &leaf)), "{file} {guide}");
                for (found, expected) in [(own, &case.plain), (guided, expected)] {
                    let error = error(&found, &read(&expected.gradient));
                    assert!(error <= TOLERANCE, "{file} {guide} {}: {error}", expected.gradient);
                }
            }
        }
    }
}

#[test]
fn single_precision_runs_bit_for_bit_too() {
    for case in cases() {
        for file in case.files.iter().map(|file| file.replace(".double", "")) {
            let (model, input) = (model(&file), case.input().to_kind(Kind::Float));
            let plain = model.forward(&input.copy()).unwrap();
            for guide in [Guide::Relu, Guide::All] {
                let mut tape = Tape::new().unwrap();
                tape.guide(guide);
                let (_, output) = run(&model, &input, &mut tape);
                assert!(same(&output.detach(), &plain), "{file} {guide}");
            }
        }
    }
}

#[test]
fn guiding_is_seen_in_every_gradient_that_has_an_activation_to_guide() {
    for case in cases() {
        for expected in [&case.relu, &case.all] {
            let error = error(&read(&expected.gradient), &read(&case.plain.gradient));
            assert_eq!(error > 100.0 * TOLERANCE, expected.count > 0, "{}: {error}", case.name);
        }
    }
}

#[test]
fn a_layer_has_its_true_gradient_from_the_forward_that_is_guided() {
    let manifest = cases();
    let case = manifest.iter().find(|case| case.name == "resnet18").unwrap();
    for file in &case.files {
        let (model, input) = (model(file), case.input());
        // An activation and a layer that an in-place sum writes over.
        for layer in ["layer2.0.relu", "layer3.0.bn2"] {
            let at_layer = |guide: Option<Guide>| {
                let mut tape = Tape::new().unwrap();
                tape.want(layer, Some(1)).unwrap();
                guide.into_iter().for_each(|guide| tape.guide(guide));
                let (leaf, output) = run(&model, &input, &mut tape);
                let score = case.score(&tape, &output);
                tape.set_guided(true);
                let guided = guide.map(|_| gradient(&score, &leaf));
                tape.set_guided(false);
                let mut at_layer = None;
                let take = |_, activation: &Tensor, gradient: &Tensor| {
                    at_layer = Some((gradient.detach(), activation.detach()));
                };
                tape.backward(&score, Some(&leaf), false, take).unwrap();
                let (gradient, activation) = at_layer.unwrap();
                (gradient, activation, guided)
            };
            let (own, own_activation, _) = at_layer(None);
            let (found, activation, guided) = at_layer(Some(Guide::Relu));
            assert!(same(&activation, &own_activation), "{file} {layer}");
            assert!(error(&found, &own) <= 1e-12, "{file} {layer}");
            assert!(error(&guided.unwrap(), &read(&case.relu.gradient)) <= TOLERANCE);
        }
    }
}

#[test]
fn the_facts_name_what_all_would_guide() {
    let facts = |name: &str| {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let facts = model(&case.files[0]).facts().activations;
        facts.into_iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>()
    };
    assert_eq!(facts("softmax2d"), ["3 leaky_relu"]);
    // A hardtanh that does not cut off at 0 is none.
    assert_eq!(
        facts("relus"),
        ["2 clamp", "1 clamp_min", "2 hardtanh", "1 relu", "1 relu6", "1 threshold"]
    );
}

#[test]
fn a_relu_in_rust_by_hand() {
    for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16] {
        let x = Tensor::from_slice(&[1.0, 1.0, -1.0, 0.0, 2.0, f64::NAN]).to_kind(kind);
        let x = x.set_requires_grad(true);
        let weights = Tensor::from_slice(&[0.5, -0.5, 0.5, 0.5, f64::NAN, 2.0]).to_kind(kind);
        let mut tape = Tape::new().unwrap();
        tape.guide(Guide::Relu);
        let y = tape.relu(&x).unwrap();
        assert_eq!(tape.guided_activations(), 1);
        let score = (&y * weights).sum(kind);
        let values = |tensor: Tensor| Vec::<f64>::try_from(tensor.to_kind(Kind::Double)).unwrap();
        let own = values(gradient(&score, &x));
        assert_eq!(own[..4], [0.5, -0.5, 0.0, 0.0]);
        tape.set_guided(true);
        let guided = values(gradient(&score, &x));
        assert_eq!(guided[..4], [0.5, 0.0, 0.0, 0.0]);
        // NaN is not hidden.
        assert!(guided[4].is_nan() && guided[5] == 2.0);
    }
}

#[test]
fn without_a_guide_or_without_autograd_nothing_is_guided() {
    let x = Tensor::from_slice(&[1.0, -1.0]).set_requires_grad(true);
    let mut tape = Tape::new().unwrap();
    assert!(tape.relu(&x).unwrap().requires_grad());
    tape.guide(Guide::Relu);
    let _y = tch::no_grad(|| tape.relu(&x)).unwrap();
    let _y = tape.relu(&x.detach()).unwrap();
    assert_eq!(tape.guided_activations(), 0);
}

/// The rule of the shim, in Rust.
fn rule(gradient: &Tensor, output: &Tensor) -> Result<Tensor> {
    in_libtorch("rule", || gradient.f_clamp_min(0)?.f_masked_fill(&output.f_le(0)?, 0))
}

#[test]
fn a_rule_of_the_callers_gives_the_same_bits() {
    let calls = Arc::new(AtomicUsize::new(0));
    let mut networks = 0;
    for case in cases() {
        for file in &case.files {
            let (model, input) = (model(file), case.input());
            for guide in [Guide::Relu, Guide::All] {
                let guided = |by_rule: bool| {
                    let mut tape = Tape::new().unwrap();
                    tape.guide(guide);
                    if by_rule {
                        let calls = Arc::clone(&calls);
                        tape.guide_relus_by(move |gradient, output| {
                            calls.fetch_add(1, Ordering::Relaxed);
                            rule(gradient, output)
                        })
                        .unwrap();
                    }
                    let (leaf, output) = run(&model, &input, &mut tape);
                    tape.set_guided(true);
                    gradient(&case.score(&tape, &output), &leaf)
                };
                let before = calls.load(Ordering::Relaxed);
                assert!(same(&guided(true), &guided(false)), "{file} {guide}");
                networks += usize::from(calls.load(Ordering::Relaxed) > before);
            }
        }
    }
    assert!(networks > 10, "the rule was called for {networks} networks");
    assert_eq!(Arc::strong_count(&calls), 1, "a rule was not dropped");
}

#[test]
fn a_rule_that_fails_or_panics_is_an_error_of_backward() {
    let message = |rule: fn(&Tensor, &Tensor) -> Result<Tensor>| {
        let x = Tensor::from_slice(&[1.0, -1.0]).set_requires_grad(true);
        let mut tape = Tape::new().unwrap();
        tape.guide(Guide::Relu);
        tape.guide_relus_by(rule).unwrap();
        let y = tape.relu(&x).unwrap().sum(Kind::Double);
        // The true gradient does not call it.
        assert_eq!(gradient(&y, &x).double_value(&[0]), 1.0);
        tape.set_guided(true);
        let error = Tensor::f_run_backward(&[&y], &[&x], true, false).unwrap_err();
        backward_error(&error.to_string()).to_string()
    };
    let failed = message(|_, _| Err(Error::model("no memory")));
    assert!(failed.ends_with("guided activation: no memory"), "{failed}");
    let panicked = message(|_, _| panic!("a fault"));
    assert!(panicked.ends_with("guided activation: the rule panicked"), "{panicked}");
    let misshapen = message(|gradient, _| Ok(gradient.sum(Kind::Double)));
    assert!(misshapen.contains("the gradient is Double [2], and what passes"), "{misshapen}");
}
