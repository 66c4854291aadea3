//! The projection, and the mean of the channels, against their references.

use half::{bf16, f16};
use medcam::device::Stream;
use medcam::element::Element;
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::project::{
    TOLERANCE, channel_mean_reference, cuda, reference, weighted_sum_reference,
};
use medcam::ops::{DeviceView, View};
use medcam::{Layout, Shape};

use crate::common::{Results, Shifted, expected_extremes, gpu, of_samples, run_repeatedly};
use crate::on_the_cpu::{LAYOUTS, absolute, assert_close, values, wide};

/// The projection with `weights`, or the mean of the channels, and the extremes; the addresses of
/// tensor, weights and map are shifted by `skipped` values.
fn run<T: Element>(
    stream: &mut Stream,
    weights: Option<&[f32]>,
    data: &[T],
    (shape, layout): (Shape, Layout),
    skipped: usize,
) -> (Vec<f32>, Vec<DeviceExtremes>) {
    stream.release_scratch();
    let tensor = Shifted::new(stream, data, skipped);
    let tensor = tensor.view(shape, layout);
    let weights = weights.map(|weights| Shifted::new(stream, weights, skipped));
    let count = shape.batch * shape.voxels();
    let mut map = stream.upload(&vec![9.0_f32; skipped + count + 3]).unwrap();
    let mut extremes = stream.upload(&vec![DeviceExtremes::default(); shape.batch]).unwrap();
    let mut whole_map = map.slice_mut();
    let part = whole_map.part(skipped..skipped + count).unwrap();
    match &weights {
        Some(weights) => {
            cuda::project(stream, weights.slice(), &tensor, part, extremes.slice_mut()).unwrap();
        }
        None => cuda::channel_mean(stream, &tensor, part, extremes.slice_mut()).unwrap(),
    }
    let found = stream.download(map.slice()).unwrap();
    // The memory around the map is unchanged.
    assert!(found[..skipped].iter().chain(&found[skipped + count..]).all(|&value| value == 9.0));
    (found[skipped..][..count].to_vec(), stream.download(extremes.slice()).unwrap())
}

/// The map of [`run`], which is the same again, at other addresses, and sample by sample.
fn checked_map<T: Element>(
    stream: &mut Stream,
    weights: Option<&[f32]>,
    data: &[T],
    shape: Shape,
    layout: Layout,
) -> Vec<f32> {
    let (place, batch) = (format!("{shape} {layout:?}"), shape.batch);
    let found = run_repeatedly(&place, batch, &[[1]], |samples, [skipped]| {
        let part = Shape { batch: samples.len(), ..shape };
        let weights = weights.map(|weights| of_samples(weights, batch, samples.clone()));
        let data = of_samples(data, batch, samples);
        let (map, extremes) = run(stream, weights, data, (part, layout), skipped);
        Results { values: vec![map], extremes }
    });
    let [map] = found.values.try_into().unwrap();
    assert_eq!(found.extremes, expected_extremes(&map, shape.voxels()), "{place}");
    map
}

fn check<T: Element>(stream: &mut Stream, extents: [usize; 5], magnitude: f32) {
    let [batch, channels, depth, height, width] = extents;
    let shape = Shape::new(batch, channels, [depth, height, width]).unwrap();
    let data = values::<T>(shape.elements(), magnitude, shape.elements() as u64);
    let weights = values::<f32>(batch * channels, 1.0, 3);
    for layout in LAYOUTS {
        let map = checked_map(stream, Some(&weights), &data, shape, layout);
        let exact = reference(&wide(&weights), &View::new(&data, shape, layout).unwrap());
        let absolute_data = absolute(&data);
        let absolute_view = View::new(&absolute_data, shape, layout).unwrap();
        let scale = reference(&wide(&absolute(&weights)), &absolute_view);
        // Each product may be rounded to a subnormal, half the least f32 away.
        let subnormal = 1e-45 * channels as f64;
        assert_close(&map, &exact, |i| TOLERANCE * scale[i] + subnormal);
    }
}

fn check_all_types(stream: &mut Stream, extents: [usize; 5]) {
    check::<f32>(stream, extents, 1.0);
    check::<f16>(stream, extents, 1.0);
    check::<bf16>(stream, extents, 1.0);
}

/// Tiles of a few voxels and of many, channels in slices and in splits.
#[test]
fn small_sums_of_any_shape() {
    let Some(mut stream) = gpu() else { return };
    for extents in [[1, 1, 1, 1, 1], [2, 3, 1, 3, 11], [1, 131, 1, 2, 4]] {
        check_all_types(&mut stream, extents);
    }
    check::<f32>(&mut stream, [2, 40, 1, 1, 600], 1.0);
    check::<f16>(&mut stream, [1, 40, 1, 1, 264], 1.0);
}

#[test]
fn sums_of_few_voxels() {
    let Some(mut stream) = gpu() else { return };
    for voxels in [1, 31, 32, 33, 49] {
        for (batch, channels) in [(3, 1), (1, 3), (1, 257)] {
            check::<f32>(&mut stream, [batch, channels, 1, 1, voxels], 1.0);
        }
        check::<bf16>(&mut stream, [3, 3, 1, 1, voxels], 1.0);
        check::<f16>(&mut stream, [1, 64, 1, 1, voxels], 1.0);
    }
}

/// The largest number of channels for which the tolerance is proven.
#[test]
fn sums_of_many_channels() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [2, 2048, 1, 7, 7], 1.0);
    check::<f16>(&mut stream, [1, 2048, 1, 7, 7], 1.0);
}

/// Small maps, whose channels are split among many blocks: also where splits or slices have fewer
/// channels than others, or none.
#[test]
fn sums_of_small_maps() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [2, 320, 8, 8, 8], 1.0);
    check::<f16>(&mut stream, [1, 320, 8, 8, 8], 1.0);
    check::<bf16>(&mut stream, [1, 320, 6, 6, 6], 1.0);
    for channels in [1, 7, 32, 33, 36, 37, 261, 321] {
        for voxels in [4, 7, 264, 265] {
            check::<f32>(&mut stream, [2, channels, 1, 1, voxels], 1.0);
        }
        check::<f16>(&mut stream, [1, channels, 1, 1, 264], 1.0);
    }
}

#[test]
fn sums_of_many_voxels() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [3, 3, 1, 1, 1023], 1.0);
    check::<f16>(&mut stream, [1, 64, 1, 1, 1025], 1.0);
    check::<bf16>(&mut stream, [1, 257, 1, 1, 1023], 1.0);
    check_all_types(&mut stream, [1, 3, 12, 13, 14]);
    check::<f32>(&mut stream, [1, 64, 12, 13, 14], 1.0);
    check::<bf16>(&mut stream, [3, 64, 12, 13, 14], 1.0);
}

#[test]
fn sums_with_their_sign() {
    let Some(mut stream) = gpu() else { return };
    for (batch, channels, voxels) in [(1, 1, 31), (3, 3, 1023), (1, 64, 2184), (2, 257, 49)] {
        let shape = Shape::new(batch, channels, [1, 1, voxels]).unwrap();
        let data = values::<f32>(shape.elements(), 1.0, 5);
        let weights = values::<f32>(batch * channels, 1.0, 3);
        let (absolute_data, absolute_weights) = (absolute(&data), absolute(&weights));
        for layout in LAYOUTS {
            stream.release_scratch();
            let (on_gpu, of_channels) = (stream.upload(&data), stream.upload(&weights));
            let (on_gpu, of_channels) = (on_gpu.unwrap(), of_channels.unwrap());
            let tensor = DeviceView::new(on_gpu.slice(), shape, layout).unwrap();
            let mut map = stream.upload(&vec![9.0_f32; batch * voxels]).unwrap();
            let mut extremes = stream.upload(&vec![DeviceExtremes::default(); batch]).unwrap();
            let (room, found) = (map.slice_mut(), extremes.slice_mut());
            cuda::weighted_sum(&stream, of_channels.slice(), &tensor, room, found).unwrap();
            let map = stream.download(map.slice()).unwrap();
            let found = stream.download(extremes.slice()).unwrap();
            assert_eq!(found, expected_extremes(&map, voxels), "{shape} {layout:?}");
            let view = View::new(&data, shape, layout).unwrap();
            let exact = weighted_sum_reference(&wide(&weights), &view);
            assert!(exact.iter().any(|&sum| sum < 0.0));
            let view = View::new(&absolute_data, shape, layout).unwrap();
            let scale = weighted_sum_reference(&wide(&absolute_weights), &view);
            assert_close(&map, &exact, |i| TOLERANCE * scale[i]);
        }
    }
}

#[test]
fn means_of_the_channels() {
    let Some(mut stream) = gpu() else { return };
    let stream = &mut stream;
    for (batch, channels, voxels) in [(1, 1, 31), (3, 3, 1023), (1, 64, 2184), (2, 257, 49)] {
        let shape = Shape::new(batch, channels, [1, 1, voxels]).unwrap();
        let data = values::<f32>(shape.elements(), 1.0, 11);
        let absolute_data = absolute(&data);
        for layout in LAYOUTS {
            let map = checked_map(stream, None, &data, shape, layout);
            let exact = channel_mean_reference(&View::new(&data, shape, layout).unwrap());
            let scale = View::new(&absolute_data, shape, layout).unwrap();
            let scale = channel_mean_reference(&scale);
            assert_close(&map, &exact, |i| TOLERANCE * scale[i]);
        }
    }
}

/// Enough voxels that each thread reads several, and each block takes several steps.
#[test]
fn sums_of_very_many_voxels() {
    let Some(mut stream) = gpu() else { return };
    check::<f32>(&mut stream, [1, 72, 1, 1, 8500], 1.0);
    check::<bf16>(&mut stream, [1, 136, 1, 1, 8500], 1.0);
    check::<f16>(&mut stream, [1, 17, 1, 1, 66_001], 1.0);
}

#[test]
fn huge_and_tiny_values_keep_their_digits() {
    let Some(mut stream) = gpu() else { return };
    for extents in [[1, 3, 1, 3, 11], [1, 40, 1, 13, 14]] {
        for magnitude in [1e30, 1e-38, 0.0] {
            check::<f32>(&mut stream, extents, magnitude);
            check::<bf16>(&mut stream, extents, magnitude);
        }
        check::<f16>(&mut stream, extents, 6e4);
        check::<f16>(&mut stream, extents, 1e-7);
    }
}

#[test]
fn what_is_not_finite_is_counted_before_relu_and_nan_stays() {
    let Some(mut stream) = gpu() else { return };
    for layout in LAYOUTS {
        let shape = Shape::new(2, 4, [1, 1, 37]).unwrap();
        let mut data = vec![-1.0_f32; shape.elements()];
        let place = |channel: usize, n: usize| match layout {
            Layout::Contiguous => channel * 37 + n,
            Layout::ChannelsLast => n * 4 + channel,
        };
        for (n, bad) in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 9.0].into_iter().enumerate() {
            data[place(n, 3 * n)] = bad;
        }
        let weights = [1.0; 8];
        let (map, extremes) = run(&mut stream, Some(&weights), &data, (shape, layout), 0);
        assert!(map[0].is_nan());
        assert_eq!([map[3], map[6], map[9]], [0.0, f32::INFINITY, 6.0]);
        let first = DeviceExtremes { maximum: 6.0, not_finite: 3, ..DeviceExtremes::default() };
        assert_eq!(extremes, [first, DeviceExtremes::default()]);

        let (map, extremes) = run(&mut stream, None, &data, (shape, layout), 0);
        assert!(map[0].is_nan());
        assert_eq!([map[3], map[6], map[9]], [f32::NEG_INFINITY, f32::INFINITY, 1.5]);
        let first = DeviceExtremes { minimum: -1.0, maximum: 1.5, not_finite: 3, unused: 0 };
        let second = DeviceExtremes { maximum: -1.0, not_finite: 0, ..first };
        assert_eq!(extremes, [first, second]);
    }
}

#[test]
fn nothing_finite_has_an_empty_range() {
    let Some(mut stream) = gpu() else { return };
    let shape = Shape::new(1, 1, [1, 1, 2]).unwrap();
    let data = [f32::NAN, f32::INFINITY];
    let settings = (shape, Layout::Contiguous);
    let (_, extremes) = run(&mut stream, Some(&[1.0]), &data, settings, 0);
    let (minimum, maximum) = (f32::INFINITY, f32::NEG_INFINITY);
    assert_eq!(extremes, [DeviceExtremes { minimum, maximum, not_finite: 2, unused: 0 }]);
}

#[test]
fn lengths_must_be_those_of_the_shape() {
    let Some(stream) = gpu() else { return };
    let tensor = stream.upload(&[0.0_f32; 12]).unwrap();
    let shape = Shape::new(2, 2, [1, 1, 3]).unwrap();
    let tensor = DeviceView::new(tensor.slice(), shape, Layout::Contiguous).unwrap();
    let message = |weights: usize, map: usize, samples: usize| {
        let weights = stream.allocate::<f32>(weights).unwrap();
        let mut map = stream.allocate::<f32>(map).unwrap();
        let mut extremes = stream.allocate::<DeviceExtremes>(samples).unwrap();
        let (map, extremes) = (map.slice_mut(), extremes.slice_mut());
        let result = cuda::project(&stream, weights.slice(), &tensor, map, extremes);
        let error = result.unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    for (lengths, expected) in [
        ([3, 6, 2], "project: weights: (2, 2, 1, 1, 3) takes 4 values (B·C), it has 3"),
        ([4, 5, 2], "project: map: (2, 2, 1, 1, 3) takes 6 values (B·D·H·W), it has 5"),
        ([4, 6, 1], "project: extremes: a batch of 2 takes 2 values (B), it has 1"),
    ] {
        let [weights, map, samples] = lengths;
        assert_eq!(message(weights, map, samples), expected);
    }
    let mut map = stream.allocate::<f32>(5).unwrap();
    let mut extremes = stream.allocate::<DeviceExtremes>(2).unwrap();
    let (map, extremes) = (map.slice_mut(), extremes.slice_mut());
    let error = cuda::channel_mean(&stream, &tensor, map, extremes).unwrap_err();
    assert!(error.to_string().starts_with("channel_mean: map: "), "{error}");
}
