//! The sums of an evaluation on a GPU.

use super::{TABLE_LENGTH, check};
use crate::device::{KernelBudget, Launch, Program, Scalar, Slice, SliceMut, Stream};
use crate::error::{Error, Result};
use crate::ops::launch::{check_devices, registers_for};

/// Threads of a block, at least.
const LEAST_THREADS: u32 = 256;
/// Threads of a block, at most: a block adds up to 2060 words to the table in the end, one atomic
/// each, so that few large blocks add less often than many small ones.
const MOST_THREADS: u32 = 1024;
/// Blocks of the most threads on a multiprocessor: what the registers of the kernel allow, up to 64 a
/// thread. Smaller blocks are as many threads.
const RESIDENT_BLOCKS: u32 = 1;
/// Values that a thread loads at once: 16 bytes of the map.
const PER_LOAD: u32 = 4;
/// Loads that a thread has under way. A block makes a multiple of so many rounds.
const UNROLLED: u32 = 4;
/// Rounds of a block, at most: 49152 values, which a counter of 16 bits holds. What the block adds to
/// the table in the end is then little beside what it reads.
const MOST_ROUNDS: u32 = 12;
/// As the kernel takes it.
#[expect(clippy::cast_possible_truncation, reason = "a few thousand")]
const TABLE_WORDS: u32 = TABLE_LENGTH as u32;
/// 64-bit words of a table, in 32-bit counters.
const TABLE_COUNTERS: usize = 2 * TABLE_LENGTH;

/// `kernels/evaluation_sums.cu`.
pub static PROGRAM: Program = Program {
    stem: "evaluation_sums",
    source: include_str!("../../../kernels/evaluation_sums.cu"),
    scalars: &[Scalar::F32],
    defines: &[
        ("MOST_THREADS", MOST_THREADS),
        ("RESIDENT_BLOCKS", RESIDENT_BLOCKS),
        ("PER_LOAD", PER_LOAD),
        ("UNROLLED", UNROLLED),
        ("MOST_ROUNDS", MOST_ROUNDS),
        ("TABLE_LENGTH", TABLE_WORDS),
    ],
    kernels: &[KERNEL],
};

const KERNEL: KernelBudget = KernelBudget {
    entry: "evaluation_sums",
    registers: registers_for(RESIDENT_BLOCKS, MOST_THREADS),
    shared_bytes: 8256,
};

/// The tables of [`evaluation_sums()`](super::evaluation_sums()) in device memory; downloaded,
/// [`EvaluationSums::from_tables`](super::EvaluationSums::from_tables) reads them. Enqueued, not
/// waited for.
///
/// `map`, `mask` and `threshold` are as there. `tables` takes `B` times [`TABLE_LENGTH`] words.
///
/// # Errors
///
/// If the lengths do not agree, `threshold` is not in `[0, 1]`, memory is not on the stream's
/// device, or the launch fails. Values of `map` that are not in `[0, 1]` are an error when the
/// tables are read.
pub fn evaluation_sums(
    stream: &Stream,
    map: Slice<f32>,
    mask: Option<Slice<u8>>,
    batch: usize,
    threshold: Option<f32>,
    tables: SliceMut<u64>,
) -> Result<()> {
    check(map.len(), mask.map(|mask| mask.len()), batch, threshold)?;
    let refuse = |what: String| Err(Error::input("evaluation_sums", what));
    if tables.len() != batch * TABLE_LENGTH {
        let (words, given) = (batch * TABLE_LENGTH, tables.len());
        return refuse(format!("tables: {batch} samples take {words} words, it has {given}"));
    }
    check_devices(
        "evaluation_sums",
        stream,
        &[("map", &map), ("mask", &mask), ("tables", &tables)],
    )?;
    let voxels = map.len() / batch;
    let blocks = |threads: u32, rounds: u32| {
        voxels.div_ceil(rounds as usize * PER_LOAD as usize * threads as usize)
    };
    let multiprocessors = stream.gpu().multiprocessors() as usize;
    // Larger blocks as long as three of four multiprocessors have one: at 128³ voxels, an H100's.
    let mut threads = LEAST_THREADS;
    while threads < MOST_THREADS && 4 * batch * blocks(2 * threads, UNROLLED) >= 3 * multiprocessors
    {
        threads *= 2;
    }
    // Fewer rounds where that gives each multiprocessor a block or two more to do.
    let mut rounds = MOST_ROUNDS;
    while rounds > UNROLLED && batch * blocks(threads, rounds) < 2 * multiprocessors {
        rounds -= UNROLLED;
    }
    let blocks = blocks(threads, rounds);
    let (Ok(all_blocks), Ok(blocks)) = (u32::try_from(batch * blocks), u32::try_from(blocks))
    else {
        return refuse(format!("map: {batch} samples of {voxels} values are too many to launch"));
    };
    let kernel = stream.gpu().kernel(&PROGRAM, Scalar::F32, KERNEL.entry)?;
    let (sums, counters) =
        stream.counters(batch * (TABLE_COUNTERS + 1))?.split_at(batch * TABLE_COUNTERS)?;
    let threshold = threshold.unwrap_or(f32::NAN);
    let launch = Launch { grid: [all_blocks, 1, 1], block_threads: threads, shared_bytes: 0 };
    // SAFETY: `evaluation_sums(const float*, const u8*, long long, float, unsigned, int, unsigned
    // long long*, unsigned*, unsigned long long*)`. `map`, and `mask` unless it is null, have
    // `batch` times `voxels` values, and no thread reads behind those of its sample. The counters,
    // 256 bytes aligned, hold `batch` tables of 64-bit words that are 0 and a counter for each, and
    // the last block of a sample makes all of them 0 again. `tables` has room for as many.
    unsafe {
        stream.launch(
            &kernel,
            launch,
            &[
                &map,
                &mask,
                &(voxels as u64),
                &threshold,
                &blocks,
                &rounds,
                &sums,
                &counters,
                &tables,
            ],
        )
    }
}
