//! The backward of a guided activation on a GPU.

use super::check;
use crate::device::{KernelBudget, Launch, Program, Scalar, Slice, SliceMut, Stream};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::launch::{PACK_BYTES, check_devices, registers_for};

const BLOCK_THREADS: u32 = 256;
/// Blocks on a multiprocessor: all threads that one of sm_75 holds, which hides the latency of memory.
const RESIDENT_BLOCKS: u32 = 4;
/// Packs of 16 bytes that a thread loads of each tensor: enough work to be worth launching a block.
const PACKS_PER_THREAD: u32 = 2;

/// `kernels/guided_activation.cu`.
pub static PROGRAM: Program = Program {
    stem: "guided_activation",
    source: include_str!("../../../kernels/guided_activation.cu"),
    scalars: &[Scalar::F32, Scalar::F16, Scalar::Bf16],
    defines: &[
        ("BLOCK_THREADS", BLOCK_THREADS),
        ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
        ("PACKS_PER_THREAD", PACKS_PER_THREAD),
    ],
    kernels: &[KERNEL],
};

const KERNEL: KernelBudget = KernelBudget {
    entry: "guided_activation",
    registers: registers_for(RESIDENT_BLOCKS, BLOCK_THREADS),
    shared_bytes: 0,
};

/// [`guided_activation()`](super::guided_activation()) in device memory. Enqueued, not waited for.
///
/// # Errors
///
/// If the lengths differ, memory is not on the stream's device, or the launch fails.
pub fn guided_activation<T: Element>(
    stream: &Stream,
    input: Slice<T>,
    gradient: Slice<T>,
    output: SliceMut<T>,
) -> Result<()> {
    check("gradient", input.len(), gradient.len())?;
    check("output", input.len(), output.len())?;
    enqueue(stream, input, gradient, &output)
}

/// [`in_place`](super::in_place) in device memory. Enqueued, not waited for.
///
/// # Errors
///
/// As for [`guided_activation()`].
pub fn in_place<T: Element>(stream: &Stream, input: Slice<T>, gradient: SliceMut<T>) -> Result<()> {
    check("gradient", input.len(), gradient.len())?;
    enqueue(stream, input, gradient.as_slice(), &gradient)
}

/// All three have one length; `output` may be `gradient`.
fn enqueue<T: Element>(
    stream: &Stream,
    input: Slice<T>,
    gradient: Slice<T>,
    output: &SliceMut<T>,
) -> Result<()> {
    check_devices(
        "guided_activation",
        stream,
        &[("input", &input), ("gradient", &gradient), ("output", output)],
    )?;
    let count = input.len();
    if count == 0 {
        return Ok(());
    }
    let (per_pack, size) = (PACK_BYTES / size_of::<T>(), size_of::<T>() as u64);
    let pack_bytes = PACK_BYTES as u64;
    let offsets = [input.pointer(), gradient.pointer(), output.pointer()].map(|p| p % pack_bytes);
    let (head, packs) = if offsets == [offsets[0]; 3] {
        let head = ((pack_bytes - offsets[0]) % pack_bytes / size).min(count as u64);
        (head, (count as u64 - head) / per_pack as u64)
    } else {
        (0, 0)
    };
    let kernel = stream.gpu().kernel(&PROGRAM, T::SCALAR, KERNEL.entry)?;
    let per_block = per_pack * (BLOCK_THREADS * PACKS_PER_THREAD) as usize;
    let blocks = u32::try_from(count.div_ceil(per_block)).map_err(|_| {
        Error::input(
            "guided_activation",
            format!("input: {count} values are too many to launch; part them"),
        )
    })?;
    let launch = Launch { grid: [blocks, 1, 1], block_threads: BLOCK_THREADS, shared_bytes: 0 };
    // SAFETY: `guided_activation(const T*, const T*, T*, long long, long long, long long)`. Each of
    // the three has `count` values, of which a thread takes those whose place is below that; `head`
    // and `packs` name whole packs within, which are aligned. Where `output` is `gradient`, a
    // thread writes what it alone has read; `input` is borrowed, so that it is neither.
    unsafe {
        stream.launch(&kernel, launch, &[&input, &gradient, output, &(count as u64), &head, &packs])
    }
}
