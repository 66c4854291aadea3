//! Summaries against their written truth: exact, as nothing is rounded but in one comparison.

use half::{bf16, f16};
use medcam::device::Stream;
use medcam::element::Element;
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::summary::cuda::summary;
use medcam::ops::summary::{SampleSummary, reference};
use medcam::ops::{DeviceView, Range, View};
use medcam::{Layout, Shape};

use crate::common::gpu;
use crate::on_the_cpu::values;

/// What one sample is to be like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Ordinary,
    /// A map of zeros; the gradient is 0 but for its last value.
    ZeroMap,
    /// A map and a gradient of zeros.
    ZeroGradient,
    /// Weights that are far below the magnitudes.
    Noise,
    NotFinite,
}

const KINDS: [Kind; 5] =
    [Kind::Ordinary, Kind::ZeroMap, Kind::ZeroGradient, Kind::Noise, Kind::NotFinite];

fn check<T: Element>(stream: &Stream, channels: usize, spatial: [usize; 3], seed: u64) {
    let shape = Shape::new(KINDS.len(), channels, spatial).unwrap();
    let of_sample = channels * shape.voxels();
    let mut gradient = values::<T>(shape.elements(), 1.0, seed);
    let mut weights = values::<f32>(KINDS.len() * channels, 1.0, seed.wrapping_add(1));
    let mut magnitudes = vec![2.0_f32; KINDS.len() * channels];
    let (mut layer, mut finished) = (Vec::new(), Vec::new());
    for (b, kind) in KINDS.iter().enumerate() {
        let mut range = DeviceExtremes { minimum: -0.5, maximum: 3.0, ..Default::default() };
        let gradient = &mut gradient[b * of_sample..][..of_sample];
        let weights = &mut weights[b * channels..][..channels];
        match kind {
            Kind::Ordinary => {}
            Kind::ZeroMap | Kind::ZeroGradient => {
                range = DeviceExtremes::default();
                gradient.fill(T::from_f32(-0.0));
                if *kind == Kind::ZeroMap {
                    // The least that the type holds.
                    gradient[of_sample - 1] = T::from_f32(6e-8);
                }
            }
            Kind::Noise => {
                weights.fill(1e-5);
                // Of equal weights the last counts: its magnitude decides.
                magnitudes[b * channels] = 1e9;
                magnitudes[(b + 1) * channels - 1] =
                    if seed.is_multiple_of(2) { 1.0 } else { 1e-3 };
            }
            Kind::NotFinite => {
                weights[channels - 1] = f32::NAN;
                weights[channels / 2] = f32::NEG_INFINITY;
                range.not_finite = 7;
            }
        }
        layer.push(DeviceExtremes { not_finite: range.not_finite + 1, ..range });
        finished.push(range);
    }
    let view = View::new(&gradient, shape, Layout::ChannelsLast).unwrap();
    let plain =
        |of: &DeviceExtremes| (Range { minimum: of.minimum, maximum: of.maximum }, of.not_finite);
    let plain = |all: &[DeviceExtremes]| all.iter().map(plain).collect::<Vec<_>>();
    let on_device = stream.upload(&gradient).unwrap();
    let on_device = DeviceView::new(on_device.slice(), shape, Layout::ChannelsLast).unwrap();
    let of = |values: &[f32]| stream.upload(values).unwrap();
    let (weights_there, magnitudes_there) = (of(&weights), of(&magnitudes));
    let [layer_there, finished_there] =
        [&layer, &finished].map(|extremes| stream.upload(extremes).unwrap());
    for (has_weights, has_magnitudes, has_gradient) in
        [(true, true, true), (true, false, true), (false, false, true), (true, true, false)]
    {
        let known =
            has_weights.then_some((&weights[..], has_magnitudes.then_some(&magnitudes[..])));
        let mut expected = reference(&view, known, &plain(&layer), &plain(&finished));
        if !has_gradient {
            expected.iter_mut().for_each(|of| of.zero_gradient = 0);
        }
        let there = has_weights
            .then(|| (weights_there.slice(), has_magnitudes.then(|| magnitudes_there.slice())));
        let mut found =
            stream.upload(&[SampleSummary { unused: 9, ..Default::default() }; 5]).unwrap();
        let gradient = has_gradient.then_some(&on_device);
        let extremes = (layer_there.slice(), finished_there.slice());
        summary(stream, shape, gradient, there, T::EPSILON, extremes, found.slice_mut()).unwrap();
        assert_eq!(stream.download(found.slice()).unwrap(), expected);
    }
    let expected = reference(&view, None, &plain(&layer), &plain(&finished));
    let flags: Vec<_> = expected.iter().map(|of| of.zero_gradient).collect();
    assert_eq!(flags, [0, 0, 1, 0, 0]);
}

#[test]
fn small_summaries_are_their_reference() {
    let Some(stream) = gpu() else { return };
    check::<f32>(&stream, 5, [1, 3, 3], 2);
    check::<f16>(&stream, 300, [1, 1, 2], 3);
}

#[test]
fn summaries_are_their_reference() {
    let Some(stream) = gpu() else { return };
    check::<f32>(&stream, 1, [1, 1, 1], 4);
    check::<f32>(&stream, 2049, [1, 2, 1], 5);
    check::<bf16>(&stream, 256, [3, 5, 7], 6);
    check::<f16>(&stream, 257, [2, 1, 3], 7);
}

#[test]
fn lengths_that_do_not_agree_are_errors() {
    let Some(stream) = gpu() else { return };
    let shape = Shape::new(2, 3, [1, 1, 2]).unwrap();
    let extremes = stream.upload(&[DeviceExtremes::default(); 2]).unwrap();
    let mut summaries = stream.allocate::<SampleSummary>(1).unwrap();
    let both = (extremes.slice(), extremes.slice());
    let error =
        summary::<f32>(&stream, shape, None, None, 0.0, both, summaries.slice_mut()).unwrap_err();
    assert_eq!(error.to_string(), "summary: summaries: a batch of 2 takes 2 values (B), it has 1");
    let weights = stream.allocate::<f32>(5).unwrap();
    let known = Some((weights.slice(), None));
    let error =
        summary::<f32>(&stream, shape, None, known, 0.0, both, summaries.slice_mut()).unwrap_err();
    assert!(error.to_string().starts_with("summary: weights: "), "{error}");
}
