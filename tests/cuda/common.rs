//! What the tests on a device share.

use std::ops::Range;

use medcam::device::{Buffer, Gpu, Plain, Program, Slice, Stream};
use medcam::element::Element;
use medcam::ops::DeviceView;
use medcam::ops::extremes::DeviceExtremes;
use medcam::{Layout, Shape};

use crate::on_the_cpu::bits;

/// A stream of the first device; `None`, with the reason on the error output, where there is none.
///
/// # Panics
///
/// If there is none and MEDCAM_REQUIRE_CUDA=1, or it is there and does not work.
pub fn gpu() -> Option<Stream> {
    match Gpu::get(0) {
        Ok(gpu) => Some(Stream::new(gpu).unwrap()),
        Err(error) if error.is_unavailable() => {
            let required = std::env::var("MEDCAM_REQUIRE_CUDA").is_ok_and(|value| value == "1");
            assert!(!required, "MEDCAM_REQUIRE_CUDA=1, and {error}");
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// All programs that these tests launch.
#[allow(dead_code, reason = "the tests on the host build them all")]
pub fn programs() -> Vec<&'static Program> {
    let mut programs = medcam::ops::programs().to_vec();
    programs.extend([&crate::device::PROGRAM, &crate::intrinsics::PROGRAM]);
    programs
}

/// Values in device memory that begin `skipped` values behind a multiple of 256 bytes.
pub struct Shifted<T: Plain> {
    buffer: Buffer<T>,
    skipped: usize,
}

impl<T: Element> Shifted<T> {
    pub fn new(stream: &Stream, values: &[T], skipped: usize) -> Self {
        let before = vec![T::from_f32(9.0); skipped];
        Self { buffer: stream.upload(&[&before, values].concat()).unwrap(), skipped }
    }

    pub fn slice(&self) -> Slice<'_, T> {
        self.buffer.slice().part(self.skipped..self.buffer.len()).unwrap()
    }

    pub fn view(&self, shape: Shape, layout: Layout) -> DeviceView<'_, T> {
        DeviceView::new(self.slice(), shape, layout).unwrap()
    }
}

/// The part of a batch's values that belongs to some of its samples.
pub fn of_samples<T>(values: &[T], batch: usize, samples: Range<usize>) -> &[T] {
    let length = values.len() / batch;
    &values[samples.start * length..samples.end * length]
}

/// What an op computed: vectors with the values of each sample in a row, and extremes, if any.
#[derive(Debug)]
pub struct Results {
    pub values: Vec<Vec<f32>>,
    pub extremes: Vec<DeviceExtremes>,
}

impl Results {
    fn bits(&self) -> (Vec<Vec<u32>>, &[DeviceExtremes]) {
        (self.values.iter().map(|values| bits(values)).collect(), &self.extremes)
    }
}

/// The results of `run(samples, skipped)` for a whole batch at aligned addresses, after a check that
/// another run, runs at all of `addresses`, and runs of one sample each give the same bits.
/// `skipped` shifts the address of each argument by that many values.
pub fn run_repeatedly<const N: usize>(
    place: &str,
    batch: usize,
    addresses: &[[usize; N]],
    mut run: impl FnMut(Range<usize>, [usize; N]) -> Results,
) -> Results {
    let found = run(0..batch, [0; N]);
    for &skipped in [[0; N]].iter().chain(addresses) {
        assert_eq!(run(0..batch, skipped).bits(), found.bits(), "{place} {skipped:?}");
    }
    if batch > 1 {
        for b in 0..batch {
            let single = run(b..b + 1, [0; N]);
            let of_sample = |values: &Vec<f32>| of_samples(values, batch, b..b + 1).to_vec();
            let values = found.values.iter().map(of_sample).collect();
            let extremes = found.extremes.iter().skip(b).take(1).copied().collect();
            assert_eq!(single.bits(), Results { values, extremes }.bits(), "{place} sample {b}");
        }
    }
    found
}

/// What the extremes of finite maps are.
pub fn expected_extremes(map: &[f32], voxels: usize) -> Vec<DeviceExtremes> {
    let of = |map: &[f32]| DeviceExtremes {
        minimum: map.iter().copied().fold(f32::INFINITY, f32::min),
        maximum: map.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        ..DeviceExtremes::default()
    };
    map.chunks(voxels).map(of).collect()
}
