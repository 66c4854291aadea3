//! The number of threads of the program.

use crate::error::{Error, Result};

/// Sets the number of threads of libtorch and of our own loops (rayon): as requested, else
/// `SLURM_CPUS_PER_TASK`, else as many as this process may use.
///
/// Forward, maps and files follow one another, so each may use all threads, and no more than this
/// number run at once. gzip uses one.
pub fn use_threads(asked: Option<u16>) -> Result<()> {
    let slurm = || std::env::var("SLURM_CPUS_PER_TASK").ok()?.parse::<u16>().ok();
    let Some(threads) = asked.or_else(|| slurm().filter(|&threads| threads > 0)) else {
        // rayon counts the usable cores itself; libtorch may count cores beyond a container's
        // limit.
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
