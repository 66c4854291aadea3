//! Kernels with a bug, and their twins without: what `on_host/caught.rs` has processes of this program
//! run. On a device they would do anything, so without that they are not run.

use medcam::device::{KernelBudget, Launch, Program, Scalar, probe};

use crate::common::gpu;

/// All these kernels take `(const float* from, float* to, int count)`, where `from` is 1, 2, 3...
/// and `to` is 0 at first.
const COUNT: u16 = 60;

/// A file of `tests/cuda_on_host/planted/`, how it is launched, and what it should compute.
pub struct Case {
    pub name: &'static str,
    /// Without the bug, and with it.
    pub programs: [&'static Program; 2],
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    expected: fn(u16) -> f32,
}

macro_rules! case {
    ($name:literal, ($blocks:literal, $threads:literal, $shared_bytes:literal), $expected:expr) => {
        Case {
            name: $name,
            programs: [program!($name, 0), program!($name, 1)],
            blocks: $blocks,
            threads: $threads,
            shared_bytes: $shared_bytes,
            expected: $expected,
        }
    };
}

macro_rules! program {
    ($name:literal, $planted:literal) => {
        &Program {
            stem: concat!("planted/", $name),
            source: include_str!(concat!("../cuda_on_host/planted/", $name, ".cu")),
            scalars: &[Scalar::F32],
            defines: &[("PLANTED", $planted)],
            kernels: &[KernelBudget { entry: $name, registers: 32, shared_bytes: 256 }],
        }
    };
}

pub static CASES: [Case; 14] = [
    case!("removed_barrier", (1, 60, 0), |i| f32::from(COUNT - i)),
    case!("removed_warp_barrier", (1, 60, 0), |i| f32::from((i ^ 1) + 1)),
    case!("missing_fence", (8, 32, 0), |i| if i < 8 { -f32::from(i + 1) } else { 0.0 }),
    case!("lost_update", (8, 32, 0), |i| if i == 0 { 8.0 } else { 0.0 }),
    case!("divergent_barrier", (1, 60, 0), |i| if i < 32 { 1.0 } else { -1.0 } * f32::from(i + 1)),
    case!("divergent_shuffle", (1, 60, 0), |i| f32::from(if i % 32 < 16 { i ^ 1 } else { i } + 1)),
    case!("missing_lane", (1, 48, 0), |i| match i {
        0..16 => f32::from(2 * i + 18),
        16..48 => f32::from(i + 1),
        _ => 0.0,
    }),
    case!("uninitialised_shared", (1, 60, 0), |i| f32::from(i + 1)),
    case!("static_shared_overrun", (1, 60, 0), |i| f32::from(i + 1)),
    case!("dynamic_shared_overrun", (1, 60, 240), |i| f32::from(i + 1)),
    case!("read_past_end", (1, 60, 0), |i| if i + 1 < COUNT { f32::from(i + 2) } else { 0.0 }),
    case!("write_past_end", (2, 64, 0), |i| f32::from(i + 1)),
    case!("misaligned_load", (1, 60, 0), |i| if i < 56 { f32::from(i + 5) } else { 0.0 }),
    case!("saturating_cast", (1, 60, 0), |i| f32::from(i + 1)),
];

/// Runs a case like any test of a kernel: the ordinary launch, then a comparison of all numbers.
fn check(case: &Case, planted: usize) {
    let Some(stream) = gpu() else { return };
    let kernel = stream.gpu().kernel(case.programs[planted], Scalar::F32, case.name).unwrap();
    let values: Vec<f32> = (0..COUNT).map(|i| f32::from(i + 1)).collect();
    let from = stream.upload(&values).unwrap();
    let mut to = stream.upload(&[0.0_f32; COUNT as usize]).unwrap();
    let Case { blocks, threads: block_threads, shared_bytes, .. } = *case;
    let launch = Launch { grid: [blocks, 1, 1], block_threads, shared_bytes };
    let arguments = (from.slice(), to.slice_mut(), i32::from(COUNT));
    // SAFETY: the arguments that all these kernels take. With its bug the kernel leaves its memory,
    // or waits for ever, which the driver on the host survives or ends the process for.
    unsafe { stream.launch(&kernel, launch, &[&arguments.0, &arguments.1, &arguments.2]) }.unwrap();
    let expected: Vec<_> = (0..COUNT).map(case.expected).collect();
    assert_eq!(stream.download(to.slice()).unwrap(), expected, "{}", case.name);
}

#[test]
fn small_the_device_is_the_host() {
    if std::env::var_os("MEDCAM_ON_HOST").is_none() {
        return eprintln!("skipped: for on_host.rs, which sets MEDCAM_ON_HOST");
    }
    let devices = probe().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].name, "CUDA on the host");
    assert_eq!(devices[0].compute_capability, (7, 5));
}

#[test]
fn planted_case() {
    let Ok(wanted) = std::env::var("MEDCAM_ON_HOST_CASE") else {
        return eprintln!("skipped: for on_host.rs, which sets MEDCAM_ON_HOST_CASE");
    };
    let mut ran = 0;
    for case in CASES.iter().filter(|case| wanted == "correct" || wanted == case.name) {
        check(case, usize::from(wanted != "correct"));
        ran += 1;
    }
    assert!(ran > 0, "no case {wanted}");
}
