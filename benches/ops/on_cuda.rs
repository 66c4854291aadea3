//! `--cuda`: each op and chain on a GPU, timed by events. `--ceilings` measures the bandwidth of its
//! memory and nothing else, `--seconds N` ends in time, `--calls N` calls our arms alone that often
//! (for a profiler), `--test` is a trial; other arguments are parts of the names of cases.
//!
//! | figure | |
//! |---|---|
//! | `cold` | ours, in a captured graph, on inputs in turn that are too much for the second-level cache |
//! | `warm` | ours, in a captured graph, on the same inputs each time |
//! | `launched` | ours, launched call by call in a long burst, on the inputs of `cold` |
//! | `libtorch`, `libtorch_warm` | libtorch's calls in a long burst, on the inputs of `cold` and of `warm` |
//!
//! In a graph kernels follow each other without the host, so a small one's time is its own; in a burst
//! it may be that of launching.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use medcam::Layout;
use medcam::tch::{Kind, Tensor};
use serde_json::{Map, Value, json};

use super::bandwidth::Bandwidth;
use super::case::{Arm, Case};
use super::clock::{Clock, Graph, LIBTORCH, synchronize};
use super::inputs::Pools;
use super::{OPS, cuda, fused, plan, report, runner};

/// What a burst or a graph should take: much longer than it takes to launch it.
const BURST_SECONDS: f64 = 4e-3;
const FEWEST_CALLS: usize = 4;
const MOST_CALLS: usize = 512;
/// After one that warms up.
const ROUNDS: usize = 11;

/// What the command line asks for.
struct Asked {
    trial: bool,
    ceilings_alone: bool,
    /// Calls of our arms alone, without any figure.
    calls: Option<usize>,
    end: Instant,
    names: Vec<String>,
}

impl Asked {
    fn of(arguments: &[String]) -> Self {
        let mut asked = Self {
            trial: false,
            ceilings_alone: false,
            calls: None,
            // As good as none.
            end: Instant::now() + Duration::from_secs(1 << 20),
            names: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().unwrap().parse::<usize>().unwrap();
            match argument.as_str() {
                // Cargo gives the second.
                "--cuda" | "--bench" => {}
                "--test" => asked.trial = true,
                "--ceilings" => asked.ceilings_alone = true,
                "--calls" => asked.calls = Some(number()),
                "--seconds" => {
                    asked.end = Instant::now() + Duration::from_secs(number() as u64);
                }
                name => asked.names.push(name.to_owned()),
            }
        }
        asked
    }

    fn wants(&self, case: &Case) -> bool {
        let name = name(case);
        let small = case.read() + case.written <= runner::TRIAL_BYTES;
        let is_named = self.names.is_empty() || self.names.iter().any(|part| name.contains(part));
        is_named && (small || !self.trial)
    }
}

fn name(case: &Case) -> String {
    format!("{}/{}", case.op, case.layer.id())
}

/// The file of the figures, which is written after each.
struct File {
    path: Option<PathBuf>,
    json: Map<String, Value>,
}

impl File {
    fn add(&mut self, list: &str, entry: Value) {
        let entries = self.json.entry(list).or_insert_with(|| json!([]));
        entries.as_array_mut().unwrap().push(entry);
        self.write();
    }

    fn write(&self) {
        if let Some(path) = &self.path {
            report::write(path, &Value::Object(self.json.clone()));
        }
    }
}

pub fn main(arguments: &[String]) {
    let asked = Asked::of(arguments);
    assert!(cuda::is_there(), "no CUDA device");
    let clock = Clock::new();
    if let Some(calls) = asked.calls {
        return call(&asked, calls);
    }
    let bandwidth = Bandwidth::measure(&clock, asked.trial);
    println!("{:#}", bandwidth.json());
    let path = std::env::var_os("MEDCAM_BENCH_JSON").map(PathBuf::from);
    let Value::Object(json) = bandwidth.json() else { unreachable!("an object") };
    let mut file = File { path, json };
    file.json.insert("graphs".to_owned(), json!(clock.has_graphs()));
    file.write();
    if asked.ceilings_alone {
        return;
    }
    let mut pools = Pools::default();
    let mut left_out = 0;
    for case in cases().filter(|case| asked.wants(case)) {
        if Instant::now() > asked.end {
            left_out += 1;
            continue;
        }
        let name = name(&case);
        let measured =
            catch_unwind(AssertUnwindSafe(|| measure(case, &clock, &mut pools, asked.trial)));
        match measured {
            Ok(mut row) => {
                let [read, written] = ["bytes_read", "bytes_written"]
                    .map(|key| usize::try_from(row[key].as_u64().unwrap()).unwrap());
                row["floor"] = json!(bandwidth.floor(read, written));
                println!("{name}: {}", line(&row));
                file.add("rows", row);
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref().map(|text: &&str| (*text).into()));
                let why = text.unwrap_or_else(|| "a panic".to_owned());
                file.add("problems", json!(format!("{name}: {why}")));
            }
        }
    }
    if left_out > 0 {
        file.add("problems", json!(format!("no time was left for {left_out} cases")));
    }
}

/// All cases, those that matter most first: chains before the ops that they consist of, f32 before the
/// other types and layouts.
fn cases() -> impl Iterator<Item = Case> {
    let layers = plan::on_cuda();
    let mut cases: Vec<Case> =
        OPS.iter().flat_map(|op| layers.iter().flat_map(|&layer| op(layer))).collect();
    cases.sort_by_key(|case| {
        let layer = case.layer;
        let is_usual = layer.kind == Kind::Float && layer.layout == Layout::Contiguous;
        (!is_usual, !fused::CHAINS.contains(&case.op))
    });
    cases.into_iter()
}

/// Calls our arms, for a profiler to see the kernels.
fn call(asked: &Asked, calls: usize) {
    let mut pools = Pools::default();
    for mut case in cases().filter(|case| asked.wants(case)) {
        let (mut sets, _) = pools.sets(&case, true);
        synchronize();
        for _ in 0..calls {
            (case.medcam)(&mut sets[0]);
        }
        synchronize();
    }
}

/// An arm and the inputs that it takes in turn.
struct Burst<'a> {
    arm: &'a mut Arm,
    sets: &'a mut [Vec<Tensor>],
    next: usize,
}

impl Burst<'_> {
    fn call(&mut self, calls: usize) {
        for _ in 0..calls {
            (self.arm)(&mut self.sets[self.next]);
            self.next = (self.next + 1) % self.sets.len();
        }
    }
}

/// The figures of a case, as JSON.
fn measure(mut case: Case, clock: &Clock, pools: &mut Pools, trial: bool) -> Value {
    let name = name(&case);
    let (read, written) = (case.read(), case.written);
    let (mut sets, is_cold) = pools.sets(&case, trial);
    // They are made on libtorch's stream, for which ours does not wait.
    synchronize();
    let count = sets.len();
    let rounds = if trial { 1 } else { ROUNDS };
    let calls = |arm: &mut Arm, sets: &mut [Vec<Tensor>], stream| {
        let mut burst = Burst { arm, sets, next: 0 };
        if trial {
            burst.call(1);
            return 1;
        }
        burst.call(FEWEST_CALLS);
        let each = clock.seconds(stream, FEWEST_CALLS, || burst.call(FEWEST_CALLS));
        synchronize();
        #[expect(clippy::cast_possible_truncation, reason = "far below the greatest number")]
        let calls = (BURST_SECONDS / each) as usize;
        calls.clamp(FEWEST_CALLS, MOST_CALLS)
    };
    let ours = calls(&mut case.medcam, &mut sets, cuda::stream());
    let libtorch = calls(&mut case.libtorch, &mut sets, LIBTORCH);
    // All sets, as often as it takes.
    let in_turn = ours.next_multiple_of(count);
    let mut capture = |calls: usize, sets: &mut [Vec<Tensor>]| {
        clock.has_graphs().then(|| {
            Graph::capture(cuda::stream(), || {
                Burst { arm: &mut case.medcam, sets, next: 0 }.call(calls);
            })
        })
    };
    let graphs = [capture(in_turn, &mut sets), capture(ours, &mut sets[..1])];
    synchronize();

    let mut seconds: [(&str, Vec<f64>); 5] =
        ["cold", "warm", "launched", "libtorch", "libtorch_warm"].map(|name| (name, Vec::new()));
    let mut next = [0; 2];
    for round in 0..=rounds {
        for (figure, (name, seconds)) in seconds.iter_mut().enumerate() {
            let is_ours = figure < 3;
            let is_warm = name.ends_with("warm");
            let (arm, stream, calls) = if is_ours {
                (&mut case.medcam, cuda::stream(), if figure == 0 { in_turn } else { ours })
            } else {
                (&mut case.libtorch, LIBTORCH, libtorch)
            };
            let sets = if is_warm { &mut sets[..1] } else { &mut sets[..] };
            let mut burst =
                Burst { arm, next: if is_warm { 0 } else { next[usize::from(is_ours)] }, sets };
            let took = clock.seconds(stream, calls, || match graphs.get(figure) {
                Some(Some(graph)) => graph.launch(stream),
                _ => burst.call(calls),
            });
            if !is_warm {
                next[usize::from(is_ours)] = burst.next;
            }
            synchronize();
            // The first round warms up.
            if round > 0 {
                seconds.push(took);
            }
        }
    }
    drop(graphs);
    let mut row = json!({
        "id": name,
        "op": case.op,
        "bytes_read": read,
        "bytes_written": written,
        "sets": count,
        "is_cold": is_cold,
        "calls": { "cold": in_turn, "ours": ours, "libtorch": libtorch },
    });
    for (name, mut seconds) in seconds {
        seconds.sort_by(f64::total_cmp);
        let quantile = |tenths: usize| seconds[(seconds.len() - 1) * tenths / 10];
        row[name] = json!({
            "median": quantile(5), "tenth": quantile(1), "ninetieth": quantile(9),
        });
    }
    row
}

/// The medians of a row in microseconds.
fn line(row: &Value) -> String {
    let part = |name: &str| {
        let seconds = row[name]["median"].as_f64().unwrap();
        format!("{name} {:.1}", seconds * 1e6)
    };
    let floor = row["floor"].as_f64().unwrap() * 1e6;
    let parts = ["cold", "warm", "launched", "libtorch", "libtorch_warm"].map(part);
    format!("{} us, floor {floor:.1}", parts.join(", "))
}
