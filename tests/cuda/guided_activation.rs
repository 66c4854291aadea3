//! The guided activation against its CPU twin, which it equals in all bits.

use half::{bf16, f16};
use medcam::device::Stream;
use medcam::element::Element;
use medcam::ops::guided_activation;
use medcam::ops::guided_activation::{cuda, in_place};

use crate::common::gpu;

/// Values of every kind, in turns of no simple length.
fn values<T: Element>(count: usize, step: usize) -> Vec<T> {
    let kinds = [
        0.5,
        -0.5,
        0.0,
        -0.0,
        1.0,
        2e-7,
        -2e-7,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -3.0,
        7.0,
        1e-40,
    ];
    (0..count).map(|i| T::from_f32(kinds[i * step % kinds.len()])).collect()
}

/// The bits of values, so that NaN equals itself; widening is exact.
fn bits<T: Element>(values: &[T]) -> Vec<u32> {
    values.iter().map(|value| value.to_f32().to_bits()).collect()
}

/// Drops the first `skipped` values of each tensor, so that its address is no multiple of 16 bytes.
fn check<T: Element + Default>(stream: &Stream, count: usize, skipped: [usize; 3]) {
    let (input, gradient) = (values::<T>(count, 1), values::<T>(count, 5));
    let mut expected = vec![T::default(); count];
    guided_activation(&input, &gradient, &mut expected).unwrap();
    let shifted = |values: &[T], skipped: usize| {
        stream.upload(&[&vec![T::from_f32(9.0); skipped], values].concat()).unwrap()
    };
    let device_input = shifted(&input, skipped[0]);
    let mut device_gradient = shifted(&gradient, skipped[1]);
    let mut output = shifted(&vec![T::from_f32(9.0); count + 3], skipped[2]);
    for _ in 0..2 {
        cuda::guided_activation(
            stream,
            device_input.slice().part(skipped[0]..skipped[0] + count).unwrap(),
            device_gradient.slice().part(skipped[1]..skipped[1] + count).unwrap(),
            output.slice_mut().part(skipped[2]..skipped[2] + count).unwrap(),
        )
        .unwrap();
        let found = stream.download(output.slice()).unwrap();
        assert_eq!(bits(&found[skipped[2]..][..count]), bits(&expected), "{count} {skipped:?}");
        // The memory around the tensors is unchanged.
        let around = found[..skipped[2]].iter().chain(&found[skipped[2] + count..]);
        assert!(around.into_iter().all(|value| value.to_f32() == 9.0));
    }
    let input_slice = device_input.slice().part(skipped[0]..skipped[0] + count).unwrap();
    let mut gradient_slice = device_gradient.slice_mut();
    let gradient_slice = gradient_slice.part(skipped[1]..skipped[1] + count).unwrap();
    cuda::in_place(stream, input_slice, gradient_slice).unwrap();
    let found = stream.download(device_gradient.slice()).unwrap();
    assert_eq!(bits(&found[skipped[1]..]), bits(&expected), "{count} {skipped:?} in place");
}

fn check_all_types(stream: &Stream, count: usize, skipped: [usize; 3]) {
    check::<f32>(stream, count, skipped);
    check::<f16>(stream, count, skipped);
    check::<bf16>(stream, count, skipped);
}

#[test]
fn small_equals_the_cpu() {
    let Some(stream) = gpu() else { return };
    for count in [0, 1, 3, 31, 33, 1025] {
        check_all_types(&stream, count, [0, 0, 0]);
    }
}

#[test]
fn any_length_and_alignment() {
    let Some(stream) = gpu() else { return };
    for count in [2, 5, 7, 32, 1023, 2184, 8191] {
        // Both tensors misaligned alike, and each alone.
        for skipped in [[0, 0, 0], [1, 1, 1], [3, 7, 11], [0, 1, 0], [0, 0, 2], [5, 5, 4]] {
            check_all_types(&stream, count, skipped);
        }
    }
    check_all_types(&stream, 70_001, [0, 0, 0]);
}

#[test]
fn the_zeros_that_stop_are_those_of_the_cpu_in_place_too() {
    let Some(stream) = gpu() else { return };
    let (input, mut gradient) = (values::<f32>(169, 1), values::<f32>(169, 6));
    let device_input = stream.upload(&input).unwrap();
    let mut device_gradient = stream.upload(&gradient).unwrap();
    cuda::in_place(&stream, device_input.slice(), device_gradient.slice_mut()).unwrap();
    in_place(&input, &mut gradient).unwrap();
    assert_eq!(bits(&stream.download(device_gradient.slice()).unwrap()), bits(&gradient));
}

#[test]
fn lengths_must_agree() {
    let Some(stream) = gpu() else { return };
    let three = stream.upload(&[1.0_f32; 3]).unwrap();
    let mut four = stream.upload(&[1.0_f32; 4]).unwrap();
    let error = cuda::guided_activation(&stream, three.slice(), three.slice(), four.slice_mut())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "guided_activation: output: input has 3 values, it has 4; pass as many"
    );
    let error = cuda::in_place(&stream, three.slice(), four.slice_mut()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "guided_activation: gradient: input has 3 values, it has 4; pass as many"
    );
}
