//! The pipeline: three stages, each on threads of its own, and a bound on the cases between its ends.

use std::iter::repeat_with;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::error::Result;

/// Stops a run: cases that are begun are finished, no other is begun.
///
/// # Example
///
/// ```
/// let cancel = medcam::cohort::Cancel::default();
/// assert!(!cancel.is_cancelled());
/// cancel.cancel(); // from any thread, or a signal's handler
/// assert!(cancel.is_cancelled());
/// ```
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// Begins no more cases.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether no more cases are begun.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How many threads each end of the pipeline has, and how many cases are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// Threads that read and prepare images.
    pub readers: NonZeroUsize,
    /// Threads that hand finished maps to the sink.
    pub writers: NonZeroUsize,
    /// The most cases that are begun and not finished. Memory is bounded by this many.
    pub in_flight: NonZeroUsize,
}

impl Threads {
    /// One reader and two writers for each model, and as many cases as keep all of them busy.
    pub(super) fn for_models(models: usize) -> Self {
        let of_models =
            |each: usize| NonZeroUsize::MIN.saturating_add((models * each).saturating_sub(1));
        Self { readers: of_models(1), writers: of_models(2), in_flight: of_models(5) }
    }
}

/// What the threads of one stage of a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageTime {
    /// Its threads.
    pub threads: usize,
    /// The cases that it took; those that an earlier stage failed are not among them.
    pub cases: u64,
    /// Time in its step, summed over its threads.
    pub busy: Duration,
    /// Time spent waiting for a case, summed over its threads.
    pub waiting: Duration,
}

/// What the stages of a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageTimes {
    /// Reading and preparing images.
    pub read: StageTime,
    /// Inference and maps.
    pub infer: StageTime,
    /// The [`Sink`](super::Sink).
    pub write: StageTime,
}

impl std::ops::AddAssign for StageTimes {
    /// Counts one run after another.
    fn add_assign(&mut self, other: Self) {
        let Self { read, infer, write } = self;
        for (ours, others) in [(read, other.read), (infer, other.infer), (write, other.write)] {
            ours.threads = others.threads;
            ours.cases += others.cases;
            ours.busy += others.busy;
            ours.waiting += others.waiting;
        }
    }
}

/// The counters of one stage, which its threads share.
#[derive(Default)]
struct Clock {
    cases: AtomicU64,
    busy_ns: AtomicU64,
    waiting_ns: AtomicU64,
}

impl Clock {
    fn add(to: &AtomicU64, since: Instant) {
        let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        to.fetch_add(ns, Ordering::Relaxed);
    }

    fn read(&self, threads: usize) -> StageTime {
        let [busy, waiting] = [&self.busy_ns, &self.waiting_ns]
            .map(|ns| Duration::from_nanos(ns.load(Ordering::Relaxed)));
        StageTime { threads, cases: self.cases.load(Ordering::Relaxed), busy, waiting }
    }
}

/// A case on its way, with its number from 0.
struct Numbered<C, T> {
    index: usize,
    case: C,
    what: T,
}

/// The steps that a case goes through.
pub(super) struct Steps<R, I, W> {
    pub read: R,
    /// One for each thread that infers.
    pub infer: Vec<I>,
    pub write: W,
}

/// Takes each case through the steps, and hands what becomes of it to `finished`, on this thread: in the
/// order of the cases with `in_order`, else as they finish.
///
/// An error of `finished` begins no more cases, and is returned once those in the pipeline are finished.
///
/// Cases wait only for a free place in the pipeline (`threads.in_flight`): what lies between two stages is
/// bounded by that alone, so that the slowest stage sets the pace.
pub(super) fn run<C, P, M, K>(
    cases: impl Iterator<Item = C> + Send,
    threads: Threads,
    steps: Steps<
        impl Fn(usize, &C) -> Result<P> + Sync,
        impl FnMut(usize, &C, P) -> Result<M> + Send,
        impl Fn(usize, &C, M) -> Result<K> + Sync,
    >,
    cancel: &Cancel,
    in_order: bool,
    mut finished: impl FnMut(usize, C, Result<K>) -> Result<()>,
) -> Result<StageTimes>
where
    C: Send,
    P: Send,
    M: Send,
    K: Send,
{
    let Steps { read, infer, write } = steps;
    let (places, place) = bounded::<()>(threads.in_flight.get());
    let (to_read, from_source) = unbounded();
    let (to_infer, from_readers) = unbounded();
    let (to_write, from_workers) = unbounded();
    let (to_finish, from_writers) = unbounded();
    let mut cases = cases.enumerate();
    let models = infer.len();
    let clocks: [Clock; 3] = Default::default();
    let [of_read, of_infer, of_write] = &clocks;
    thread::scope(|scope| {
        scope.spawn(move || {
            // Fails where the last stage is gone. A case is taken when it has a place, not before.
            while !cancel.is_cancelled() && places.send(()).is_ok() && !cancel.is_cancelled() {
                let Some((index, case)) = cases.next() else { break };
                if to_read.send(Numbered { index, case, what: Ok(()) }).is_err() {
                    break;
                }
            }
        });
        let read = &read;
        for (from, to) in ends(&from_source, &to_infer).take(threads.readers.get()) {
            scope.spawn(move || stage(&from, &to, of_read, |index, case, ()| read(index, case)));
        }
        for (mut infer, (from, to)) in infer.into_iter().zip(ends(&from_readers, &to_write)) {
            let mut infer = move |index, case: &_, read| infer(index, case, read);
            scope.spawn(move || stage(&from, &to, of_infer, &mut infer));
        }
        let write = &write;
        for (from, to) in ends(&from_workers, &to_finish).take(threads.writers.get()) {
            let write = |index, case: &_, maps| write(index, case, maps);
            scope.spawn(move || stage(&from, &to, of_write, write));
        }
        // Only the stages have these ends now: a stage ends with the one before it.
        drop((from_source, to_infer, from_readers, to_write, from_workers, to_finish));
        // Dropped here even by a panic of `finished`: whoever waits for a place is told.
        let place = place;
        let mut result = Ok(());
        for Numbered { index, case, what } in in_turn(from_writers, in_order) {
            // A place was taken for this case.
            let _ = place.try_recv();
            if result.is_ok() {
                result = finished(index, case, what).inspect_err(|_| cancel.cancel());
            }
        }
        result
    })?;
    Ok(StageTimes {
        read: of_read.read(threads.readers.get()),
        infer: of_infer.read(models),
        write: of_write.read(threads.writers.get()),
    })
}

/// The same two ends, for each thread of a stage.
fn ends<A, B>(
    from: &Receiver<A>,
    to: &Sender<B>,
) -> impl Iterator<Item = (Receiver<A>, Sender<B>)> {
    repeat_with(|| (from.clone(), to.clone()))
}

/// Takes cases through one step; those that failed before go on as they are.
fn stage<C, A, B>(
    from: &Receiver<Numbered<C, Result<A>>>,
    to: &Sender<Numbered<C, Result<B>>>,
    clock: &Clock,
    mut step: impl FnMut(usize, &C, A) -> Result<B>,
) {
    loop {
        let waits = Instant::now();
        let Ok(Numbered { index, case, what }) = from.recv() else { break };
        Clock::add(&clock.waiting_ns, waits);
        let what = what.and_then(|what| {
            let begins = Instant::now();
            let result = step(index, &case, what);
            Clock::add(&clock.busy_ns, begins);
            clock.cases.fetch_add(1, Ordering::Relaxed);
            result
        });
        if to.send(Numbered { index, case, what }).is_err() {
            break;
        }
    }
}

/// What comes, in the order of its numbers if asked for.
fn in_turn<C, T>(
    from: Receiver<Numbered<C, T>>,
    in_order: bool,
) -> impl Iterator<Item = Numbered<C, T>> {
    let mut early: Vec<Numbered<C, T>> = Vec::new();
    let mut next = 0;
    std::iter::from_fn(move || {
        loop {
            if let Some(at) = early.iter().position(|case| case.index == next) {
                next += 1;
                return Some(early.swap_remove(at));
            }
            let case = from.recv().ok()?;
            if !in_order {
                return Some(case);
            }
            early.push(case);
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    fn threads(readers: usize, writers: usize, in_flight: usize) -> Threads {
        let [readers, writers, in_flight] =
            [readers, writers, in_flight].map(|n| NonZeroUsize::new(n).unwrap());
        Threads { readers, writers, in_flight }
    }

    type Read = fn(usize, &usize) -> Result<usize>;
    type Step = fn(usize, &usize, usize) -> Result<usize>;

    /// Takes its time, and fails for every seventh case.
    fn step<const STAGE: usize>(index: usize, case: &usize, so_far: usize) -> Result<usize> {
        assert_eq!(index + 100, *case);
        std::thread::sleep(Duration::from_micros((index * 37 % 11) as u64 * 20));
        match index % 7 == STAGE {
            true => Err(Error::usage(format!("stage {STAGE}"))),
            false => Ok(so_far * 10 + STAGE),
        }
    }

    fn steps(models: usize) -> Steps<Read, Step, Step> {
        let read = |index, case: &usize| step::<1>(index, case, 0);
        Steps { read, infer: vec![step::<2>; models], write: step::<3> }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn each_case_comes_out_once(
            count in 0_usize..60,
            (readers, models, writers) in (1_usize..4, 1_usize..4, 1_usize..4),
            in_flight in 1_usize..9,
            in_order: bool,
        ) {
            let begun = AtomicUsize::new(0);
            let cases = (100..100 + count).inspect(|_| { begun.fetch_add(1, Ordering::SeqCst); });
            let mut came = Vec::new();
            let threads = threads(readers, writers, in_flight);
            run(cases, threads, steps(models), &Cancel::default(), in_order, |index, case, kept| {
                // The place of this case is free for another already.
                assert!(begun.load(Ordering::SeqCst) <= came.len() + 1 + in_flight);
                assert_eq!(index + 100, case);
                let failed = (1..4).find(|stage| index % 7 == *stage);
                let expected = failed.map_or(Ok(123), |stage| Err(format!("stage {stage}")));
                assert_eq!(kept.map_err(|error| error.to_string()), expected);
                came.push(index);
                Ok(())
            })
            .unwrap();
            if !in_order {
                came.sort_unstable();
            }
            prop_assert_eq!(came, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cancelled_run_finishes_what_is_begun() {
        let (begun, cancel) = (AtomicUsize::new(0), Cancel::default());
        let cases = (100..).inspect(|_| {
            begun.fetch_add(1, Ordering::SeqCst);
        });
        let mut came = 0;
        run(cases, threads(2, 2, 4), steps(1), &cancel, true, |index, _, _| {
            assert_eq!(index, came);
            came += 1;
            if came == 20 {
                cancel.cancel();
            }
            Ok(())
        })
        .unwrap();
        assert!((20..=24).contains(&came), "{came}");
        assert_eq!(begun.into_inner(), came);
    }

    /// Nobody waits for ever: whichever thread panics, so does the run.
    #[test]
    fn a_panic_ends_the_run() {
        let panics = |stage: usize| {
            let at = move |here: usize, index: usize| {
                assert!(here != stage || index < 5, "planted");
                Ok(())
            };
            let steps = Steps {
                read: |index, _: &usize| at(1, index),
                infer: vec![|index, _: &usize, ()| at(2, index)],
                write: |index, _: &usize, ()| at(3, index),
            };
            let finished = |index, _, _: Result<()>| at(4, index);
            let run = || run(100.., threads(1, 1, 2), steps, &Cancel::default(), true, finished);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
        };
        assert!((1..=4).all(panics));
    }

    #[test]
    fn an_error_at_the_end_stops_the_run_and_is_returned() {
        let mut came = 0;
        let result = run(100.., threads(1, 1, 3), steps(1), &Cancel::default(), true, |_, _, _| {
            came += 1;
            if came == 5 { Err(Error::usage("full")) } else { Ok(()) }
        });
        assert_eq!(result.unwrap_err().to_string(), "full");
        assert_eq!(came, 5);
    }
}
