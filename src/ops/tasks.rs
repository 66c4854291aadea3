//! Doing many things at once, where they are worth it.

use rayon::prelude::*;

/// Values that a call must touch before it is shared among threads.
///
/// Handing over to the pool and back takes microseconds on idle cores. After a backward they are not
/// idle: libtorch's own threads spin on them for a while, and a hand-over was seen to take up to 4
/// ms, in which one thread does several million values.
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
