//! Has libtorch's threads sleep, not spin, while they wait for work.

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use tch::{Kind, Tensor};

const NAME: &str = "medcam-idle";

/// While this lives, threads of libtorch that have nothing to do sleep.
///
/// After each parallel step OpenMP's runtime (GNU's, which libtorch carries) has its threads spin for some
/// milliseconds, in case another step comes soon, and so takes the cores from whoever reads or writes files
/// meanwhile. It does not where it manages more threads than there are cores. So that many are made here, and
/// sleep until this is dropped. What is computed stays the same. `OMP_WAIT_POLICY=passive` in the environment
/// does the same from outside.
#[derive(Debug)]
pub(crate) struct IdleThreadsSleep {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IdleThreadsSleep {
    pub(crate) fn begin() -> Self {
        let (end, ended) = channel::<()>();
        let (made, is_made) = channel::<()>();
        // The threads that it makes have its name too.
        let thread = thread::Builder::new().name(NAME.to_owned()).spawn(move || {
            make_threads(cores().saturating_add(1));
            drop(made);
            // Fails when `end` is dropped.
            let _ = ended.recv();
        });
        // Fails when `made` is dropped.
        let _ = is_made.recv();
        // Without a thread all others go on spinning.
        Self { end: Some(end), thread: thread.ok() }
    }
}

impl Drop for IdleThreadsSleep {
    fn drop(&mut self) {
        drop(self.end.take());
        // Ignore failure: a panic in that thread, which has been reported.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Has OpenMP make threads that work for this thread, and last as long as it does.
fn make_threads(count: i32) {
    /// Voxels of each thread: more than libtorch gives to one thread.
    const EACH: i64 = 1 << 16;
    let of_process = tch::get_num_threads();
    tch::set_num_threads(count);
    let ones = Tensor::f_ones([i64::from(count) * EACH], (Kind::Float, tch::Device::Cpu));
    // Where memory is short no threads are made, and the others go on spinning.
    drop(ones.and_then(|ones| ones.f_exp()));
    // That of threads that start after this, too.
    tch::set_num_threads(of_process);
}

/// The cores on which this process may run, whatever share of their time it has.
fn cores() -> i32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"));
    let allowed =
        allowed.map(|mask| mask.chars().filter_map(|c| c.to_digit(16)).map(u32::count_ones).sum());
    let count = allowed.unwrap_or_else(|| {
        thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
    });
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    fn idle_threads() -> usize {
        let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
        threads
            .filter(|thread| {
                fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == NAME)
            })
            .count()
    }

    #[test]
    fn there_are_more_threads_than_cores_while_it_lasts() {
        let of_process = tch::get_num_threads();
        let sleeping = IdleThreadsSleep::begin();
        assert!(i32::try_from(idle_threads()).is_ok_and(|threads| threads > cores()));
        assert_eq!(tch::get_num_threads(), of_process);
        drop(sleeping);
        // OpenMP's runtime ends them soon after. libtorch's other pool, which it makes anew with each number of
        // threads, stays.
        while i32::try_from(idle_threads()).is_ok_and(|threads| threads > of_process) {
            thread::yield_now();
        }
    }
}
