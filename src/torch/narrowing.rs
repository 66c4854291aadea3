//! Backward at concatenations: convolutions behind one compute the gradient of the channels that need it, and what
//! comes out is autograd's. The same steps run once through a tape and once in plain autograd.

mod cases;

use std::path::PathBuf;

use tch::{Kind, Tensor};

use super::{Device, Network, Tape, ffi, load};

/// Of the largest gradient: on few shapes oneDNN sums fewer channels in another order.
const TOLERANCE: f64 = 1e-6;

/// What stands for a tape's taps in plain autograd: nothing.
type Tap<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Tensor;

/// Steps from the layer `start` on to a score for each class.
type Steps<'a> = &'a dyn Fn(&Tensor, Tap<'_>) -> Tensor;

impl Tape {
    fn narrowed(&self) -> usize {
        // SAFETY: the tape is alive.
        unsafe { ffi::mc_tape_narrowed(self.as_ptr()) }
    }
}

/// Pseudo-random values in [-1, 1], other ones for each phase.
fn waves(shape: &[i64], phase: f64) -> Tensor {
    let ramp = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, tch::Device::Cpu));
    ((ramp * 12.9898 + phase).sin() * 43.7).sin().reshape(shape).to_kind(Kind::Float)
}

/// The scores, and for each class the gradient at `layer`, by a tape that starts at `start`; and how many convolutions
/// were narrowed.
fn taped(steps: Steps<'_>, start: &Tensor, layer: &str) -> (Tensor, Vec<Tensor>, usize) {
    let mut tape = Tape::new().unwrap();
    let wishes = [tape.want("start", None).unwrap(), tape.want(layer, None).unwrap()];
    let scores = tch::no_grad(|| {
        let start = tape.tap("start", &(start * 1.)).unwrap();
        let scores = steps(&start, &mut |name, x| tape.tap(name, x).unwrap());
        assert!(scores.requires_grad());
        scores
    });
    let classes = scores.size()[0];
    let gradients = (0..classes).map(|class| {
        let mut found = None;
        let score = tch::with_grad(|| scores.get(class));
        let each = |wish, _: &Tensor, gradient: &Tensor| {
            if wish == wishes[1] || layer == "start" {
                found = Some(gradient.copy());
            }
        };
        tape.backward(&score, None, class + 1 < classes, each).unwrap();
        found.unwrap()
    });
    let gradients = gradients.collect();
    (scores.detach(), gradients, tape.narrowed())
}

/// The same in plain autograd.
fn plain(steps: Steps<'_>, start: &Tensor, layer: &str) -> (Tensor, Vec<Tensor>) {
    tch::with_grad(|| {
        let start = start.copy().set_requires_grad(true);
        let mut recorded = start.shallow_clone();
        let scores = steps(&start, &mut |name, x| {
            if name == layer {
                recorded = x.shallow_clone();
            }
            x.shallow_clone()
        });
        let gradient =
            |class| Tensor::run_backward(&[scores.get(class)], &[&recorded], true, false).remove(0);
        let gradients = (0..scores.size()[0]).map(gradient).collect();
        (scores.detach(), gradients)
    })
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    let largest = b.abs().max().double_value(&[]);
    (a - b).abs().max().double_value(&[]) / largest.max(1e-30)
}

/// Holds the tape's scores and gradients against autograd's, and returns how many convolutions were narrowed.
fn check(steps: Steps<'_>, start: &Tensor, layer: &str) -> usize {
    let (own, gradients, narrowed) = taped(steps, start, layer);
    let (scores, expected) = plain(steps, start, layer);
    assert!(own.equal(&scores), "other scores");
    for (gradient, expected) in gradients.iter().zip(&expected) {
        assert_eq!(gradient.size(), expected.size());
        let far = far(gradient, expected);
        assert!(far <= TOLERANCE, "off by {far}");
    }
    narrowed
}

/// A score for each of two classes, from all voxels and channels.
fn scores(y: &Tensor) -> Tensor {
    let all = |phase| (y * waves(&y.size(), phase)).sum(Kind::Float);
    Tensor::stack(&[all(0.3), all(0.7)], 0)
}

#[test]
fn several_readers_of_a_concatenation() {
    let weight = |inputs: i64| waves(&[3, inputs, 3, 3], 9.);
    let convolve = |x: &Tensor| {
        let weight = weight(x.size()[1]);
        x.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)
    };
    let start = waves(&[2, 2, 7, 6], 0.1);
    let skip = waves(&[2, 3, 7, 6], 0.2);
    // Two convolutions; and a sum, which needs all channels.
    let both = |start: &Tensor, _: Tap<'_>| {
        let cat = Tensor::cat(&[&skip, start], 1);
        scores(&(convolve(&cat).relu() + convolve(&cat).sigmoid() + cat.narrow(1, 0, 3)))
    };
    assert_eq!(check(&both, &start, "start"), 2);
    // What two convolutions read behind an activation stays: it would run twice.
    let behind = |start: &Tensor, _: Tap<'_>| {
        let cat = Tensor::cat(&[&skip, start], 1).relu();
        scores(&(convolve(&cat).relu() + convolve(&cat).sigmoid()))
    };
    assert_eq!(check(&behind, &start, "start"), 0);
    // Concatenations of concatenations.
    let nested = |start: &Tensor, _: Tap<'_>| {
        let cat = Tensor::cat(&[&Tensor::cat(&[start, &skip], 1), &skip, start], 1);
        scores(&convolve(&cat))
    };
    assert_eq!(check(&nested, &start, "start"), 1);
    // Along another axis.
    let wide = |start: &Tensor, _: Tap<'_>| {
        scores(&convolve(&Tensor::cat(&[start, &skip.narrow(1, 0, 2)], 2)))
    };
    assert_eq!(check(&wide, &start, "start"), 0);
}

#[test]
fn the_input_of_a_frozen_convolution_is_let_go_and_a_weight_is_still_watched() {
    let start = waves(&[1, 2, 6, 7], 0.1);
    let weight = waves(&[3, 4, 3, 3], 0.2);
    let run = |write: &dyn Fn(&Tensor, &mut Tensor)| {
        let mut tape = Tape::new().unwrap();
        tape.want("start", None).unwrap();
        let mut weight = weight.copy();
        let score = tch::no_grad(|| {
            let start = tape.tap("start", &(&start * 1.)).unwrap();
            let x = Tensor::cat(&[&waves(&[1, 2, 6, 7], 0.3), &start], 1);
            let y = x.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
            let y = tape.tap("y", &y).unwrap();
            write(&x, &mut weight);
            scores(&y).get(0)
        });
        let mut gradient = None;
        let each = |_, _: &Tensor, arrived: &Tensor| gradient = Some(arrived.copy());
        tape.backward(&score, None, false, each).map(|()| gradient.unwrap())
    };
    let gradient = run(&|_, _| ()).unwrap();
    // Autograd would refuse this, as the values are another's now; they are not read.
    let written = run(&|x, _| drop(x.detach().zero_())).unwrap();
    assert!(written.equal(&gradient));
    let error = run(&|_, weight| drop(weight.zero_())).unwrap_err();
    assert!(!error.to_string().is_empty());
}

/// The gradient at a layer of a model in a file, and how many convolutions were narrowed. The tape starts at `first`,
/// or else at the layer.
fn of_file(file: &str, first: Option<&str>, layer: &str) -> (Tensor, usize) {
    let folder = PathBuf::from(std::env::var_os("MEDCAM_ARCHITECTURES").unwrap());
    let model = load(folder.join(file), Device::Cpu).unwrap();
    let mut tape = Tape::new().unwrap();
    if let Some(name) = first {
        tape.want(name, None).unwrap();
    }
    let wish = tape.want(layer, None).unwrap();
    let input = waves(&[1, 1, 32, 40, 24], 0.2);
    let output = tch::no_grad(|| model.forward_tapped(&input, &mut tape)).unwrap();
    let own = tch::no_grad(|| model.forward(&input)).unwrap();
    assert!(output.detach().equal(&own), "{file}");
    let score = tch::with_grad(|| scores(&output.narrow(1, 0, 1)).get(0));
    let mut gradient = None;
    let each = |index, _: &Tensor, arrived: &Tensor| {
        if index == wish {
            gradient = Some(arrived.copy());
        }
    };
    tape.backward(&score, None, false, each).unwrap();
    (gradient.unwrap(), tape.narrowed())
}

#[test]
fn decoders_of_well_known_networks() {
    // Each level of a decoder reads its skip.
    let networks = [
        ("nnunet_plain", "decoder.encoder.stages.0", "decoder.encoder.stages.3", 3),
        (
            "dynunet_deep",
            "skip_layers.downsample",
            "skip_layers.next_layer.next_layer.next_layer",
            3,
        ),
        // Transposed convolutions read its skips.
        ("monai_unet", "model.0", "model.1.submodule.1.submodule.1", 0),
    ];
    for (name, first, layer, expected) in networks {
        let file = format!("{name}.traced.pt");
        // A tape that starts at the first skip has gradients of all channels.
        let (whole, none) = of_file(&file, Some(first), layer);
        let (gradient, narrowed) = of_file(&file, None, layer);
        assert_eq!((none, narrowed), (0, expected), "{name}");
        let far = far(&gradient, &whole);
        assert!(far <= TOLERANCE, "{name}: off by {far}");
    }
}
