use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::elementwise::{TOLERANCE, reference};
use medcam::ops::{Elementwise, View, elementwise};
use medcam::{Layout, Shape};
use proptest::prelude::*;

use crate::common::*;

const METHODS: [Elementwise; 2] = [Elementwise::HiResCam, Elementwise::LayerCam];

fn check<T: Element>(shape: Shape, gradients: f32, activations: f32, seed: u64) {
    let g = values::<T>(shape.elements(), gradients, seed);
    let a = values::<T>(shape.elements(), activations, !seed);
    let (absolute_g, absolute_a) = (absolute(&g), absolute(&a));
    for (layout, method) in LAYOUTS.into_iter().flat_map(|l| METHODS.map(|method| (l, method))) {
        let view = |data| View::new(data, shape, layout).unwrap();
        let (activation, gradient) = (view(&a), view(&g));
        let fast = on_any_threads(|| elementwise(&activation, &gradient, method).unwrap());
        let scale = reference(&view(&absolute_a), &view(&absolute_g), Elementwise::HiResCam);
        // Each product may be rounded to a subnormal, half the least f32 away.
        let subnormal = 1e-45 * shape.channels as f64;
        let exact = reference(&activation, &gradient, method);
        assert_close(&fast, &exact, |i| TOLERANCE * scale[i] + subnormal);
        let singles: Vec<f32> = (0..shape.batch)
            .flat_map(|b| {
                elementwise(&sample(&activation, b), &sample(&gradient, b), method).unwrap()
            })
            .collect();
        assert_eq!(bits(&fast), bits(&singles));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn fast_is_reference_f32(
        shape in shapes(), g in magnitudes(1e20, 1e-38), a in magnitudes(1e15, 1e-10), seed: u64,
    ) {
        check::<f32>(shape, g, a, seed);
    }

    #[test]
    fn fast_is_reference_f16(
        shape in shapes(), g in magnitudes(6e4, 1e-7), a in magnitudes(6e4, 1e-7), seed: u64,
    ) {
        check::<f16>(shape, g, a, seed);
    }

    #[test]
    fn fast_is_reference_bf16(
        shape in shapes(), g in magnitudes(1e20, 1e-38), a in magnitudes(1e15, 1e-10), seed: u64,
    ) {
        check::<bf16>(shape, g, a, seed);
    }
}

/// The largest number of channels for which the tolerance is proven.
#[test]
fn many_channels() {
    check::<f32>(Shape::new(2, 2048, [1, 7, 7]).unwrap(), 1.0, 1.0, 7);
}

#[test]
fn a_nan_stays_at_its_voxel() {
    let shape = Shape::new(1, 6, [1, 1, 37]).unwrap();
    let ones = vec![1.0_f32; shape.elements()];
    for (layout, method) in LAYOUTS.into_iter().flat_map(|l| METHODS.map(|method| (l, method))) {
        for c in 0..6 {
            let index = if layout == Layout::Contiguous { c * 37 + 36 } else { 36 * 6 + c };
            let mut spoilt = ones.clone();
            spoilt[index] = f32::NAN;
            for (a, g) in [(&ones, &spoilt), (&spoilt, &ones)] {
                let [a, g] = [a, g].map(|data| View::new(data, shape, layout).unwrap());
                let map = elementwise(&a, &g, method).unwrap();
                assert!(map[36].is_nan());
                assert_eq!(map[..36], [6.0; 36]);
            }
        }
    }
}

#[test]
fn shapes_and_layouts_must_be_the_same() {
    let shape = Shape::new(1, 2, [1, 2, 2]).unwrap();
    let other = Shape::new(1, 4, [1, 2, 1]).unwrap();
    let data = [0.0_f32; 8];
    let view = |shape, layout| View::new(&data, shape, layout).unwrap();
    let activation = view(shape, Layout::ChannelsLast);
    for (gradient, part) in [
        (view(other, Layout::ChannelsLast), "elementwise: gradient: its shape (1, 4, 1, 2, 1)"),
        (view(shape, Layout::Contiguous), "elementwise: gradient: its layout is Contiguous"),
    ] {
        let error = elementwise(&activation, &gradient, Elementwise::HiResCam).unwrap_err();
        assert!(error.is_input());
        assert!(error.to_string().starts_with(part), "{error}");
    }
}
