//! Each row of the shim's table of operators, in networks of one step (`tests/networks/operators.py`): what the
//! analyses of a graph say is what PyTorch showed when it ran the step.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::path::PathBuf;

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::guide::is_like_relu;
use super::{Device, Facts, Guide, Model, Network, Tape, ffi, load};

#[derive(Deserialize)]
struct Case {
    row: String,
    /// By what is around the step.
    files: BTreeMap<String, String>,
    /// The shape of the input.
    input: Vec<i64>,
    seen: Seen,
    /// What is seen, but need not be told.
    untold: BTreeSet<String>,
    /// What is told, though it is not quite so.
    told: BTreeSet<String>,
    activation: bool,
    product: bool,
    ends: bool,
    regrids: bool,
}

/// What PyTorch showed.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
struct Seen {
    /// Whether the output has as many axes as the input, and the same.
    kept_rank: bool,
    kept_axes: bool,
    /// Whether the output is the input, or has its elements in their order.
    passes: bool,
    same_elements: bool,
    /// Whether it is random or depends on what else is in the batch.
    as_in_training: bool,
    /// Whether a gradient reaches the input.
    reaches: bool,
    /// Whether a voxel of the output depends on the same voxel of the input alone, whatever else goes in; and
    /// whether each channel of the output is the same linear function of that channel of the input.
    redraws: bool,
    moves_alike: bool,
    /// Whether an instance norm behind it makes the mean gradients in front of it zero.
    #[serde(default)]
    cancels: bool,
    /// Whether it is 0 where its input is not positive, and its input where that is small.
    like_relu: bool,
}

fn folder() -> PathBuf {
    let folder = std::env::var_os("MEDCAM_OPERATORS");
    folder.expect("MEDCAM_OPERATORS is not set: run `python3 scripts/setup.py test` first").into()
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn rows() -> Vec<String> {
    // SAFETY: indices are below the count, and names are static.
    unsafe {
        let name =
            |index| CStr::from_ptr(ffi::mc_operator_name(index)).to_str().unwrap().to_owned();
        (0..ffi::mc_operator_count()).map(name).collect()
    }
}

impl Case {
    fn model(&self, around: &str) -> Option<Model> {
        Some(load(folder().join(self.files.get(around)?), Device::Cpu).unwrap())
    }

    fn facts(&self, around: &str) -> Option<Facts> {
        Some(self.model(around)?.facts())
    }

    fn input(&self) -> Tensor {
        tch::manual_seed(3);
        Tensor::randn(&self.input[..], (Kind::Double, tch::Device::Cpu))
    }

    /// What is told but was not seen, or was seen but is not told.
    fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut expect = |what: &str, told: bool, seen: bool| {
            let excused = if seen { &self.untold } else { &self.told };
            if told != seen && !excused.contains(what) {
                differences.push(format!("{what}: told {told}, seen {seen}"));
            }
        };
        let Self { row, seen, .. } = self;
        let first = "first".to_owned();

        let model = self.model("redrawn").unwrap();
        let facts = model.facts();
        let redraws = seen.redraws || seen.moves_alike;
        expect("redraws", facts.redrawing.contains(&first), redraws);
        expect("reaches", !facts.unreached.contains(&first), seen.reaches);
        expect("product", facts.products.contains("step"), self.product);
        expect("training", !facts.training_steps.is_empty(), seen.as_in_training);
        expect("image on axis 1", !facts.channels_last.contains(&first), true);
        let activation = self.activation || seen.like_relu;
        expect("activation", facts.activations.contains_key(row), activation);
        expect("activations", facts.activations.values().sum::<usize>() == 1, activation);
        if seen.like_relu {
            expect("like ReLU", is_like_relu(row), true);
        }

        expect(
            "regrids",
            facts.regridding.contains("step"),
            self.regrids || row.contains("upsample") || row == "__interpolate",
        );
        expect("shapes", shapes_are_those_of_a_forward(&model, &self.input()), true);

        if !seen.as_in_training {
            let run = Run::of(&model, &self.input());
            expect("the output", run.is_output_the_models, true);
            expect("a gradient", run.has_gradient, seen.reaches);
            expect("guided as ReLU", run.guided[0] == 1, seen.like_relu);
            expect("guided", run.guided[1] == 1, activation);
        }

        if let Some(facts) = self.facts("normed") {
            expect("cancels", facts.cancelling.contains(&first), seen.cancels);
        }
        if let Some(facts) = self.facts("last") {
            expect("last", facts.channels_last.contains(&first), seen.kept_axes);
        }
        let facts = self.facts("front").unwrap();
        expect("passes", facts.input_channels == Some(4), seen.passes || row.contains("conv"));
        let rank = facts.input_rank;
        expect("rank", rank == Some(self.input.len()), rank.is_some() || seen.kept_rank);
        let ended = self.facts("ended").unwrap().final_activation;
        let expected = match (self.ends, seen.same_elements) {
            (true, _) => Some(row.trim_start_matches('_')),
            (false, true) => Some("softmax"),
            (false, false) => None,
        };
        expect("final activation", ended.is_some(), expected.is_some());
        if let (Some(ended), Some(expected)) = (ended, expected) {
            expect("its name", ended == expected, true);
        }
        let ending = self.facts("ending").unwrap().final_activation;
        expect("ends", ending.is_some(), self.ends);
        differences
    }
}

/// Whether shapes are found without values, and are those of a forward.
fn shapes_are_those_of_a_forward(model: &Model, input: &Tensor) -> bool {
    let mut unrun = Tape::new().unwrap();
    let Some(shape) = model.forward_shapes(input, &mut unrun) else { return false };
    let mut run = Tape::new().unwrap();
    let output = tch::no_grad(|| model.forward_tapped(&input.copy(), &mut run)).unwrap();
    let form = |tensor: &Tensor| (tensor.size(), tensor.kind());
    unrun.seen() == run.seen() && form(&shape) == form(&output)
}

/// What a forward and a backward through a network of one step show.
struct Run {
    is_output_the_models: bool,
    has_gradient: bool,
    /// How many activations each guide guides.
    guided: [usize; 2],
}

impl Run {
    fn of(model: &Model, input: &Tensor) -> Self {
        // What runs is the graph of the file; `forward` would refuse an input of one axis.
        let own = (input.dim() > 3).then(|| model.forward(&input.copy()).unwrap());
        let mut tape = Tape::new().unwrap();
        tape.want("first", Some(1)).unwrap();
        let output = tch::no_grad(|| model.forward_tapped(&input.copy(), &mut tape)).unwrap();
        let mut has_gradient = false;
        if output.requires_grad() {
            let score = tch::with_grad(|| output.sum(Kind::Double));
            let take = |_, _: &Tensor, gradient: &Tensor| {
                has_gradient = gradient.count_nonzero(None).int64_value(&[]) > 0;
            };
            tape.backward(&score, None, false, take).unwrap();
        }
        let guided = [Guide::Relu, Guide::All].map(|guide| {
            let mut tape = Tape::new().unwrap();
            tape.guide(guide);
            let leaf = input.copy().set_requires_grad(true);
            let _y = tch::with_grad(|| model.forward_tapped(&leaf.copy(), &mut tape)).unwrap();
            tape.guided_activations()
        });
        let is_output_the_models = own.is_none_or(|own| own.equal(&output));
        Self { is_output_the_models, has_gradient, guided }
    }
}

#[test]
fn each_row_has_a_case_and_none_twice() {
    let rows = rows();
    let unique: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(unique.len(), rows.len(), "a row is there twice");
    let cases: BTreeSet<_> = cases().into_iter().map(|case| case.row).collect();
    let without: Vec<_> = unique.symmetric_difference(&cases).collect();
    assert!(without.is_empty(), "rows without a case, or cases without a row: {without:?}");
}

#[test]
fn the_analyses_tell_what_is_seen_when_it_runs() {
    let mut differences = Vec::new();
    for case in cases() {
        let files = case.files["redrawn"].clone();
        differences
            .extend(case.differences().iter().map(|what| format!("{files} {}: {what}", case.row)));
    }
    assert!(differences.is_empty(), "{}:\n{}", differences.len(), differences.join("\n"));
}
