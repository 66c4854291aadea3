//! The device layer: memory, scratch, counters, kernels and their limits.

use std::sync::Barrier;

use half::{bf16, f16};
use medcam::Error;
use medcam::device::{
    Argument, Gpu, Kernel, KernelBudget, Launch, Plain, Program, Scalar, Slice, SliceMut, Stream,
};

use crate::common::gpu;

/// Kernels for these tests alone.
pub static PROGRAM: Program = Program {
    stem: "device",
    source: include_str!("device.cu"),
    scalars: &[Scalar::F32, Scalar::F16],
    defines: &[],
    kernels: &[
        KernelBudget { entry: "fill", registers: 16, shared_bytes: 0 },
        KernelBudget { entry: "reverse", registers: 40, shared_bytes: 0 },
        KernelBudget { entry: "count_lasts", registers: 16, shared_bytes: 16 },
    ],
};

fn kernel(stream: &Stream, entry: &str) -> Kernel {
    stream.gpu().kernel(&PROGRAM, Scalar::F32, entry).unwrap()
}

fn blocks(count: usize) -> Launch {
    let blocks = u32::try_from(count.div_ceil(64)).unwrap();
    Launch { grid: [blocks, 1, 1], block_threads: 64, shared_bytes: 0 }
}

fn fill(stream: &Stream, values: &SliceMut<f32>, value: f32) {
    let (kernel, count) = (kernel(stream, "fill"), i64::try_from(values.len()).unwrap());
    // SAFETY: `fill(float*, long long, float)`; `count` values are there.
    unsafe { stream.launch(&kernel, blocks(values.len()), &[values, &count, &value]) }.unwrap();
}

#[test]
fn small_values_come_back_as_they_went() {
    fn check<T: Plain + Default + PartialEq + std::fmt::Debug>(stream: &Stream, values: &[T]) {
        let buffer = stream.upload(values).unwrap();
        assert_eq!((buffer.len(), buffer.is_empty()), (values.len(), values.is_empty()));
        assert_eq!(stream.download(buffer.slice()).unwrap(), values);
        let middle = values.len() / 3..values.len() / 2;
        let part = buffer.slice().part(middle.clone()).unwrap();
        assert_eq!(stream.download(part).unwrap(), values[middle]);
    }
    let Some(stream) = gpu() else { return };
    for count in [0_u16, 1, 31, 1025] {
        check(&stream, &(0..count).map(f32::from).collect::<Vec<_>>());
        check(&stream, &(0..count).map(f64::from).collect::<Vec<_>>());
        check(&stream, &(0..count).map(|i| f16::from_f32(f32::from(i))).collect::<Vec<_>>());
        check(&stream, &(0..count).map(|i| bf16::from_f32(f32::from(i))).collect::<Vec<_>>());
        check(&stream, &(0..count).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>());
        check(&stream, &(0..count).map(u32::from).collect::<Vec<_>>());
        check(&stream, &(0..count).map(i64::from).collect::<Vec<_>>());
    }
}

#[test]
fn small_kernels_run_in_order_with_copies() {
    let Some(stream) = gpu() else { return };
    let mut buffer = stream.upload(&[7.0_f32; 100]).unwrap();
    fill(&stream, &buffer.slice_mut().part(0..70).unwrap(), 1.0);
    fill(&stream, &buffer.slice_mut().part(50..60).unwrap(), 2.0);
    let mut expected = [7.0_f32; 100];
    expected[..70].fill(1.0);
    expected[50..60].fill(2.0);
    assert_eq!(stream.download(buffer.slice()).unwrap(), expected);
}

#[test]
fn small_a_dropped_buffer_stays_until_its_kernels_are_done() {
    let Some(stream) = gpu() else { return };
    let values: Vec<f32> = (0..500_u16).map(f32::from).collect();
    let mut to = stream.allocate::<f32>(500).unwrap();
    let from = stream.upload(&values).unwrap();
    reverse(&stream, &from.slice(), &to.slice_mut()).unwrap();
    drop(from);
    let expected: Vec<_> = values.into_iter().rev().collect();
    assert_eq!(stream.download(to.slice()).unwrap(), expected);
}

fn reverse(stream: &Stream, from: &Slice<f32>, to: &SliceMut<f32>) -> Result<(), Error> {
    let count = i32::try_from(from.len()).unwrap();
    let shared_bytes = u32::try_from(size_of::<f32>() * from.len()).unwrap();
    let launch = Launch { grid: [1, 1, 1], block_threads: 128, shared_bytes };
    // SAFETY: `reverse(const float*, float*, int)`; `count` values are in each, and in shared memory.
    unsafe { stream.launch(&kernel(stream, "reverse"), launch, &[from, to, &count]) }
}

#[test]
fn more_shared_memory_than_the_default_is_asked_for() {
    let Some(stream) = gpu() else { return };
    // 60 KB: above the 48 KiB that need no asking, below the 64 KiB of the smallest device.
    let values: Vec<f32> = (0..15_000_u16).map(f32::from).collect();
    let from = stream.upload(&values).unwrap();
    let mut to = stream.allocate(values.len()).unwrap();
    reverse(&stream, &from.slice(), &to.slice_mut()).unwrap();
    let expected: Vec<_> = values.into_iter().rev().collect();
    assert_eq!(stream.download(to.slice()).unwrap(), expected);
    // More than any device has.
    let from = stream.allocate::<f32>(1 << 20).unwrap();
    let mut to = stream.allocate(1 << 20).unwrap();
    let error = reverse(&stream, &from.slice(), &to.slice_mut()).unwrap_err();
    assert!(error.is_input(), "{error}");
    assert!(error.to_string().starts_with("reverse_f32: shared_bytes: 4194304, "), "{error}");
}

#[test]
fn scratch_is_used_again() {
    let Some(mut stream) = gpu() else { return };
    let mut seen = Vec::new();
    for _ in 0..3 {
        // The fifth piece does not fit into the first block of scratch, 1 MiB.
        let pieces: Vec<_> = [1, 1000, 0, 65, 1 << 19]
            .into_iter()
            .map(|len| stream.scratch::<f32>(len).unwrap())
            .collect();
        let spans: Vec<_> = pieces.iter().map(|piece| (piece.pointer(), 4 * piece.len())).collect();
        for (i, &(pointer, bytes)) in spans.iter().enumerate() {
            assert_eq!(pointer % 256, 0);
            for &(other, length) in &spans[i + 1..] {
                assert!(pointer + bytes as u64 <= other || other + length as u64 <= pointer);
            }
        }
        for (piece, value) in pieces.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0]) {
            if !piece.is_empty() {
                fill(&stream, piece, value);
            }
        }
        for (piece, value) in pieces.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0]) {
            assert!(stream.download(piece.as_slice()).unwrap().iter().all(|&found| found == value));
        }
        seen.push(spans);
        stream.release_scratch();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[test]
fn scratch_of_calls_that_differ_settles() {
    let Some(mut stream) = gpu() else { return };
    let mut call = |megabytes: &[usize]| -> Vec<u64> {
        let take = |&count: &usize| stream.scratch::<u8>(count << 20).unwrap().pointer();
        let pointers = megabytes.iter().map(take).collect();
        stream.release_scratch();
        pointers
    };
    let mut round = || [call(&[2, 9]), call(&[9, 2, 3]), call(&[3, 1, 9])];
    for _ in 0..3 {
        round();
    }
    assert_eq!(round(), round());
}

#[test]
fn small_counters_are_zero_between_kernels() {
    let Some(mut stream) = gpu() else { return };
    let first = stream.counters(3).unwrap().pointer();
    assert_eq!(stream.download(stream.counters(3).unwrap().as_slice()).unwrap(), [0; 3]);
    let mut lasts = stream.upload(&[0_u32]).unwrap();
    for _ in 0..2 {
        let counter = stream.counters(1).unwrap();
        let launch = Launch { grid: [5, 1, 1], block_threads: 64, shared_bytes: 0 };
        let kernel = kernel(&stream, "count_lasts");
        // SAFETY: `count_lasts(unsigned*, unsigned*)`; one counter and one number are there.
        unsafe { stream.launch(&kernel, launch, &[&counter, &lasts.slice_mut()]) }.unwrap();
    }
    assert_eq!(stream.download(lasts.slice()).unwrap(), [2]);
    assert_eq!(stream.counters(3).unwrap().pointer(), first);
    let error = stream.counters(usize::MAX).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("counters: len: {} are more than memory can be", usize::MAX)
    );
    let many = stream.counters(5000).unwrap();
    assert_eq!(stream.download(many.as_slice()).unwrap(), [0; 5000]);
    let many = many.pointer();
    stream.release_scratch();
    assert_eq!(stream.counters(5000).unwrap().pointer(), many);
}

/// The error of a launch of `fill` with these numbers and arguments; the launch must be refused.
fn refused(stream: &Stream, launch: Launch, arguments: &[&dyn Argument]) -> String {
    // SAFETY: refused before it runs.
    let error = unsafe { stream.launch(&kernel(stream, "fill"), launch, arguments) }.unwrap_err();
    assert!(error.is_input(), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("fill_f32: "), "{text}");
    text
}

#[test]
fn a_launch_beyond_the_limits_is_refused() {
    let Some(stream) = gpu() else { return };
    let mut buffer = stream.upload(&[7.0_f32; 4]).unwrap();
    let values = buffer.slice_mut();
    let arguments: [&dyn Argument; 3] = [&values, &4_i64, &1.0_f32];
    let good = Launch { grid: [1, 1, 1], block_threads: 64, shared_bytes: 0 };
    for (launch, says) in [
        (Launch { block_threads: 0, ..good }, "block_threads: 0, and it can have 1 to 1024"),
        (Launch { block_threads: 1025, ..good }, "block_threads: 1025"),
        (Launch { grid: [0, 1, 1], ..good }, "grid[0]: 0 blocks"),
        (Launch { grid: [1, 65_536, 1], ..good }, "grid[1]: 65536 blocks"),
        (Launch { grid: [1, 1, 65_536], ..good }, "grid[2]: 65536 blocks"),
        (Launch { shared_bytes: 1 << 20, ..good }, "shared_bytes: 1048576"),
    ] {
        let text = refused(&stream, launch, &arguments);
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(stream.download(buffer.slice()).unwrap(), [7.0; 4]);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let Some(stream) = gpu() else { return };
    let mut buffer = stream.upload(&[7.0_f32; 4]).unwrap();
    let ordinal = stream.gpu().ordinal();
    // SAFETY: never used on a device.
    let foreign = unsafe { SliceMut::<f32>::from_raw(ordinal + 1, buffer.slice().pointer(), 4) };
    let text = refused(&stream, blocks(4), &[&foreign, &4_i64, &1.0_f32]);
    assert!(text.contains("argument 0: memory of device 1, and it runs on device 0"), "{text}");
    let error = stream.download(foreign.as_slice()).unwrap_err();
    assert!(error.to_string().contains("from: on device 1"), "{error}");

    let values = buffer.slice_mut();
    let text = refused(&stream, blocks(4), &[&values, &4_i32, &1.0_f32]);
    assert!(text.contains("arguments of [8, 4, 4] bytes, and it takes [8, 8, 4]"), "{text}");
    let text = refused(&stream, blocks(4), &[&values, &4_i64]);
    assert!(text.contains("arguments of [8, 8] bytes"), "{text}");
    let text = refused(&stream, blocks(4), &[&values, &4_i64, &1.0_f32, &1.0_f32]);
    assert!(text.contains("arguments of [8, 8, 4, 4] bytes"), "{text}");
    assert_eq!(stream.download(buffer.slice()).unwrap(), [7.0; 4]);

    let error = stream.download_into(buffer.slice(), &mut [0.0; 3]).unwrap_err();
    assert!(error.to_string().contains("to: 3 values for 4"), "{error}");
    let error = buffer.slice().part(2..5).unwrap_err();
    assert!(error.to_string().contains("range: 2..5 of a slice of 4"), "{error}");
}

#[test]
fn threads_that_ask_for_a_kernel_at_once_get_the_same() {
    let Some(stream) = gpu() else { return };
    let (gpu, barrier) = (stream.gpu(), Barrier::new(8));
    let ask = || {
        barrier.wait();
        // Kernels are loaded once, and their names with them.
        gpu.kernel(&PROGRAM, Scalar::F16, "fill").unwrap().name().as_ptr() as usize
    };
    let names: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(names.iter().all(|&name| name == names[0]), "{names:?}");
}

#[test]
fn what_is_not_in_a_program_is_refused() {
    let Some(stream) = gpu() else { return };
    let text = |scalar, entry| {
        let error = stream.gpu().kernel(&PROGRAM, scalar, entry).unwrap_err();
        assert!(error.is_input(), "{error}");
        error.to_string()
    };
    assert_eq!(
        text(Scalar::F32, "fil"),
        "device: entry: fil is not one of [\"fill\", \"reverse\", \"count_lasts\"]"
    );
    assert_eq!(text(Scalar::U8, "fill"), "device: scalar: u8 is not one of [F32, F16]");
}

#[test]
fn a_program_that_does_not_compile_says_so_each_time() {
    static BROKEN: Program = Program {
        stem: "broken",
        source: "extern \"C\" __global__ void broken_f32(float* to) { to[0] = from[0]; }",
        scalars: &[Scalar::F32],
        defines: &[],
        kernels: &[KernelBudget { entry: "broken", registers: 8, shared_bytes: 0 }],
    };
    let Some(stream) = gpu() else { return };
    for _ in 0..2 {
        let error = stream.gpu().kernel(&BROKEN, Scalar::F32, "broken").unwrap_err();
        assert!(error.is_device(), "{error}");
        assert!(error.to_string().contains("kernels/broken.cu(1): error"), "{error}");
    }
}

#[test]
fn small_a_stream_moves_between_threads_and_is_lent() {
    let Some(stream) = gpu() else { return };
    let gpu = stream.gpu();
    for handle in [stream.handle(), std::ptr::null_mut()] {
        // SAFETY: a stream of this device that is still there, and the default stream.
        let lent = unsafe { Stream::from_raw(gpu, handle) };
        let lent = std::thread::scope(|scope| {
            let work = move || {
                let mut buffer = lent.upload(&[0.0_f32; 10]).unwrap();
                fill(&lent, &buffer.slice_mut(), 3.0);
                assert_eq!(lent.download(buffer.slice()).unwrap(), [3.0; 10]);
                lent
            };
            scope.spawn(work).join().unwrap()
        });
        assert_eq!(lent.handle(), handle);
    }
    // Dropping a borrowed stream does not destroy it.
    stream.upload(&[1_u8]).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn a_device_that_is_not_there_is_unavailable() {
    let error = Gpu::get(4096).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}
