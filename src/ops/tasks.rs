//! Work shared among the threads of the rayon pool, if there is enough of it.

use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

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
    match pool() {
        Pool::Current => items.into_par_iter().map(run).collect(),
        Pool::Own(pool) => pool.install(|| items.into_par_iter().map(run).collect()),
        Pool::None => items.into_iter().map(run).collect(),
    }
}

/// How many threads [`map`] works with, at most.
pub(super) fn threads() -> usize {
    match pool() {
        Pool::Current => rayon::current_num_threads(),
        Pool::Own(pool) => pool.current_num_threads(),
        Pool::None => 1,
    }
}

enum Pool {
    /// That of the calling thread, or rayon's own.
    Current,
    /// That of a forked process, whose copy of rayon's own pool has no threads.
    Own(&'static ThreadPool),
    None,
}

/// The threads that can work: a fork takes none along.
fn pool() -> Pool {
    /// The process that started rayon's own pool; 0 for none yet.
    static STARTED_IN: AtomicU32 = AtomicU32::new(0);
    /// The pool of a forked process. A process that a thread forked off while another held this lock
    /// never gets it, and works with one thread.
    static FORKED: Mutex<Option<(u32, &ThreadPool)>> = Mutex::new(None);
    if rayon::current_thread_index().is_some() {
        return Pool::Current;
    }
    let process = process::id();
    let first = STARTED_IN.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed);
    if first.is_ok() || first == Err(process) {
        return Pool::Current;
    }
    let Ok(mut forked) = FORKED.try_lock() else { return Pool::None };
    match *forked {
        Some((of, pool)) if of == process => Pool::Own(pool),
        _ => match ThreadPoolBuilder::new().build() {
            Ok(pool) => {
                // Never dropped: that would wait for the threads of a pool that was forked away.
                let pool: &ThreadPool = Box::leak(Box::new(pool));
                *forked = Some((process, pool));
                Pool::Own(pool)
            }
            Err(_) => Pool::None,
        },
    }
}
