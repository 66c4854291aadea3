//! Channel weights against the reference.

use half::{bf16, f16};
use medcam::device::Stream;
use medcam::element::Element;
use medcam::ops::channel_weights::{TOLERANCE, cuda, reference};
use medcam::ops::{DeviceView, View};
use medcam::{Layout, Shape};

use crate::common::{Results, Shifted, gpu, of_samples, run_repeatedly};
use crate::on_the_cpu::{LAYOUTS, absolute, assert_close, values};

/// Weights and magnitudes of the gradient `data`, at an address shifted by `skipped` values.
fn run<T: Element>(
    stream: &mut Stream,
    data: &[T],
    shape: Shape,
    layout: Layout,
    skipped: usize,
) -> [Vec<f32>; 2] {
    stream.release_scratch();
    let gradient = Shifted::new(stream, data, skipped);
    let gradient = gradient.view(shape, layout);
    let rows = shape.batch * shape.channels;
    let mut results = [9.0, 9.0].map(|fill| stream.upload(&vec![fill; rows]).unwrap());
    let [weights, magnitudes] = &mut results;
    cuda::channel_weights(stream, &gradient, weights.slice_mut(), magnitudes.slice_mut()).unwrap();
    results.map(|result| stream.download(result.slice()).unwrap())
}

fn check_values<T: Element>(stream: &mut Stream, data: &[T], shape: Shape, layout: Layout) {
    let place = format!("{shape} {layout:?}");
    let found = run_repeatedly(&place, shape.batch, &[[1]], |samples, [skipped]| {
        let part = Shape { batch: samples.len(), ..shape };
        let data = of_samples(data, shape.batch, samples);
        let values = run(stream, data, part, layout, skipped).to_vec();
        Results { values, extremes: Vec::new() }
    });
    let exact = reference(&View::new(data, shape, layout).unwrap());
    let scale = reference(&View::new(&absolute(data), shape, layout).unwrap());
    assert_close(&found.values[0], &exact, |i| TOLERANCE * scale[i]);
    assert_close(&found.values[1], &scale, |i| TOLERANCE * scale[i]);
}

fn check<T: Element>(stream: &mut Stream, extents: [usize; 5], magnitude: f32) {
    let [batch, channels, depth, height, width] = extents;
    let shape = Shape::new(batch, channels, [depth, height, width]).unwrap();
    for layout in LAYOUTS {
        let data = values::<T>(shape.elements(), magnitude, shape.elements() as u64);
        check_values(stream, &data, shape, layout);
    }
}

fn check_all_types(stream: &mut Stream, extents: [usize; 5]) {
    check::<f32>(stream, extents, 1.0);
    check::<f16>(stream, extents, 1.0);
    check::<bf16>(stream, extents, 1.0);
}

/// Rows of a few values, of a warp, of a block and of two; strips of voxels.
#[test]
fn small_means_of_any_shape() {
    let Some(mut stream) = gpu() else { return };
    for extents in [[1, 1, 1, 1, 1], [3, 3, 1, 3, 11], [1, 3, 1, 1, 1025]] {
        check_all_types(&mut stream, extents);
    }
    check::<f32>(&mut stream, [2, 3, 1, 1, 64], 1.0);
    check::<f32>(&mut stream, [2, 3, 1, 1, 1028], 1.0);
    check::<f32>(&mut stream, [2, 4, 1, 1, 513], 1.0);
    check::<f16>(&mut stream, [1, 8, 1, 1, 513], 1.0);
    check::<f32>(&mut stream, [2, 1, 1, 1, 4097], 1.0);
}

/// Rows of whole packs (in f32, or in all types) and of single values, at aligned addresses and others.
#[test]
fn means_of_rows_of_packs_and_of_values() {
    let Some(mut stream) = gpu() else { return };
    for voxels in [2, 4, 8, 20, 36, 64, 510, 512, 513, 1000, 1023, 1024] {
        check_all_types(&mut stream, [2, 3, 1, 1, voxels]);
    }
    // Up to three values behind whole packs, and rounds that no, some and all threads fill.
    for voxels in [1026, 1027, 1028, 2184, 4096, 4099, 8192, 8195] {
        check_all_types(&mut stream, [2, 3, 1, 1, voxels]);
    }
}

#[test]
fn means_of_few_voxels() {
    let Some(mut stream) = gpu() else { return };
    for voxels in [1, 31, 32, 33, 49] {
        for (batch, channels) in [(3, 1), (1, 3), (1, 257)] {
            check::<f32>(&mut stream, [batch, channels, 1, 1, voxels], 1.0);
        }
        check::<bf16>(&mut stream, [3, 3, 1, 1, voxels], 1.0);
        check::<f16>(&mut stream, [1, 64, 1, 1, voxels], 1.0);
    }
}

#[test]
fn means_of_many_voxels() {
    let Some(mut stream) = gpu() else { return };
    for (batch, channels, voxels) in [(3, 3, 1023), (3, 3, 1025), (1, 64, 1025)] {
        check_all_types(&mut stream, [batch, channels, 1, 1, voxels]);
    }
    check::<f32>(&mut stream, [1, 257, 1, 1, 1023], 1.0);
    check_all_types(&mut stream, [1, 3, 12, 13, 14]);
    check::<f16>(&mut stream, [1, 64, 12, 13, 14], 1.0);
}

/// Several segments and strips, and more than one round of loads.
#[test]
fn means_across_blocks() {
    let Some(mut stream) = gpu() else { return };
    check_all_types(&mut stream, [2, 3, 1, 1, 20_001]);
    check::<f32>(&mut stream, [1, 1, 1, 2, 2_100_000], 1.0);
    check::<f16>(&mut stream, [1, 24, 1, 1, 40_008], 1.0);
}

#[test]
fn huge_and_tiny_values_keep_their_digits() {
    let Some(mut stream) = gpu() else { return };
    for extents in [[1, 3, 1, 3, 11], [1, 4, 12, 13, 14]] {
        for magnitude in [1e30, 1e-38, 0.0] {
            check::<f32>(&mut stream, extents, magnitude);
            check::<bf16>(&mut stream, extents, magnitude);
        }
        check::<f16>(&mut stream, extents, 6e4);
        check::<f16>(&mut stream, extents, 1e-7);
    }
}

#[test]
fn the_mean_of_a_constant_is_itself() {
    let Some(mut stream) = gpu() else { return };
    for (layout, voxels) in LAYOUTS.into_iter().flat_map(|layout| [(layout, 49), (layout, 2184)]) {
        let shape = Shape::new(1, 4, [1, 1, voxels]).unwrap();
        let data = vec![-0.75_f32; shape.elements()];
        let found = run(&mut stream, &data, shape, layout, 0);
        assert_eq!(found, [vec![-0.75; 4], vec![0.75; 4]]);
    }
}

#[test]
fn a_value_that_is_not_finite_spoils_its_channel_alone() {
    let Some(mut stream) = gpu() else { return };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (layout, voxels) in LAYOUTS.into_iter().flat_map(|l| [(l, 33), (l, 1025)]) {
            let shape = Shape::new(1, 3, [1, 1, voxels]).unwrap();
            let mut data = vec![1.0_f32; shape.elements()];
            let contiguous = layout == Layout::Contiguous;
            data[if contiguous { 2 * voxels - 1 } else { 3 * (voxels - 1) + 1 }] = bad;
            let [weights, magnitudes] = run(&mut stream, &data, shape, layout, 0);
            assert_eq!([weights[0], weights[2], magnitudes[0], magnitudes[2]], [1.0; 4]);
            assert_eq!(weights[1].to_string(), bad.to_string());
            assert_eq!(magnitudes[1].to_string(), bad.abs().to_string());
        }
    }
}

#[test]
fn there_must_be_room_for_each_channel() {
    let Some(stream) = gpu() else { return };
    let gradient = stream.upload(&[0.0_f32; 8]).unwrap();
    let shape = Shape::new(2, 2, [1, 1, 2]).unwrap();
    let gradient = DeviceView::new(gradient.slice(), shape, Layout::Contiguous).unwrap();
    let [mut three, mut four] = [3, 4].map(|len| stream.allocate::<f32>(len).unwrap());
    let error =
        cuda::channel_weights(&stream, &gradient, three.slice_mut(), four.slice_mut()).unwrap_err();
    assert!(error.is_input());
    assert_eq!(
        error.to_string(),
        "channel_weights: weights: (2, 2, 1, 1, 2) takes 4 values (B·C), it has 3"
    );
    let error =
        cuda::channel_weights(&stream, &gradient, four.slice_mut(), three.slice_mut()).unwrap_err();
    assert!(error.to_string().starts_with("channel_weights: magnitudes: (2, 2,"), "{error}");
}
