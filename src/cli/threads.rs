//! How many threads the program works with.

use crate::error::{Error, Result};

/// Gives libtorch and our own loops (rayon) as many threads as were asked for, or as this process may use.
///
/// They take turns: a forward, the maps, a file. So each has all threads, and together no more than these run at once.
/// gzip has one.
pub fn use_threads(asked: Option<u16>) -> Result<()> {
    let slurm = || std::env::var("SLURM_CPUS_PER_TASK").ok()?.parse::<u16>().ok();
    let Some(threads) = asked.or_else(|| slurm().filter(|&threads| threads > 0)) else {
        // rayon does so by itself. libtorch may count cores beyond the limit of a container.
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        if let Ok(usable) = i32::try_from(usable)
            && usable < tch::get_num_threads()
        {
            tch::set_num_threads(usable);
        }
        return Ok(());
    };
    tch::set_num_threads(i32::from(threads));
    rayon::ThreadPoolBuilder::new()
        .num_threads(usize::from(threads))
        .build_global()
        .map_err(|error| Error::usage(format!("--threads {threads}: {error}")))
}
