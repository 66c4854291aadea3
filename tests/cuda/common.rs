//! What the tests on a device share.

use medcam::device::{Buffer, Gpu, Program, Stream};
use medcam::element::Element;
use medcam::ops::extremes::DeviceExtremes;

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

/// The values behind `skipped` others: with 1 of them, a tensor that begins where 16 bytes do not.
pub fn upload_behind<T: Element>(stream: &Stream, skipped: usize, values: &[T]) -> Buffer<T> {
    stream.upload(&[&vec![T::from_f32(9.0); skipped], values].concat()).unwrap()
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
