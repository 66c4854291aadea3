//! HiResCAM and LayerCAM against their references.

use half::{bf16, f16};
use medcam::device::Stream;
use medcam::element::Element;
use medcam::ops::elementwise::{TOLERANCE, cuda, reference};
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::{DeviceView, Elementwise, View};
use medcam::{Layout, Shape};

use crate::common::{Results, Shifted, expected_extremes, gpu, of_samples, run_repeatedly};
use crate::on_the_cpu::{LAYOUTS, absolute, assert_close, values};

const METHODS: [Elementwise; 2] = [Elementwise::HiResCam, Elementwise::LayerCam];

/// The map and its extremes; the addresses of both tensors are shifted by `skipped` values.
fn run<T: Element>(
    stream: &mut Stream,
    [a, g]: [&[T]; 2],
    (shape, layout, method): (Shape, Layout, Elementwise),
    skipped: [usize; 2],
) -> (Vec<f32>, Vec<DeviceExtremes>) {
    stream.release_scratch();
    let (a, g) = (Shifted::new(stream, a, skipped[0]), Shifted::new(stream, g, skipped[1]));
    let (a, g) = (a.view(shape, layout), g.view(shape, layout));
    let mut map = stream.upload(&vec![9.0; shape.batch * shape.voxels()]).unwrap();
    let mut extremes = stream.upload(&vec![DeviceExtremes::default(); shape.batch]).unwrap();
    cuda::elementwise(stream, &a, &g, method, map.slice_mut(), extremes.slice_mut()).unwrap();
    (stream.download(map.slice()).unwrap(), stream.download(extremes.slice()).unwrap())
}

fn check<T: Element>(stream: &mut Stream, extents: [usize; 5], magnitudes: [f32; 2]) {
    let [batch, channels, depth, height, width] = extents;
    let shape = Shape::new(batch, channels, [depth, height, width]).unwrap();
    let a = values::<T>(shape.elements(), magnitudes[0], 5);
    let g = values::<T>(shape.elements(), magnitudes[1], shape.elements() as u64);
    let (absolute_a, absolute_g) = (absolute(&a), absolute(&g));
    for (layout, method) in LAYOUTS.into_iter().flat_map(|l| METHODS.map(|method| (l, method))) {
        let place = format!("{shape} {layout:?} {method:?}");
        let found = run_repeatedly(&place, batch, &[[1, 0]], |samples, skipped| {
            let part = Shape { batch: samples.len(), ..shape };
            let tensors = [&a, &g].map(|data| of_samples(data, batch, samples.clone()));
            let (map, extremes) = run(stream, tensors, (part, layout, method), skipped);
            Results { values: vec![map], extremes }
        });
        let map = &found.values[0];
        let view = |data| View::new(data, shape, layout).unwrap();
        let exact = reference(&view(&a), &view(&g), method);
        let scale = reference(&view(&absolute_a), &view(&absolute_g), Elementwise::HiResCam);
        // Each product may be rounded to a subnormal, half the least f32 away.
        let subnormal = 1e-45 * channels as f64;
        assert_close(map, &exact, |i| TOLERANCE * scale[i] + subnormal);
        assert_eq!(found.extremes, expected_extremes(map, shape.voxels()), "{place}");
    }
}

fn check_all_types(stream: &mut Stream, extents: [usize; 5]) {
    check::<f32>(stream, extents, [1.0, 1.0]);
    check::<f16>(stream, extents, [1.0, 1.0]);
    check::<bf16>(stream, extents, [1.0, 1.0]);
}

/// Tiles of a few voxels and of many, channels in slices and in splits.
#[test]
fn small_maps_of_any_shape() {
    let Some(mut stream) = gpu() else { return };
    for extents in [[1, 1, 1, 1, 1], [2, 3, 1, 3, 11], [1, 131, 1, 2, 4]] {
        check::<f32>(&mut stream, extents, [1.0, 1.0]);
    }
    check::<f16>(&mut stream, [1, 40, 1, 1, 264], [1.0, 1.0]);
}

#[test]
fn maps_of_few_voxels() {
    let Some(mut stream) = gpu() else { return };
    for voxels in [1, 31, 32, 33] {
        for (batch, channels) in [(3, 1), (1, 3), (1, 257)] {
            check::<f32>(&mut stream, [batch, channels, 1, 1, voxels], [1.0, 1.0]);
        }
        check::<bf16>(&mut stream, [3, 3, 1, 1, voxels], [1.0, 1.0]);
        check::<f16>(&mut stream, [1, 64, 1, 1, voxels], [1.0, 1.0]);
    }
}

/// Small maps, whose channels are split among many blocks.
#[test]
fn small_maps_of_many_channels() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [2, 320, 1, 8, 8], [1.0, 1.0]);
    for channels in [33, 37, 261] {
        for voxels in [7, 264] {
            check::<f32>(&mut stream, [2, channels, 1, 1, voxels], [1.0, 1.0]);
        }
        check::<f16>(&mut stream, [1, channels, 1, 1, 264], [1.0, 1.0]);
    }
}

#[test]
fn maps_of_many_voxels() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [3, 3, 1, 1, 1023], [1.0, 1.0]);
    check::<f16>(&mut stream, [1, 64, 1, 1, 1025], [1.0, 1.0]);
    check_all_types(&mut stream, [1, 3, 12, 13, 14]);
    check::<bf16>(&mut stream, [1, 64, 12, 13, 14], [1.0, 1.0]);
}

/// Enough voxels that each thread reads two at a time.
#[test]
fn maps_of_very_many_voxels() {
    let Some(mut stream) = gpu() else { return };
    check::<bf16>(&mut stream, [1, 136, 1, 1, 4400], [1.0, 1.0]);
}

/// The largest number of channels for which the tolerance is proven.
#[test]
fn maps_of_many_channels() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [1, 2048, 1, 7, 7], [1.0, 1.0]);
}

#[test]
fn huge_and_tiny_values_keep_their_digits() {
    let Some(mut stream) = gpu() else { return };
    for magnitudes in [[1e15, 1e20], [1.0, 1e30], [1e-10, 1e-28], [1.0, 1e-38], [0.0, 1.0]] {
        check::<f32>(&mut stream, [1, 3, 1, 3, 11], magnitudes);
        check::<bf16>(&mut stream, [1, 40, 1, 13, 14], magnitudes);
    }
    check::<f16>(&mut stream, [1, 40, 1, 13, 14], [6e4, 1e-7]);
}

/// As in `src/ops/elementwise/cpu.rs`, in both layouts.
#[test]
fn not_finite_is_counted_also_behind_a_gradient_that_is_left_out() {
    let Some(mut stream) = gpu() else { return };
    for (layout, method) in LAYOUTS.into_iter().flat_map(|l| METHODS.map(|method| (l, method))) {
        let shape = Shape::new(1, 2, [1, 1, 40]).unwrap();
        let (mut a, mut g) = (vec![1.0_f32; 80], vec![1.0_f32; 80]);
        let place = |n: usize| if layout == Layout::Contiguous { 40 + n } else { 2 * n + 1 };
        g[place(0)] = f32::NEG_INFINITY;
        g[place(1)] = f32::NAN;
        (a[place(39)], g[place(39)]) = (f32::INFINITY, -1.0);
        let (map, extremes) = run(&mut stream, [&a, &g], (shape, layout, method), [0, 0]);
        assert_eq!(map[2..39], [2.0; 37]);
        assert!(map[1].is_nan());
        // HiResCAM's sum is -inf in both places, LayerCAM's NaN.
        let hires = method == Elementwise::HiResCam;
        assert!([map[0], map[39]].iter().all(|&v| if hires { v == 0.0 } else { v.is_nan() }));
        let minimum = if hires { 0.0 } else { 2.0 };
        let expected = DeviceExtremes { minimum, maximum: 2.0, not_finite: 3, unused: 0 };
        assert_eq!(extremes, [expected], "{layout:?} {method:?}");
    }
}

#[test]
fn arguments_must_fit() {
    let Some(stream) = gpu() else { return };
    let data = stream.upload(&[0.0_f32; 8]).unwrap();
    let view = |shape, layout| DeviceView::new(data.slice(), shape, layout).unwrap();
    let shape = Shape::new(1, 2, [1, 2, 2]).unwrap();
    let other = Shape::new(1, 4, [1, 2, 1]).unwrap();
    let message = |gradient: &DeviceView<f32>, map: usize| {
        let mut map = stream.allocate::<f32>(map).unwrap();
        let mut extremes = stream.allocate::<DeviceExtremes>(1).unwrap();
        let (map, extremes) = (map.slice_mut(), extremes.slice_mut());
        let activation = view(shape, Layout::ChannelsLast);
        let method = Elementwise::HiResCam;
        let result = cuda::elementwise(&stream, &activation, gradient, method, map, extremes);
        let error = result.unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    for (gradient, map, part) in [
        (view(other, Layout::ChannelsLast), 4, "elementwise: gradient: its shape (1, 4, 1, 2, 1)"),
        (view(shape, Layout::Contiguous), 4, "elementwise: gradient: its layout is Contiguous"),
        (
            view(shape, Layout::ChannelsLast),
            3,
            "elementwise: map: (1, 2, 1, 2, 2) takes 4 values (B·D·H·W)",
        ),
    ] {
        let message = message(&gradient, map);
        assert!(message.starts_with(part), "{message}");
    }
}
