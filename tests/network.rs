//! Networks written in Rust, targets, types and layouts, against autograd called by hand.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::difference;
use medcam::tch::nn::{self, Module};
use medcam::tch::{self, Kind, Tensor};
use medcam::{
    Device, LayerChoice, MapSize, Network, Options, Result, Tape, Target, inject, to_array,
};

/// A small 3D segmentation network; its second activation is in place.
struct Net {
    store: nn::VarStore,
    first: nn::Conv3D,
    second: nn::Conv3D,
    head: nn::Conv3D,
}

impl Net {
    fn new() -> Self {
        let store = nn::VarStore::new(tch::Device::Cpu);
        let config = nn::ConvConfig { padding: 1, ..Default::default() };
        let strided = nn::ConvConfig { padding: 1, stride: 2, ..Default::default() };
        let first = nn::conv3d(&store.root() / "first", 1, 6, 3, strided);
        let second = nn::conv3d(&store.root() / "second", 6, 5, 3, config);
        let head = nn::conv3d(&store.root() / "head", 5, 3, 3, config);
        // The parameters are computed, as tests that run in parallel share libtorch's seed.
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        for (index, (_, mut variable)) in variables.into_iter().enumerate() {
            let values = waves(&variable.size(), index as f64) * 0.3;
            tch::no_grad(|| variable.copy_(&values));
        }
        Self { store, first, second, head }
    }

    fn rest(&self, first: &Tensor, tape: Option<&mut Tape>) -> Result<Tensor> {
        let second = self.second.forward(first).relu_();
        let second = match tape {
            Some(tape) => tape.tap("second", &second)?,
            None => second,
        };
        let mut logits = self.head.forward(&second);
        let size = logits.size();
        let double: Vec<i64> = size[2..].iter().map(|extent| extent * 2).collect();
        logits = logits.upsample_trilinear3d(&double[..], false, None, None, None);
        Ok(logits)
    }
}

impl Network for Net {
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let first = tape.tap("first", &self.first.forward(input).leaky_relu_())?;
        self.rest(&first, Some(tape))
    }
}

/// Pseudo-random values in [-1, 1].
fn waves(shape: &[i64], phase: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let ramp = Tensor::arange(count, (Kind::Float, tch::Device::Cpu));
    ((ramp * 12.9898 + phase).sin() * 43.7).sin().reshape(shape)
}

fn input() -> Tensor {
    waves(&[2, 1, 12, 14, 10], 0.5) * 2.0
}

/// Grad-CAM of `first` from libtorch's autograd alone; `score` takes the logits.
fn by_hand(net: &Net, score: impl Fn(&Tensor) -> Tensor) -> ndarray::ArrayD<f32> {
    let activation =
        tch::no_grad(|| net.first.forward(&input()).leaky_relu()).detach().set_requires_grad(true);
    let logits = net.rest(&activation, None).unwrap();
    let gradient = Tensor::run_backward(&[score(&logits)], &[&activation], false, false).remove(0);
    let axes: &[i64] = &[2, 3, 4];
    let weights = gradient.mean_dim(axes, true, Kind::Float);
    let map = (weights * activation.detach()).sum_dim_intlist(1_i64, true, Kind::Float).relu();
    let map = map.upsample_trilinear3d([12_i64, 14, 10], false, None, None, None);
    let (low, high) = (map.amin(axes, true), map.amax(axes, true));
    to_array(&((&map - &low) / (high - &low))).unwrap()
}

fn map_of(options: Options) -> ndarray::ArrayD<f32> {
    let mut net =
        inject(Net::new(), options.layers(LayerChoice::Names(vec!["first".into()]))).unwrap();
    let output = net.forward(&input()).unwrap();
    assert!(!output.requires_grad());
    assert_eq!(
        output,
        tch::no_grad(|| net
            .network()
            .rest(&net.network().first.forward(&input()).leaky_relu(), None))
        .unwrap()
    );
    net.attention_maps()[0].to_array().unwrap()
}

fn same(options: Options, score: impl Fn(&Tensor) -> Tensor) {
    let difference = difference(&map_of(options), &by_hand(&Net::new(), score));
    assert!(difference <= 1e-5, "{difference}");
}

#[test]
fn classes() {
    same(Options::default().target(Target::Class(2)), |y| y.select(1, 2).sum(Kind::Float));
    same(Options::default().target(Target::Classes(vec![1, 2])), |y| {
        y.get(0).get(1).sum(Kind::Float) + y.get(1).get(2).sum(Kind::Float)
    });
}

#[test]
fn all_outputs() {
    same(Options::default().target(Target::All), |y| y.sum(Kind::Float));
}

#[test]
fn the_voxels_predicted_as_a_class() {
    same(Options::default().target(Target::Predicted(1)), |y| {
        (y.select(1, 1) * y.argmax(1, false).eq(1)).sum(Kind::Float)
    });
}

#[test]
fn the_best_class_is_the_one_of_most_voxels_but_for_the_background() {
    same(Options::default().target(Target::Best), |y| {
        let predicted = y.argmax(1, false);
        let parts: Vec<_> = (0..2)
            .map(|sample| {
                let count =
                    |class: i64| predicted.get(sample).eq(class).sum(Kind::Int64).int64_value(&[]);
                let class = if count(1) >= count(2) && count(1) > 0 {
                    1
                } else if count(2) > 0 {
                    2
                } else {
                    0
                };
                y.get(sample).get(class).sum(Kind::Float)
            })
            .collect();
        &parts[0] + &parts[1]
    });
}

#[test]
fn a_mask() {
    let mask = || {
        let mask = Tensor::zeros([12, 14, 10], (Kind::Float, tch::Device::Cpu));
        let _filled = mask.narrow(0, 2, 5).fill_(1.0);
        mask
    };
    let target = Target::Region { class: Some(1), mask: Arc::new(to_array(&mask()).unwrap()) };
    same(Options::default().target(target), |y| (y.select(1, 1) * mask()).sum(Kind::Float));
}

#[test]
fn a_function_of_the_output() {
    let function = |y: &Tensor| y.select(1, 0) - y.select(1, 1) * 0.5;
    let target = Target::Function(Arc::new(function));
    same(Options::default().target(target), |y| function(y).sum(Kind::Float));
}

#[test]
fn several_layers_equal_each_alone() {
    let run = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let options = Options::default().target(Target::Class(1)).layers(LayerChoice::Names(names));
        let mut net = inject(Net::new(), options).unwrap();
        let _output = net.forward(&input()).unwrap();
        net.attention_maps().iter().map(|map| map.to_array().unwrap()).collect::<Vec<_>>()
    };
    let both = run(&["second", "first"]);
    assert!(difference(&both[0], &run(&["second"])[0]) <= 1e-6);
    assert!(difference(&both[1], &run(&["first"])[0]) <= 1e-6);
}

#[test]
fn half_precision_is_near_single() {
    let single = map_of(Options::default().target(Target::Class(1)));
    for (kind, tolerance) in [(Kind::BFloat16, 0.1), (Kind::Half, 0.02)] {
        let mut net = Net::new();
        net.store.set_kind(kind);
        let options = Options::default()
            .target(Target::Class(1))
            .layers(LayerChoice::Names(vec!["first".into()]));
        let mut net = inject(net, options).unwrap();
        let _output = net.forward(&input().to_kind(kind)).unwrap();
        let difference = difference(&single, &net.attention_maps()[0].to_array().unwrap());
        assert!(difference < tolerance, "{kind:?}: {difference}");
    }
}

#[test]
fn channels_last_input_gives_the_same_map() {
    let options = || Options::default().target(Target::Class(1));
    let mut net =
        inject(Net::new(), options().layers(LayerChoice::Names(vec!["first".into()]))).unwrap();
    let last = input().permute([0, 2, 3, 4, 1]).contiguous().permute([0, 4, 1, 2, 3]);
    let _output = net.forward(&last).unwrap();
    assert!(difference(&map_of(options()), &net.attention_maps()[0].to_array().unwrap()) <= 1e-5);
}

#[test]
fn sizes_and_saved_maps() {
    let folder = tempfile::tempdir().unwrap();
    for (size, shape) in
        [(MapSize::Layer, [2, 1, 6, 7, 5]), (MapSize::Exact([3, 20, 9]), [2, 1, 3, 20, 9])]
    {
        let options = Options::default().size(size).save_maps(folder.path().join("maps"));
        let mut net = inject(Net::new(), options).unwrap();
        let _output = net.forward(&input()).unwrap();
        let _output = net.forward(&input()).unwrap();
        let map = &net.attention_maps()[0];
        assert_eq!(map.to_array().unwrap().shape(), shape);
        let saved = folder.path().join("maps").join(map.layer()).join("000001.npy");
        assert_eq!(medcam::volumes::read_npy(saved).unwrap(), map.to_array().unwrap());
    }
}

#[test]
fn bad_input_is_refused_in_words() {
    let run = |input: &Tensor, options: Options| {
        inject(Net::new(), options).unwrap().forward(input).unwrap_err().to_string()
    };
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
    let nan = input() + f64::NAN;
    for (message, part) in [
        (run(&zeros(&[1, 2]), Options::default()), "neither (B, C, H, W) nor (B, C, D, H, W)"),
        (run(&nan, Options::default()), "3360 of 3360 values are NaN or infinite"),
        (run(&zeros(&[1, 0, 4, 4, 4]), Options::default()), "is empty"),
        (
            run(&zeros(&[1, 1, 4, 4, 4]).to_kind(Kind::Int), Options::default()),
            "not floating point",
        ),
        (
            run(&input(), Options::default().target(Target::Class(3))),
            "class 3 is out of range: the output has 3 class(es), 0 to 2",
        ),
        (
            run(&input(), Options::default().target(Target::Classes(vec![0]))),
            "1 classes for a batch of 2",
        ),
        (
            run(
                &input(),
                Options::default().target(Target::Region {
                    class: None,
                    mask: Arc::new(ndarray::ArrayD::zeros(vec![3, 3, 3])),
                }),
            ),
            "mask of shape [3, 3, 3] for an output grid of [12, 14, 10]",
        ),
        (
            run(&input(), Options::default().layers(LayerChoice::Names(vec!["frist".into()]))),
            "'frist': the network has none of this name. Near it: first, second",
        ),
        (
            run(&input(), Options::default().layers(LayerChoice::Names(vec!["first#2".into()]))),
            "'first' runs 1 time(s)",
        ),
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(medcam::load("nowhere.pt", Device::Cpu).unwrap_err().is_file());
}

#[test]
fn an_empty_target_gives_zeros_and_says_so() {
    let mask = Arc::new(ndarray::ArrayD::zeros(vec![12, 14, 10]));
    let options = Options::default().target(Target::Region { class: Some(1), mask });
    let mut net = inject(Net::new(), options).unwrap();
    let _output = net.forward(&input()).unwrap();
    assert!(net.attention_maps()[0].values().unwrap().iter().all(|&value| value == 0.0));
    let codes: Vec<_> = net.warnings().iter().map(|warning| &*warning.code).collect();
    assert_eq!(codes, ["EMPTY_TARGET", "EMPTY_TARGET", "ZERO_GRADIENT", "ZERO_GRADIENT"]);
}
