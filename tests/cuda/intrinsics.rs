//! What CUDA's own functions give, on a device and on the host.

use half::f16;
use medcam::device::{Argument, KernelBudget, Launch, Program, Scalar, Stream};

use crate::common::gpu;

pub static PROGRAM: Program = Program {
    stem: "intrinsics",
    source: include_str!("intrinsics.cu"),
    scalars: &[Scalar::F32],
    defines: &[],
    kernels: &[
        KernelBudget { entry: "warp_functions", registers: 40, shared_bytes: 0 },
        KernelBudget { entry: "block_functions", registers: 32, shared_bytes: 16 },
        KernelBudget { entry: "atomics", registers: 32, shared_bytes: 0 },
        KernelBudget { entry: "numbers", registers: 32, shared_bytes: 0 },
    ],
};

fn launch(
    stream: &Stream,
    entry: &str,
    grid: [u32; 3],
    block_threads: u32,
    arguments: &[&dyn Argument],
) {
    let kernel = stream.gpu().kernel(&PROGRAM, Scalar::F32, entry).unwrap();
    let launch = Launch { grid, block_threads, shared_bytes: 0 };
    // SAFETY: each test below gives a kernel what its signature says, with room for all its results.
    unsafe { stream.launch(&kernel, launch, arguments) }.unwrap();
}

#[test]
fn small_warp_functions() {
    let Some(stream) = gpu() else { return };
    let mut to = stream.upload(&[7_u32; 14 * 32]).unwrap();
    launch(&stream, "warp_functions", [1, 1, 1], 32, &[&to.slice_mut()]);
    let found = stream.download(to.slice()).unwrap();
    let expected: [fn(u32) -> u32; 14] = [
        |_| 50,
        |lane| 10 * (lane / 8 * 8 + (lane + 3) % 8),
        |lane| 10 * if lane < 3 { lane } else { lane - 3 },
        |lane| 10 * if lane % 8 < 3 { lane } else { lane - 3 },
        |lane| 10 * if lane + 3 < 32 { lane + 3 } else { lane },
        |lane| 10 * if lane % 8 + 3 < 8 { lane + 3 } else { lane },
        |lane| 10 * (lane ^ 17),
        |lane| 10 * (lane ^ 7),
        |lane| 3 * (lane + 1).min(31),
        |lane| 50 * (lane ^ 1),
        |_| 0x4924_9249,
        |_| 1,
        |_| 1,
        |lane| if lane < 16 { lane ^ 1 } else { 0xaaaa_0000 },
    ];
    for (k, expected) in expected.iter().enumerate() {
        let expected: Vec<_> = (0..32).map(expected).collect();
        assert_eq!(found[32 * k..][..32], expected, "result {k}");
    }
}

#[test]
fn small_block_functions() {
    let Some(stream) = gpu() else { return };
    let mut to = stream.upload(&[7_u32; 4 * 24]).unwrap();
    launch(&stream, "block_functions", [2, 3, 4], 60, &[&to.slice_mut()]);
    let found = stream.download(to.slice()).unwrap();
    for block in found.chunks(4) {
        assert_eq!(block, [1770, 15, 1, 1]);
    }
}

#[test]
fn small_atomics() {
    let Some(stream) = gpu() else { return };
    let (blocks, threads) = (5, 100);
    let count = blocks * threads;
    let before = [0, 1000, 9999, 0, 0, u32::MAX, 0, 0, 0, 0, 0];
    let mut words = stream.upload(&before).unwrap();
    let mut wide = stream.upload(&[0, u64::MAX, 0]).unwrap();
    let mut sum = stream.upload(&[0.0_f32]).unwrap();
    let mut ints = stream.upload(&[0, i32::MIN]).unwrap();
    let (a, b, c, d) = (words.slice_mut(), wide.slice_mut(), sum.slice_mut(), ints.slice_mut());
    launch(&stream, "atomics", [blocks, 1, 1], threads, &[&a, &b, &c, &d]);
    let xor = (0..count).fold(0, |xor, i| xor ^ i);
    let after = [count, 1000 - count, 0, count - 1, u32::MAX, 0, xor, count % 7, 1, 1, 2 * count];
    assert_eq!(stream.download(words.slice()).unwrap(), after);
    let wide_after = [u64::from(count) << 40, 1 << 40, (1 << 40) + u64::from(count - 1)];
    assert_eq!(stream.download(wide.slice()).unwrap(), wide_after);
    assert_eq!(stream.download(sum.slice()).unwrap(), [250.0]);
    assert_eq!(stream.download(ints.slice()).unwrap(), [-499, -1]);
}

#[test]
fn small_numbers() {
    let Some(stream) = gpu() else { return };
    // Halves that round to even, are too small, too large, and no numbers at all.
    let values = [
        0.0,
        -0.0,
        0.5,
        1.5,
        2.5,
        -2.5,
        1.0009766,
        1.0004883,
        6e-8,
        2e-8,
        65519.0,
        65520.0,
        1e30,
        -3.7,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let from = stream.upload(&values).unwrap();
    let mut to = stream.upload(&vec![7_u32; 11 * values.len()]).unwrap();
    let count = i32::try_from(values.len()).unwrap();
    let arguments: [&dyn Argument; 3] = [&from.slice(), &to.slice_mut(), &count];
    launch(&stream, "numbers", [2, 1, 1], 32, &arguments);
    let found = stream.download(to.slice()).unwrap();
    for (i, &value) in values.iter().enumerate() {
        let least = |a: u32, b: u32| f32::from_bits(a.min(b));
        let expected = [
            f16::from_f32(value).to_f32(),
            value.min(1.0),
            value.max(1.0),
            value.round_ties_even(),
            value.floor(),
            value.mul_add(value, -1.0),
            value.abs(),
            -value,
            least(value.to_bits(), 0x4000_0000),
            f32::from(u8::try_from(i.max(3)).unwrap()),
        ];
        for (k, expected) in expected.into_iter().enumerate() {
            let found = f32::from_bits(found[11 * i + k]);
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{value}, result {k}: {found}, not {expected}");
        }
        let wide = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(value.to_bits()));
        let product = u128::from(wide) * u128::from(!wide);
        assert_eq!(u128::from(found[11 * i + 10]), product >> 64 & 0xffff_ffff);
    }
}
