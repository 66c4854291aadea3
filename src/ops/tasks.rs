//! Work shared among the threads of the rayon pool, if there is enough of it.

use rayon::prelude::*;

/// A call that touches fewer values runs on one thread.
///
/// Handing work to the pool and back takes microseconds on idle cores. After a backward pass cores are
/// not idle: libtorch's threads spin on them for a while, and a hand-over was measured to take up to 4
/// ms, in which one thread processes several million values.
const WORTH: usize = 1 << 21;

/// The results of `run` for each item, in order. `work` is how many values the call touches.
pub(super) fn map<I: Send, R: Send>(
    work: usize,
    items: impl Iterator<Item = I>,
    run: impl Fn(I) -> R + Send + Sync,
) -> Vec<R> {
    if work <= WORTH {
        return items.map(run).collect();
    }
    let items: Vec<I> = items.collect();
    items.into_par_iter().map(run).collect()
}
