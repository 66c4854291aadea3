//! Grad-CAM++'s weights against the reference, within its bound.

use half::{bf16, f16};
use medcam::device::Stream;
use medcam::element::Element;
use medcam::ops::alpha_weights::{TOLERANCE, bound, cuda, reference};
use medcam::ops::{Denominator, DeviceView, View};
use medcam::{Layout, Shape};

use crate::common::{Results, Shifted, gpu, of_samples, run_repeatedly};
use crate::on_the_cpu::{LAYOUTS, absolute, assert_close, values};

const DENOMINATORS: [Denominator; 4] = [
    Denominator::Paper,
    Denominator::M3dCam,
    Denominator::PaperEpsilon,
    Denominator::M3dCamEpsilon,
];

/// The weights; the addresses of both tensors are shifted by `skipped` values.
fn run<T: Element>(
    stream: &mut Stream,
    [a, g]: [&[T]; 2],
    (shape, layout, denominator): (Shape, Layout, Denominator),
    skipped: [usize; 2],
) -> Vec<f32> {
    stream.release_scratch();
    let (a, g) = (Shifted::new(stream, a, skipped[0]), Shifted::new(stream, g, skipped[1]));
    let (a, g) = (a.view(shape, layout), g.view(shape, layout));
    let mut weights = stream.upload(&vec![9.0; shape.batch * shape.channels]).unwrap();
    cuda::alpha_weights(stream, &a, &g, denominator, weights.slice_mut()).unwrap();
    stream.download(weights.slice()).unwrap()
}

fn check_values<T: Element>(
    stream: &mut Stream,
    [a, g]: [&[T]; 2],
    settings: (Shape, Layout, Denominator),
) {
    let (shape, layout, denominator) = settings;
    let place = format!("{settings:?}");
    let found = run_repeatedly(&place, shape.batch, &[[0, 1]], |samples, skipped| {
        let part = Shape { batch: samples.len(), ..shape };
        let tensors = [a, g].map(|data| of_samples(data, shape.batch, samples.clone()));
        let weights = run(stream, tensors, (part, layout, denominator), skipped);
        Results { values: vec![weights], extremes: Vec::new() }
    });
    let view = |data| View::new(data, shape, layout).unwrap();
    let exact = reference(&view(a), &view(g), denominator);
    let bound = bound(&view(a), &view(g), denominator);
    assert_close(&found.values[0], &exact, |i| bound[i]);
}

/// Activations of one sign, as most layers have, and of both.
fn check<T: Element>(stream: &mut Stream, extents: [usize; 5], magnitudes: [f32; 2]) {
    let [batch, channels, depth, height, width] = extents;
    let shape = Shape::new(batch, channels, [depth, height, width]).unwrap();
    let a = values::<T>(shape.elements(), magnitudes[0], 5);
    let g = values::<T>(shape.elements(), magnitudes[1], shape.elements() as u64);
    for (layout, denominator) in LAYOUTS.into_iter().flat_map(|l| DENOMINATORS.map(|d| (l, d))) {
        let settings = (shape, layout, denominator);
        check_values(stream, [&absolute(&a), &g], settings);
        check_values(stream, [&a, &g], settings);
    }
}

/// Rows of a few values, of a warp, of a block and of two; strips of voxels.
#[test]
fn small_weights_of_any_shape() {
    let Some(mut stream) = gpu() else { return };
    for extents in [[1, 1, 1, 1, 1], [2, 3, 1, 3, 11], [1, 2, 1, 1, 1025]] {
        check::<f32>(&mut stream, extents, [1.0, 1e-3]);
    }
    check::<f16>(&mut stream, [1, 8, 1, 1, 513], [1.0, 1.0]);
    check::<f32>(&mut stream, [1, 1, 1, 1, 4097], [1.0, 1e-3]);
    check::<f32>(&mut stream, [1, 3, 1, 3, 11], [1.0, 1e-4]);
}

#[test]
fn weights_of_few_voxels() {
    let Some(mut stream) = gpu() else { return };
    for voxels in [1, 31, 32, 33] {
        for (batch, channels) in [(3, 1), (1, 3), (1, 257)] {
            check::<f32>(&mut stream, [batch, channels, 1, 1, voxels], [1.0, 1e-3]);
        }
        check::<bf16>(&mut stream, [3, 3, 1, 1, voxels], [1.0, 1.0]);
        check::<f16>(&mut stream, [1, 64, 1, 1, voxels], [1.0, 1.0]);
    }
}

#[test]
fn weights_of_many_voxels() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [3, 3, 1, 1, 1023], [1.0, 1.0]);
    check::<bf16>(&mut stream, [1, 3, 1, 1, 1025], [1.0, 1.0]);
    check::<f16>(&mut stream, [1, 3, 12, 13, 14], [1.0, 1.0]);
    check::<bf16>(&mut stream, [1, 16, 12, 13, 14], [1.0, 1e-3]);
}

/// Several segments and strips, and more than one round of loads.
#[test]
fn weights_across_blocks() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [2, 3, 1, 1, 9001], [1.0, 1e-3]);
    check::<f16>(&mut stream, [1, 8, 1, 1, 20_008], [1.0, 1.0]);
}

#[test]
fn huge_and_tiny_values_keep_their_digits() {
    let Some(mut stream) = gpu() else { return };
    for magnitudes in [
        [1.0, 1e30],
        [1e30, 1.0],
        [1e30, 1e30],
        [1e-38, 1e-38],
        [1.0, 1e-38],
        [1e30, 1e-30],
        // Where an epsilon is about as large as the rest of the denominator: epsilon / G^2 near
        // 1e-4 G 1e33 or 2.
        [1e33, 1e-13],
        [0.0, 1e-3],
        [1.0, 1e-20],
        [0.0, 1.0],
        [1.0, 0.0],
    ] {
        check::<f32>(&mut stream, [1, 3, 1, 3, 11], magnitudes);
        check::<bf16>(&mut stream, [1, 8, 1, 13, 14], magnitudes);
    }
    check::<f16>(&mut stream, [1, 8, 1, 13, 14], [6e4, 6e4]);
    check::<f16>(&mut stream, [1, 8, 1, 13, 14], [1e-7, 1e-7]);
}

/// Most gradients are 0 or negative, as behind a ReLU, or all are; rows of packs and of values.
#[test]
fn gradients_of_0_count_nothing() {
    let Some(mut stream) = gpu() else { return };
    for voxels in [33, 64, 1025, 1028] {
        let shape = Shape::new(1, 4, [1, 1, voxels]).unwrap();
        let a = absolute(&values::<f32>(shape.elements(), 1.0, 5));
        let g = values::<f32>(shape.elements(), 1e-3, 7);
        let sparse: Vec<f32> =
            g.iter().enumerate().map(|(i, &g)| if i % 3 == 0 { g } else { 0.0 }).collect();
        let negative: Vec<f32> = g.iter().map(|g| -g.abs()).collect();
        let none = vec![-0.0; g.len()];
        for (layout, denominator) in LAYOUTS.into_iter().flat_map(|l| DENOMINATORS.map(|d| (l, d)))
        {
            let settings = (shape, layout, denominator);
            check_values(&mut stream, [&a, &sparse], settings);
            for g in [&negative, &none] {
                assert_eq!(run(&mut stream, [&a, g], settings, [0, 0]), [0.0; 4], "{settings:?}");
            }
        }
    }
}

/// Without a positive gradient no term knows of the denominator, which makes the weight NaN all the
/// same.
#[test]
fn a_denominator_that_is_not_finite_is_seen_without_positive_gradients() {
    let Some(mut stream) = gpu() else { return };
    for (bad, gradient) in
        [(f32::NAN, -1.0), (f32::INFINITY, -1.0), (f32::NEG_INFINITY, -1.0), (f32::NAN, 0.0)]
    {
        let shape = Shape::new(1, 3, [1, 1, 33]).unwrap();
        let g = vec![gradient; shape.elements()];
        for (layout, denominator) in LAYOUTS.into_iter().flat_map(|l| DENOMINATORS.map(|d| (l, d)))
        {
            let mut a = vec![1.0_f32; shape.elements()];
            a[if layout == Layout::Contiguous { 65 } else { 3 * 32 + 1 }] = bad;
            let weights = run(&mut stream, [&a, &g], (shape, layout, denominator), [0, 0]);
            let finite: Vec<_> = weights.iter().map(|weight| weight.is_finite()).collect();
            assert_eq!(finite, [true, false, true], "{bad} {layout:?} {denominator:?}");
        }
    }
}

/// The numbers of `src/ops/alpha_weights/cpu.rs`.
#[test]
fn weights_by_hand() {
    let Some(mut stream) = gpu() else { return };
    let a = vec![1.0_f32, 2.0, 3.0, 0.0];
    let cases = [
        (a.clone(), vec![1.0, 5.0, -3.0, 0.0], Denominator::Paper, 0.28125),
        (a, vec![1.0, 0.0, -1.0, 0.0], Denominator::M3dCam, 1.0),
        (vec![1.0, 0.5, 0.0], vec![4.0, -4.0, 0.0], Denominator::M3dCam, 1.0),
        // Denominators that are 0.
        (vec![-8.0, 0.0], vec![0.25, 0.0], Denominator::Paper, 0.015_625),
        (vec![-2.0, 0.0], vec![1.0, 0.0], Denominator::Paper, 1.0),
        // No gradient is positive, and a gradient of 1 would make the denominator 0.
        (vec![-2.0, 0.0], vec![-1.0, 0.0], Denominator::Paper, 0.0),
        (vec![2.0, 0.0], vec![-1.0, -1e30], Denominator::M3dCam, 0.0),
    ];
    for (a, g, denominator, expected) in cases {
        let shape = Shape::new(1, 1, [1, 1, a.len()]).unwrap();
        let settings = (shape, Layout::Contiguous, denominator);
        assert_eq!(run(&mut stream, [&a, &g], settings, [0, 0]), [expected], "{a:?} {g:?}");
    }
}

/// The numbers of `src/ops/alpha_weights/cpu.rs`: an epsilon over `G^2` is `1e-6 * 2^20` or
/// `1e-7 * 2^20`.
#[test]
fn weights_with_an_epsilon_by_hand() {
    let Some(mut stream) = gpu() else { return };
    let (paper, m3d_cam) = (Denominator::PaperEpsilon, Denominator::M3dCamEpsilon);
    let g = 2.0_f32.powi(-10);
    for (a, g, denominator, expected) in [
        ([1024.0, 0.0], [g, 0.0], paper, f64::from(g) / 4.048_576),
        ([1024.0, 0.0], [g, 0.0], m3d_cam, f64::from(g) / 3.104_857_6),
        // The epsilon alone is the denominator.
        ([-2048.0, 0.0], [g, 0.0], paper, f64::from(g) / 1.048_576),
        ([-2048.0, 0.0], [g, 0.0], m3d_cam, f64::from(g) / 0.104_857_6),
        // Beside the epsilon, tiny gradients count nothing.
        ([1.0, 1.0], [1e-30, 1e-45], paper, 0.0),
        ([1.0, 1.0], [1e-30, 1e-45], m3d_cam, 0.0),
    ] {
        let settings = (Shape::new(1, 1, [1, 1, 2]).unwrap(), Layout::Contiguous, denominator);
        let found = run(&mut stream, [&a, &g], settings, [0, 0]);
        assert_close(&found, &[expected], |_| TOLERANCE * expected);
    }
    // Three activations whose sum, which f32 does not hold, brings the denominator to 0: alpha = G^2.
    for (denominator, exponent) in [(paper, -11), (m3d_cam, -12)] {
        let g = 2.0_f32.powi(exponent);
        let sum = -(2.0 + denominator.epsilon() / f64::from(g * g)) / f64::from(g);
        let mut rest = sum;
        let a = [(); 3].map(|()| {
            #[expect(clippy::cast_possible_truncation, reason = "the next part is the rest")]
            let part = rest as f32;
            rest -= f64::from(part);
            part
        });
        let settings = (Shape::new(1, 1, [1, 1, 3]).unwrap(), Layout::Contiguous, denominator);
        let found = run(&mut stream, [&a[..], &[g; 3]], settings, [0, 0]);
        assert_eq!(found, [3.0 * g * g * g]);
    }
}

#[test]
fn a_value_that_is_not_finite_spoils_its_channel_alone() {
    let Some(mut stream) = gpu() else { return };
    for (voxels, bad) in
        [(33, f32::NAN), (33, f32::NEG_INFINITY), (1025, f32::INFINITY), (1025, f32::NAN)]
    {
        let shape = Shape::new(1, 3, [1, 1, voxels]).unwrap();
        let ones = vec![1.0_f32; shape.elements()];
        for (layout, denominator) in LAYOUTS.into_iter().flat_map(|l| DENOMINATORS.map(|d| (l, d)))
        {
            let contiguous = layout == Layout::Contiguous;
            let mut spoilt = ones.clone();
            spoilt[if contiguous { 2 * voxels - 1 } else { 3 * (voxels - 1) + 1 }] = bad;
            for pair in [[&ones[..], &spoilt], [&spoilt, &ones]] {
                let weights = run(&mut stream, pair, (shape, layout, denominator), [0, 0]);
                let finite: Vec<_> = weights.iter().map(|weight| weight.is_finite()).collect();
                assert_eq!(finite, [true, false, true], "{bad} {layout:?} {denominator:?}");
            }
        }
    }
}

#[test]
fn arguments_must_fit() {
    let Some(stream) = gpu() else { return };
    let data = stream.upload(&[0.0_f32; 8]).unwrap();
    let view = |shape, layout| DeviceView::new(data.slice(), shape, layout).unwrap();
    let shape = Shape::new(1, 2, [1, 2, 2]).unwrap();
    let other = Shape::new(1, 4, [1, 2, 1]).unwrap();
    let message = |gradient: &DeviceView<f32>, weights: usize| {
        let mut weights = stream.allocate::<f32>(weights).unwrap();
        let activation = view(shape, Layout::Contiguous);
        let (paper, slice) = (Denominator::Paper, weights.slice_mut());
        let error = cuda::alpha_weights(&stream, &activation, gradient, paper, slice).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    for (gradient, weights, part) in [
        (view(other, Layout::Contiguous), 2, "alpha_weights: gradient: its shape"),
        (view(shape, Layout::ChannelsLast), 2, "alpha_weights: gradient: its layout"),
        (
            view(shape, Layout::Contiguous),
            3,
            "alpha_weights: weights: (1, 2, 1, 2, 2) takes 2 values (B·C)",
        ),
    ] {
        let message = message(&gradient, weights);
        assert!(message.starts_with(part), "{message}");
    }
}
