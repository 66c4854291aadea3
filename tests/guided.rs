//! Guided backpropagation through the public interface, against plain PyTorch autograd with
//! explicit backward functions for guided activations (`tests/networks/guided.py`).
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

mod common;

use common::{Guided, Manifest, array, difference, model};
use medcam::tch::nn::{self, Module};
use medcam::tch::{self, Kind, Tensor};
use medcam::{
    Backend, Device, Guide, Injected, Model, Network, Options, Result, Tape, Target, inject,
    to_array, to_tensor,
};
use ndarray::{ArrayD, Axis};

/// Maps are in [0, 1]. Both sides compute in double and store in single precision.
const TOLERANCE: f32 = 1e-5;

fn options(case: &Guided, guide: Guide) -> Options {
    let target = match case.label.as_u64() {
        Some(class) => Target::Class(usize::try_from(class).unwrap()),
        None => Target::Best,
    };
    Options::default().backend(Backend::GUIDED_BACKPROPAGATION).guide(guide).target(target)
}

fn injected(case: &Guided, file: &str, guide: Guide) -> Injected<Model> {
    inject(model(file), options(case, guide)).unwrap()
}

fn input(case: &Guided) -> Tensor {
    to_tensor(&array(&case.input), Device::Cpu, Kind::Double).unwrap()
}

/// The map of a gradient at the input: its mean over channels, each sample normalised.
fn finished(gradient: &ArrayD<f32>) -> ArrayD<f32> {
    let mut map = gradient.mapv(f64::from).mean_axis(Axis(1)).unwrap();
    for mut sample in map.outer_iter_mut() {
        let low = sample.fold(f64::INFINITY, |low, &value| low.min(value));
        let high = sample.fold(f64::NEG_INFINITY, |high, &value| high.max(value));
        sample.mapv_inplace(|value| (value - low) / (high - low));
    }
    map.mapv(|value| value as f32).insert_axis(Axis(1))
}

#[test]
fn maps_are_autograds_in_place_or_not_as_module_or_function() {
    let (mut made, mut refused) = (0, 0);
    for case in Manifest::read().guided {
        for file in &case.files {
            for (guide, expected) in [(Guide::Relu, &case.relu), (Guide::All, &case.all)] {
                let mut injected = injected(&case, file, guide);
                let result = injected.forward(&input(&case));
                if expected.count == 0 {
                    let error = result.unwrap_err();
                    assert!(error.is_model(), "{file}");
                    let message = error.to_string();
                    assert!(message.contains("nothing in the network was guided"), "{message}");
                    refused += 1;
                    continue;
                }
                let own = model(file).forward(&input(&case)).unwrap();
                assert_eq!(result.unwrap(), own, "{file}");
                let map = injected.attention_maps()[0].to_array().unwrap();
                let difference = difference(&map, &finished(&array(&expected.gradient)));
                assert!(difference <= TOLERANCE, "{file} {guide}: {difference}");
                made += 1;
            }
        }
    }
    assert!(made >= 80 && refused >= 20, "{made} {refused}");
}

#[test]
fn a_batch_gives_what_its_samples_give() {
    for case in Manifest::read().guided {
        let mut injected = injected(&case, &case.files[0], Guide::All);
        let batch = input(&case);
        let _output = injected.forward(&batch).unwrap();
        let together = injected.attention_maps()[0].to_array().unwrap();
        for sample in 0..batch.size()[0] {
            let _output = injected.forward(&batch.narrow(0, sample, 1)).unwrap();
            let index = usize::try_from(sample).unwrap();
            let part = together.slice_axis(Axis(0), (index..=index).into()).to_owned();
            let difference = difference(&part, &injected.attention_maps()[0].to_array().unwrap());
            assert!(difference <= TOLERANCE, "{} {sample}: {difference}", case.name);
        }
    }
}

/// A network written in Rust. Its second activation does not go through the tape, so it is not
/// guided.
struct Net {
    first: nn::Conv2D,
    second: nn::Conv2D,
    head: nn::Linear,
}

impl Net {
    fn new(store: &nn::VarStore) -> Self {
        let config = nn::ConvConfig { padding: 1, ..Default::default() };
        Self {
            first: nn::conv2d(&store.root() / "first", 2, 6, 3, config),
            second: nn::conv2d(&store.root() / "second", 6, 6, 3, config),
            head: nn::linear(&store.root() / "head", 6, 2, Default::default()),
        }
    }
}

impl Network for Net {
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let x = tape.relu(&self.first.forward(input))?;
        let x = tape.tap("second", &self.second.forward(&x).relu())?;
        Ok(self.head.forward(&x.mean_dim([2_i64, 3].as_slice(), false, None)))
    }
}

#[test]
fn a_network_in_rust_by_hand() {
    let store = nn::VarStore::new(tch::Device::Cpu);
    let net = Net::new(&store);
    let input = Tensor::rand([1, 2, 9, 8], (Kind::Float, tch::Device::Cpu)) - 0.5;

    // By hand: backward to the first activation, the guided gate, and backward through the first
    // convolution.
    let leaf = input.detach().copy().set_requires_grad(true);
    let before = net.first.forward(&leaf);
    let after = before.relu().detach().set_requires_grad(true);
    let features = net.second.forward(&after).relu();
    let score = net.head.forward(&features.mean_dim([2_i64, 3].as_slice(), false, None));
    let score = score.select(1, 1).sum(Kind::Float);
    let gradient = Tensor::run_backward(&[score], &[&after], false, false).remove(0);
    let gate = gradient.gt(0.0).logical_and(&before.gt(0.0));
    let guided = (before * (gradient * gate)).sum(Kind::Float);
    let gradient = Tensor::run_backward(&[guided], &[&leaf], false, false).remove(0);

    let options = Options::default().target(Target::Class(1));
    let mut net = inject(net, options.backend(Backend::GUIDED_BACKPROPAGATION)).unwrap();
    let _output = net.forward(&input).unwrap();
    let map = net.attention_maps()[0].to_array().unwrap();
    let difference = difference(&map, &finished(&to_array(&gradient).unwrap()));
    assert!(difference <= TOLERANCE, "{difference}");
}
