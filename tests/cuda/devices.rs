//! Memory of another device than the stream's: each launcher names the argument.

use medcam::Result;
use medcam::device::{Slice, SliceMut, Stream};
use medcam::ops::evaluation_sums::TABLE_LENGTH;
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::summary::SampleSummary;
use medcam::ops::{
    Denominator, DeviceView, Elementwise, Interpolation, Resize, alpha_weights, channel_weights,
    elementwise, evaluation_sums, guided_activation, guided_product, normalize, project, resample,
    summary,
};
use medcam::{Layout, Shape};

use crate::common::gpu;

/// Every launcher, given the argument `elsewhere` (as it counts them, from 0) on device 1.
fn launch(stream: &Stream, operation: &str, elsewhere: usize) -> Result<()> {
    let shape = Shape::new(1, 2, [1, 1, 2]).unwrap();
    let resize = Resize { batch: 1, from: [1, 1, 2], to: [1, 1, 3] };
    let ordinal = |argument: usize| usize::from(argument == elsewhere);
    // SAFETY: never read or written, as some argument of each launch is refused.
    let values = |argument, len| unsafe { Slice::<f32>::from_raw(ordinal(argument), 0x1000, len) };
    let view = |argument| DeviceView::new(values(argument, 4), shape, Layout::Contiguous).unwrap();
    // SAFETY: as above.
    let out = |argument, len| unsafe { SliceMut::<f32>::from_raw(ordinal(argument), 0x2000, len) };
    // SAFETY: as above.
    let ranges =
        |argument| unsafe { SliceMut::<DeviceExtremes>::from_raw(ordinal(argument), 0x3000, 1) };
    // SAFETY: as above.
    let mask = |argument| unsafe { Slice::<u8>::from_raw(ordinal(argument), 0x4000, 4) };
    // SAFETY: as above.
    let tables =
        |argument| unsafe { SliceMut::<u64>::from_raw(ordinal(argument), 0x5000, TABLE_LENGTH) };
    // SAFETY: as above.
    let summaries =
        |argument| unsafe { SliceMut::<SampleSummary>::from_raw(ordinal(argument), 0x6000, 1) };
    let range = |argument| {
        // SAFETY: as above.
        unsafe { Slice::<DeviceExtremes>::from_raw(ordinal(argument), 0x3000, 1) }
    };
    let linear = Interpolation::Linear;
    match operation {
        "channel_weights" => {
            channel_weights::cuda::channel_weights(stream, &view(0), out(1, 2), out(2, 2))
        }
        "alpha_weights" => {
            let (paper, weights) = (Denominator::Paper, out(2, 2));
            alpha_weights::cuda::alpha_weights(stream, &view(0), &view(1), paper, weights)
        }
        "project" => project::cuda::project(stream, values(0, 2), &view(1), out(2, 2), ranges(3)),
        "channel_mean" => project::cuda::channel_mean(stream, &view(0), out(1, 2), ranges(2)),
        "elementwise" => {
            let (method, map) = (Elementwise::HiResCam, out(2, 2));
            elementwise::cuda::elementwise(stream, &view(0), &view(1), method, map, ranges(3))
        }
        "guided_activation" => {
            let (input, gradient) = (values(0, 2), values(1, 2));
            guided_activation::cuda::guided_activation(stream, input, gradient, out(2, 2))
        }
        "evaluation_sums" => {
            let (map, mask) = (values(0, 4), Some(mask(1)));
            evaluation_sums::cuda::evaluation_sums(stream, map, mask, 1, None, tables(2))
        }
        "resample" => {
            let (map, out) = (values(0, 2), out(2, 3));
            resample::cuda::resample_into(stream, map, resize, linear, Some(range(1)), out)
        }
        "guided_product" => {
            let (map, guided, range) = (values(0, 2), values(1, 3), Some(range(2)));
            guided_product::cuda::guided_product_into(stream, map, guided, resize, range, out(3, 3))
        }
        "normalize" => normalize::cuda::normalize(stream, out(0, 4), range(1)),
        "summary" => {
            let (known, both) = (Some((values(1, 2), Some(values(2, 2)))), (range(3), range(4)));
            summary::cuda::summary(stream, shape, Some(&view(0)), known, 0.0, both, summaries(5))
        }
        other => panic!("no launch of {other}"),
    }
}

#[test]
fn memory_of_another_device_is_refused_by_its_name() {
    let Some(stream) = gpu() else { return };
    for (operation, arguments) in [
        ("channel_weights", &["gradient", "weights", "magnitudes"][..]),
        ("alpha_weights", &["activation", "gradient", "weights"]),
        ("project", &["weights", "activation", "map", "extremes"]),
        ("channel_mean", &["tensor", "map", "extremes"]),
        ("elementwise", &["activation", "gradient", "map", "extremes"]),
        ("guided_activation", &["input", "gradient", "output"]),
        ("evaluation_sums", &["map", "mask", "tables"]),
        ("resample", &["map", "extremes", "out"]),
        ("guided_product", &["map", "guided", "extremes", "out"]),
        ("normalize", &["map", "extremes"]),
        ("summary", &["gradient", "weights", "magnitudes", "layer", "finished", "summaries"]),
    ] {
        for (elsewhere, argument) in arguments.iter().enumerate() {
            let error = launch(&stream, operation, elsewhere).unwrap_err();
            assert!(error.is_input(), "{error}");
            let expected =
                format!("{operation}: {argument}: on device 1, and the stream is on device 0");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }
}
