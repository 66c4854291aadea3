//! Runs a case on the CPU: both arms in turn, on inputs that no cache holds.

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use medcam::tch::{self, Tensor};

use super::case::{Case, Place};
use super::ceiling::Ceiling;
use super::inputs;
use super::report::Row;

/// The arms, in the order of all pairs here.
pub const ARMS: [&str; 2] = ["medcam", "libtorch"];

/// Before each call on the CPU: libtorch's threads spin for some milliseconds after they were
/// needed, and would take the cores from whoever comes next.
const PAUSE: Duration = Duration::from_millis(8);

/// The most that a case moves if it is to be part of a trial.
pub const TRIAL_BYTES: usize = 16 << 20;

/// A figure of fewer rounds is none.
const FEWEST_ROUNDS: usize = 5;

pub struct Runner {
    criterion: Criterion,
    one_thread: rayon::ThreadPool,
    ceilings: Vec<Ceiling>,
    rows: Vec<Row>,
    trial: bool,
}

impl Runner {
    pub fn new(criterion: Criterion, trial: bool) -> Self {
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        one_thread.install(|| tch::set_num_threads(1));
        Self { criterion, one_thread, ceilings: Vec::new(), rows: Vec::new(), trial }
    }

    /// Whether a case is to be run: in a trial, only if it is small.
    pub fn wants(&self, case: &Case) -> bool {
        !self.trial || case.read() + case.written <= TRIAL_BYTES
    }

    /// Runs a case if criterion's filter lets it through. Criterion is told of our own arm; libtorch's
    /// is timed in the same rounds, for the table.
    pub fn run(&mut self, case: Case) {
        let (place, id, bytes) = (case.layer.place, case.layer.id(), case.read() + case.written);
        let mut group = self.criterion.benchmark_group(case.op);
        group.throughput(Throughput::Bytes(bytes as u64)).sampling_mode(SamplingMode::Flat);
        let (mut waiting, mut rounds) = (Some(case), None);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let rounds = rounds.get_or_insert_with(|| {
                    if !self.trial {
                        let ceiling = ceiling(&mut self.ceilings, place);
                        on_threads_of(place, &self.one_thread, || ceiling.measure());
                    }
                    Rounds::new(waiting.take().unwrap(), self.trial)
                });
                on_threads_of(place, &self.one_thread, || rounds.take(iterations))[0]
            });
        });
        group.finish();
        if let Some(rounds) = rounds
            && rounds.seconds[0].len() >= FEWEST_ROUNDS
        {
            self.rows.push(Row::new(&rounds.case, rounds.seconds));
        }
    }

    /// What was measured.
    pub fn finish(self) -> (Vec<Row>, Vec<Ceiling>) {
        self.criterion.final_summary();
        (self.rows, self.ceilings)
    }
}

fn ceiling(ceilings: &mut Vec<Ceiling>, place: Place) -> &mut Ceiling {
    let known = ceilings.iter().position(|ceiling| ceiling.place() == place);
    let index = known.unwrap_or_else(|| {
        ceilings.push(Ceiling::new(place));
        ceilings.len() - 1
    });
    &mut ceilings[index]
}

fn on_threads_of<R: Send>(
    place: Place,
    one_thread: &rayon::ThreadPool,
    run: impl FnOnce() -> R + Send,
) -> R {
    if place == Place::CpuOneThread { one_thread.install(run) } else { run() }
}

/// A case under way.
struct Rounds {
    case: Case,
    sets: Vec<Vec<Tensor>>,
    next: usize,
    /// Of each arm, seconds per call; without the first round, which warms up.
    seconds: [Vec<f64>; 2],
    warm: bool,
}

impl Rounds {
    fn new(case: Case, trial: bool) -> Self {
        let sets = inputs::sets(&case, trial);
        Self { case, sets, next: 0, seconds: Default::default(), warm: false }
    }

    /// Times both arms `rounds` times; returns the sum for each, of one call per round.
    fn take(&mut self, rounds: u64) -> [Duration; 2] {
        let mut totals = [Duration::ZERO; 2];
        for round in 0..rounds {
            for turn in 0..2 {
                // Neither arm is always the first.
                let arm = if round % 2 == 0 { turn } else { 1 - turn };
                let call = self.call(arm);
                totals[arm] += call;
                if self.warm {
                    self.seconds[arm].push(call.as_secs_f64());
                }
            }
            self.warm = true;
        }
        totals
    }

    fn call(&mut self, arm: usize) -> Duration {
        std::thread::sleep(PAUSE);
        let run = if arm == 0 { &mut self.case.medcam } else { &mut self.case.libtorch };
        let start = Instant::now();
        run(&mut self.sets[self.next]);
        let took = start.elapsed();
        self.next = (self.next + 1) % self.sets.len();
        took
    }
}
