use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::alpha_weights::{bound, reference};
use medcam::ops::{Denominator, View, alpha_weights};
use medcam::{Layout, Shape};
use proptest::prelude::*;

use crate::common::*;

const DENOMINATORS: [Denominator; 4] = [
    Denominator::Paper,
    Denominator::M3dCam,
    Denominator::PaperEpsilon,
    Denominator::M3dCamEpsilon,
];

/// Activations of both signs, whose denominators pass through 0, and activations behind a ReLU.
fn check<T: Element>(shape: Shape, gradients: f32, activations: f32, seed: u64) {
    let g = values::<T>(shape.elements(), gradients, seed);
    let a = values::<T>(shape.elements(), activations, !seed);
    check_values(shape, &a, &g);
    check_values(shape, &absolute(&a), &g);
}

fn check_values<T: Element>(shape: Shape, a: &[T], g: &[T]) {
    let cases = LAYOUTS.into_iter().flat_map(|l| DENOMINATORS.map(|denominator| (l, denominator)));
    for (layout, denominator) in cases {
        let [activation, gradient] = [a, g].map(|data| View::new(data, shape, layout).unwrap());
        let fast = on_any_threads(|| alpha_weights(&activation, &gradient, denominator).unwrap());
        let exact = reference(&activation, &gradient, denominator);
        let bound = bound(&activation, &gradient, denominator);
        assert_close(&fast, &exact, |i| bound[i]);
        let singles: Vec<f32> = (0..shape.batch)
            .flat_map(|b| {
                let [a, g] = [&activation, &gradient].map(|view| sample(view, b));
                alpha_weights(&a, &g, denominator).unwrap()
            })
            .collect();
        assert_eq!(bits(&fast), bits(&singles));
    }
}

fn shapes_and_sizes(largest: f32, least: f32) -> impl Strategy<Value = (Shape, f32, f32)> {
    (shapes(), magnitudes(largest, least), magnitudes(largest.min(1e33), least))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn fast_is_reference_f32((shape, g, a) in shapes_and_sizes(1e30, 1e-38), seed: u64) {
        check::<f32>(shape, g, a, seed);
    }

    #[test]
    fn fast_is_reference_f16((shape, g, a) in shapes_and_sizes(6e4, 1e-7), seed: u64) {
        check::<f16>(shape, g, a, seed);
    }

    #[test]
    fn fast_is_reference_bf16((shape, g, a) in shapes_and_sizes(1e30, 1e-38), seed: u64) {
        check::<bf16>(shape, g, a, seed);
    }

    /// Gradients at which an epsilon is about as large as the rest of the denominator, or outweighs it.
    #[test]
    fn fast_is_reference_where_an_epsilon_counts(
        shape in shapes(),
        (g, a) in prop::sample::select(vec![
            (1e-3, 1.0),
            (1e-4, 1.0),
            (1e-3, 0.0),
            (1e-13, 1e33),
            (1e-20, 1.0),
            (1e-23, 1e30),
        ]),
        seed: u64,
    ) {
        check::<f32>(shape, g, a, seed);
        check::<bf16>(shape, g, a, seed);
        check::<f16>(shape, g.max(1e-4), a.min(1.0), seed);
    }
}

/// More voxels than one task sums.
#[test]
fn many_segments() {
    check::<f32>(Shape::new(2, 3, [31, 41, 57]).unwrap(), 1e-3, 1.0, 7);
    check::<f16>(Shape::new(1, 1, [1, 300, 301]).unwrap(), 1e-3, 1.0, 8);
}

/// A bound that says nothing would let anything pass: with a ReLU in front, which most layers have,
/// it is 1e-5 of the weight.
#[test]
fn weights_of_positive_activations_are_good() {
    let shape = Shape::new(1, 8, [4, 9, 11]).unwrap();
    let a = absolute(&values::<f32>(shape.elements(), 1.0, 1));
    let g = values::<f32>(shape.elements(), 1e-3, 2);
    let [a, g] = [&a, &g].map(|data| View::new(data, shape, Layout::Contiguous).unwrap());
    for denominator in [Denominator::Paper, Denominator::PaperEpsilon] {
        let exact = reference(&a, &g, denominator);
        for (bound, exact) in bound(&a, &g, denominator).iter().zip(&exact) {
            assert!(*exact > 0.0 && *bound < 1.01e-5 * exact, "{bound} {exact}");
        }
    }
}

/// Weights of two channels of four voxels, as the lines of the libraries make them in f32.
///
/// `a = (torch.arange(8.) - 2) / 4`, `g = (torch.arange(8.) * 5 % 8 - 3) / 2 * scale`.
struct Theirs {
    scale: f32,
    /// Of M3d-CAM 0.1.22, run by torch 2.11.
    m3d_cam: [f64; 2],
    /// Of pytorch-grad-cam 1.5.7, run by NumPy.
    pytorch_grad_cam: [f64; 2],
}

const THEIRS: [Theirs; 3] = [
    Theirs {
        scale: 1.0,
        m3d_cam: [8.833_615_78e-1, 5.087_808_97e-1],
        pytorch_grad_cam: [2.666_665_79, 3.402_297_20e-1],
    },
    Theirs {
        scale: 1e-3,
        m3d_cam: [1.462_647_69e-3, 9.406_716_56e-4],
        pytorch_grad_cam: [1.222_673_11e-3, 6.956_303_26e-4],
    },
    Theirs {
        scale: 1e-4,
        m3d_cam: [5.277_668_24e-5, 2.446_587_31e-5],
        pytorch_grad_cam: [8.387_826_71e-6, 3.354_006_14e-6],
    },
];

#[test]
fn as_the_libraries() {
    let shape = Shape::new(1, 2, [1, 1, 4]).unwrap();
    let a: Vec<f32> = (0..8).map(|i| (i as f32 - 2.0) / 4.0).collect();
    let activation = View::new(&a, shape, Layout::Contiguous).unwrap();
    for Theirs { scale, m3d_cam, pytorch_grad_cam } in THEIRS {
        let g: Vec<f32> = (0..8).map(|i| ((i * 5 % 8) as f32 - 3.0) / 2.0 * scale).collect();
        let gradient = View::new(&g, shape, Layout::Contiguous).unwrap();
        let weights = |denominator| alpha_weights(&activation, &gradient, denominator).unwrap();
        // A few roundings of f32 on both sides.
        assert_close(&weights(Denominator::M3dCamEpsilon), &m3d_cam, |i| 3e-7 * m3d_cam[i]);
        let found = weights(Denominator::PaperEpsilon);
        assert_close(&found, &pytorch_grad_cam, |i| 3e-7 * pytorch_grad_cam[i]);
        if scale == 1.0 {
            // Beside gradients of 1, an epsilon is nearly nothing.
            assert_close(&weights(Denominator::M3dCam), &m3d_cam, |i| 1e-6 * m3d_cam[i]);
            let found = weights(Denominator::Paper);
            assert_close(&found, &pytorch_grad_cam, |i| 2e-6 * pytorch_grad_cam[i]);
        }
    }
}

#[test]
fn a_value_that_is_not_finite_spoils_its_channel_alone() {
    let shape = Shape::new(1, 3, [1, 1, 33]).unwrap();
    let ones = vec![1.0_f32; shape.elements()];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let cases = LAYOUTS.into_iter().flat_map(|l| DENOMINATORS.map(|d| (l, d)));
        for (layout, denominator) in cases {
            let index = if layout == Layout::Contiguous { 33 + 32 } else { 32 * 3 + 1 };
            let mut spoilt = ones.clone();
            spoilt[index] = bad;
            for (a, g) in [(&ones, &spoilt), (&spoilt, &ones)] {
                let [a, g] = [a, g].map(|data| View::new(data, shape, layout).unwrap());
                let weights = alpha_weights(&a, &g, denominator).unwrap();
                assert_eq!(
                    weights.iter().map(|w| w.is_finite()).collect::<Vec<_>>(),
                    [true, false, true],
                    "{bad} {layout:?} {denominator:?}"
                );
                let exact = reference(&a, &g, denominator);
                assert!((f64::from(weights[0]) - exact[0]).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn bad_arguments_are_errors_that_name_them() {
    let shape = Shape::new(1, 2, [1, 2, 2]).unwrap();
    let other = Shape::new(1, 4, [1, 2, 1]).unwrap();
    let data = [0.0_f32; 8];
    let view = |shape, layout| View::new(&data, shape, layout).unwrap();
    let activation = view(shape, Layout::Contiguous);
    let message = |gradient: &View<f32>| {
        let error = alpha_weights(&activation, gradient, Denominator::Paper).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    assert_eq!(
        message(&view(other, Layout::Contiguous)),
        "alpha_weights: gradient: its shape (1, 4, 1, 2, 1) is not that of the activation, \
         (1, 2, 1, 2, 2)"
    );
    assert_eq!(
        message(&view(shape, Layout::ChannelsLast)),
        "alpha_weights: gradient: its layout is ChannelsLast, that of the activation Contiguous; \
         lay one out as the other"
    );
}
