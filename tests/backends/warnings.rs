//! Warnings about maps, such as noise, and errors that say why there is no map.

use medcam::tch::{self, Kind, Tensor};
use medcam::{
    Backend, Facts, Fuse, Injected, LayerChoice, Network, Options, Result, Tape, Target, inject,
};
use ndarray::{ArrayD, Axis};

use crate::common::difference;

type Forward = fn(&Tensor, &mut Tape) -> Result<Tensor>;

/// A network defined by its forward and its facts.
struct Net(Forward, Facts);

impl Network for Net {
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        (self.0)(input, tape)
    }

    fn facts(&self) -> Facts {
        self.1.clone()
    }
}

fn cancelling(layer: &str) -> Facts {
    let mut facts = Facts::default();
    facts.cancelling.insert(layer.to_owned());
    facts
}

fn input() -> Tensor {
    let values = [1.0_f32, 2.0, 5.0, 3.0, 7.0, 2.0, 3.0, 4.0];
    Tensor::from_slice(&values).reshape([2, 1, 2, 2])
}

/// Gradients of the first and the second sample; their mean is rounding noise.
const NOISE: [f32; 8] = [1.0, -1.0, -1.0, 1.000_001, 1.0, -1.0, -1.0, 1.000_001];
const NOISE_IN_SECOND: [f32; 8] = [1.0, 2.0, 0.5, 1.0, 1.0, -1.0, -1.0, 1.000_001];
/// A gradient whose mean is too large to count as noise by its magnitude.
const SMALL: [f32; 8] = [1.0, -0.999, -1.0, 1.0, 1.0, -0.999, -1.0, 1.0];

/// A score that sums layers, each with the given gradient.
fn sum_of(layers: &[(&str, Tensor, [f32; 8])], tape: &mut Tape) -> Result<Tensor> {
    let mut score = Tensor::zeros([1, 1], (Kind::Float, tch::Device::Cpu));
    for (name, values, gradient) in layers {
        let layer = tape.tap(name, values)?;
        let gradient = Tensor::from_slice(gradient).reshape([2, 1, 2, 2]);
        let axes: &[i64] = &[2, 3];
        let weighted = &layer * gradient.narrow(0, 0, layer.size()[0]);
        score = &score + weighted.sum_dim_intlist(axes, false, Kind::Float);
    }
    Ok(score)
}

fn layers(input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
    let x = tape.relu(input)?;
    let layers = [
        ("noise", &x + 1.0, NOISE),
        ("half", x.square(), NOISE_IN_SECOND),
        ("small", x.sqrt(), SMALL),
    ];
    sum_of(&layers, tape)
}

fn run(net: Net, names: &[&str], options: Options) -> Injected<Net> {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let options = options.layers(LayerChoice::Names(names)).target(Target::Class(0));
    let mut injected = inject(net, options).unwrap();
    let _output = injected.forward(&input()).unwrap();
    injected
}

/// Layer and sample of each warning that the weights cancel.
fn noisy(injected: &Injected<Net>) -> Vec<(&str, usize)> {
    let warnings = injected.warnings().iter().filter(|warning| warning.code == "WEIGHTS_CANCEL");
    warnings.map(|warning| (&*warning.layer, warning.sample.unwrap())).collect()
}

#[test]
fn maps_that_are_noise_are_left_out_where_maps_are_fused() {
    let alone = run(Net(layers, Facts::default()), &["noise", "half"], Options::default());
    assert_eq!(noisy(&alone), [("noise", 0), ("noise", 1), ("half", 1)]);
    let [noise, half] = alone.attention_maps() else { unreachable!("two layers") };
    let sample = |map: &ArrayD<f32>, b| map.index_axis(Axis(0), b).to_owned();
    for (fuse, of) in [
        (Fuse::Mean, (|a, b| a + b) as fn(f32, f32) -> f32),
        (Fuse::Max, |a: f32, b: f32| a.max(b)),
    ] {
        let fused =
            run(Net(layers, Facts::default()), &["noise", "half"], Options::default().fuse(fuse));
        let map = fused.attention_maps()[0].to_array().unwrap();
        assert!(difference(&sample(&map, 0), &sample(&half.to_array().unwrap(), 0)) <= 1e-6);
        // In the second sample both layers are noise, so both are fused.
        let (a, b) = (sample(&noise.to_array().unwrap(), 1), sample(&half.to_array().unwrap(), 1));
        let mut both = a.clone();
        both.zip_mut_with(&b, |a, &b| *a = of(*a, b));
        let low = both.fold(f32::INFINITY, |a, &b| a.min(b));
        let high = both.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        both.mapv_inplace(|v| (v - low) / (high - low));
        assert!(difference(&sample(&map, 1), &both) <= 1e-6);

        let of_layers = [("noise", 0), ("noise", 1), ("half", 1), ("fused", 1)];
        assert_eq!(noisy(&fused), of_layers);
        for warning in fused.warnings() {
            let left_out = warning.message.contains("The fused map leaves this one out");
            assert_eq!(left_out, warning.sample == Some(0), "{}", warning.message);
        }
    }
}

#[test]
fn weights_that_the_graph_says_cancel_are_noise_whatever_the_numbers() {
    for backend in Backend::ALL.into_iter().filter(|backend| backend.needs().layer) {
        let pools = [Backend::GRAD_CAM, Backend::GUIDED_GRAD_CAM].contains(&backend);
        let run = |facts, names: &[&str], fuse: Option<Fuse>| {
            let options = Options::default().backend(backend);
            let options = fuse.map_or(options.clone(), |fuse| options.fuse(fuse));
            run(Net(layers, facts), names, options)
        };
        assert_eq!(noisy(&run(Facts::default(), &["small"], None)), []);
        let injected = run(cancelling("small"), &["small"], None);
        let expected: &[_] = if pools { &[("small", 0), ("small", 1)] } else { &[] };
        assert_eq!(noisy(&injected), expected, "{backend}");
        let fused = run(cancelling("small"), &["small", "half"], Some(Fuse::Mean));
        let half = run(cancelling("small"), &["half"], None);
        let [fused, half] = [&fused, &half]
            .map(|run| run.attention_maps()[0].values().unwrap().index_axis(Axis(0), 0).to_owned());
        assert_eq!((&fused - &half).iter().all(|&d| d.abs() <= 1e-6), pools, "{backend}");
    }
}

/// Of a layer that runs twice, the graph's facts hold for the last run.
#[test]
fn what_the_graph_says_is_of_the_last_run() {
    fn twice(input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        sum_of(&[("a", input + 1.0, SMALL), ("a", input.square(), SMALL)], tape)
    }
    for (name, expected) in [("a#1", vec![]), ("a#2", vec![("a#2", 0), ("a#2", 1)])] {
        let injected = run(Net(twice, cancelling("a")), &[name], Options::default());
        assert_eq!(noisy(&injected), expected, "{name}");
    }
}

/// A gradient of zeros has a warning of its own.
#[test]
fn a_gradient_of_zeros_is_not_noise() {
    fn zeros(input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        sum_of(&[("a", input + 1.0, [0.0; 8])], tape)
    }
    let injected = run(Net(zeros, cancelling("a")), &["a"], Options::default());
    let codes: Vec<_> =
        injected.warnings().iter().map(|warning| warning.code.to_string()).collect();
    assert_eq!(codes, ["ZERO_GRADIENT", "ZERO_GRADIENT"]);
}

#[test]
fn a_network_without_maps_is_told_why() {
    fn classes(input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        Ok(layers(input, tape)?.argmax(1, true))
    }
    fn complex(input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        Ok(layers(input, tape)?.fft_fft(None, 1, "backward"))
    }
    fn overwritten(input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let x = tape.relu(input)?;
        let mut x = tape.tap("a", &Tensor::cat(&[&x, &x], 1))?.sigmoid();
        let score = x.mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        let _ = x.g_add_scalar_(1.0);
        Ok(score)
    }
    fn leaky(input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        sum_of(&[("a", input.leaky_relu(), SMALL)], tape)
    }
    let mut activations = Facts::default();
    activations.activations.insert("leaky_relu".to_owned(), 2);
    let output = "another explained (--explain-output, Model::with_output)";
    let [cam, guided] = [Backend::GRAD_CAM, Backend::GUIDED_BACKPROPAGATION];
    let none = Facts::default();
    let int = ["of type Int64: what is not floating point", output];
    let complex_numbers = ["of type ComplexFloat: complex numbers", output];
    let in_place = [
        "gradient needs (in autograd's words, output 0 of SigmoidBackward0). Take a layer",
        "in-place operations",
    ];
    let no_relu = ["it has no ReLU, but 2 leaky_relu", "--guide all, Guide::All"];
    for (forward, facts, backend, words) in [
        (classes as Forward, &none, cam, int),
        (classes, &none, guided, int),
        (complex, &none, cam, complex_numbers),
        (complex, &none, guided, complex_numbers),
        (overwritten, &none, cam, in_place),
        (overwritten, &none, guided, in_place),
        (leaky, &activations, guided, no_relu),
    ] {
        let options = Options::default().backend(backend);
        let mut injected = inject(Net(forward, facts.clone()), options).unwrap();
        let error = injected.forward(&input()).unwrap_err();
        assert!(error.is_model(), "{error}");
        for part in words {
            assert!(error.to_string().contains(part), "{backend}: {error}");
        }
    }
}
