//! Networks that overwrite tensors which others still hold, whose layers return their input itself,
//! or which run differently for other inputs: the output is the network's own, and the maps are
//! autograd's or refused.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{AliasNetwork, Aliases, array, difference, model, tensor};
use medcam::tch::{self, Kind, Tensor, nn};
use medcam::{
    Backend, Injected, LayerChoice, MapSize, Model, Network, Options, Result, Tape, Target, inject,
};

/// As in `tests/parity.rs`.
const TOLERANCE: f32 = 1e-5;

fn options(layers: LayerChoice) -> Options {
    let options = Options::default().backend(Backend::HIRES_CAM).layers(layers);
    options.target(Target::Class(1)).size(MapSize::Layer)
}

fn injected(file: &str, layers: LayerChoice) -> Injected<Model> {
    inject(model(file), options(layers)).unwrap()
}

fn named(name: &str) -> LayerChoice {
    LayerChoice::Names(vec![name.to_owned()])
}

fn networks(run: impl Fn(&AliasNetwork, &str, &Tensor)) {
    let aliases = Aliases::read();
    assert!(aliases.networks.len() >= 15);
    for network in &aliases.networks {
        for file in &network.files {
            // A new tensor each time, as a network may write to it.
            run(network, file, &tensor(&aliases.input));
        }
    }
}

/// The layers in this file: tracing drops `nn.Identity`.
fn layers_of(network: &AliasNetwork, file: &str, input: &Tensor) -> Vec<String> {
    let mut injected = inject(model(file), Options::default()).unwrap();
    let layers = injected.layers(&input.copy()).unwrap();
    let mut names: Vec<String> = network.maps.keys().cloned().collect();
    names.retain(|name| layers.get(name).is_some());
    assert!(names.len() >= network.maps.len() - usize::from(file.contains("traced")), "{file}");
    names
}

fn check(network: &AliasNetwork, file: &str, injected: &mut Injected<Model>, input: &Tensor) {
    let before = input.copy();
    let output = injected.forward(input).unwrap();
    let copy = before.copy();
    let own = model(file).forward(&copy).unwrap();
    assert!(output.equal(&own), "{file}: the output is another");
    assert!(input.equal(&copy), "{file}: the input is not what the model leaves of it");
    let python = tensor(&network.output);
    let worst = (output - python).abs().max().double_value(&[]);
    assert!(worst < 1e-5, "{file}: the output is {worst} from PyTorch's");
    for map in injected.attention_maps() {
        let expected = network.maps.get(map.layer());
        let expected = array(expected.unwrap_or_else(|| panic!("{file}: {}", map.layer())));
        let worst = difference(&map.to_array().unwrap(), &expected);
        assert!(worst <= TOLERANCE, "{file}: layer {} is off by {worst}", map.layer());
    }
}

#[test]
fn all_layers_at_once() {
    networks(|network, file, input| {
        if network.refused.is_empty() {
            let mut injected = injected(file, LayerChoice::Full);
            check(network, file, &mut injected, input);
            let found = injected.attention_maps().len();
            assert_eq!(found, layers_of(network, file, input).len(), "{file}");
        }
    });
}

#[test]
fn each_layer_alone() {
    networks(|network, file, input| {
        for name in layers_of(network, file, input) {
            check(network, file, &mut injected(file, named(&name)), &input.copy());
        }
    });
}

#[test]
fn what_cannot_be_known_is_refused() {
    networks(|network, file, input| {
        for layer in &network.refused {
            for choice in [named(layer), LayerChoice::Full] {
                let error = injected(file, choice).forward(&input.copy()).unwrap_err().to_string();
                let explained = error.contains("reads again") || error.contains("does not show it");
                assert!(
                    explained && error.contains(&format!("layer '{layer}'")),
                    "{file}: {error}"
                );
            }
        }
    });
}

#[test]
fn what_runs_may_depend_on_the_input() {
    let input = tensor(&Aliases::read().input);
    let (more, less) = (input.abs(), -input.abs());
    let file = "aliases.Dependent.scripted.pt";
    for choice in [LayerChoice::Full, named("after")] {
        let alone = |input: &Tensor| {
            let mut injected = injected(file, choice.clone());
            let output = injected.forward(input).unwrap();
            let maps = injected.attention_maps().iter();
            (
                output,
                maps.map(|m| (m.layer().to_owned(), m.to_array().unwrap())).collect::<Vec<_>>(),
            )
        };
        let (of_more, of_less) = (alone(&more), alone(&less));
        assert_ne!(of_more.1, of_less.1);
        let mut injected = injected(file, choice.clone());
        for (input, (output, maps)) in
            [(&less, &of_less), (&more, &of_more), (&more, &of_more), (&less, &of_less)]
        {
            assert!(injected.forward(input).unwrap().equal(output));
            let found = injected.attention_maps().iter();
            let found: Vec<_> =
                found.map(|m| (m.layer().to_owned(), m.to_array().unwrap())).collect();
            assert_eq!(&found, maps);
        }
    }
}

#[test]
fn an_input_without_a_layer_to_explain_spoils_no_other() {
    let input = tensor(&Aliases::read().input);
    let mut injected = injected("aliases.ReluSkip.scripted.pt", LayerChoice::Auto);
    let voxel = input.narrow(2, 0, 1).narrow(3, 0, 1);
    let error = injected.forward(&voxel).unwrap_err().to_string();
    assert!(error.contains("more than one voxel"), "{error}");
    let _output = injected.forward(&input).unwrap();
    assert!(injected.forward(&voxel).is_err());
    let _output = injected.forward(&input).unwrap();
    assert_eq!(injected.attention_maps().len(), 1);
}

#[test]
fn one_run_by_both_of_its_names() {
    let input = tensor(&Aliases::read().input);
    let names = LayerChoice::Names(vec!["before".to_owned(), "before#1".to_owned()]);
    let mut injected = injected("aliases.ReluSkip.traced.pt", names);
    let _output = injected.forward(&input).unwrap();
    let [first, second] = injected.attention_maps() else { unreachable!("two maps") };
    assert_eq!((first.layer(), second.layer()), ("before", "before#1"));
    assert_eq!(first.to_array().unwrap(), second.to_array().unwrap());
}

/// Two parallel branches, whose weights require gradients.
struct Branches {
    convolutions: [nn::Conv2D; 3],
}

impl Network for Branches {
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let [a, b, c] = &self.convolutions;
        let a = tape.tap("a", &input.apply(a))?;
        let b = tape.tap("b", &input.apply(b))?;
        let c = tape.tap("c", &b.relu().apply(c))?;
        Ok((a + c).mean_dim([2_i64, 3].as_slice(), false, Kind::Float))
    }
}

#[test]
fn branches_side_by_side_though_weights_and_input_ask_for_gradients() {
    tch::manual_seed(1);
    let store = nn::VarStore::new(tch::Device::Cpu);
    let config = nn::ConvConfig { padding: 1, ..nn::ConvConfig::default() };
    let build = |name: &str| nn::conv2d(store.root() / name, 3, 3, 3, config);
    let of = |choice: LayerChoice, input: &Tensor| {
        let network = Branches { convolutions: ["a", "b", "c"].map(build) };
        let mut injected = inject(network, options(choice)).unwrap();
        let _output = injected.forward(input).unwrap();
        assert!(injected.warnings().iter().all(|warning| warning.code != "NO_GRADIENT"));
        let maps = injected.attention_maps().iter();
        maps.map(|map| (map.layer().to_owned(), map.to_array().unwrap())).collect::<Vec<_>>()
    };
    tch::manual_seed(2);
    let input = tensor(&Aliases::read().input);
    assert!(store.trainable_variables().iter().all(Tensor::requires_grad));
    // `build` makes new weights for each network; the seed makes them equal.
    let seeded = |choice, input: &Tensor| {
        tch::manual_seed(3);
        of(choice, input)
    };
    let all = seeded(LayerChoice::Full, &input);
    assert_eq!(all.len(), 3);
    for (name, map) in &all {
        assert_eq!(seeded(named(name), &input), [(name.clone(), map.clone())]);
    }
    let tracked = input.set_requires_grad(true);
    assert_eq!(seeded(LayerChoice::Full, &tracked), all);
    assert!(!tracked.grad().defined());
}
