//! What a map costs over inference alone: a bare no-grad forward, and the same with a Grad-CAM map,
//! for the layer `auto` takes and for a late one. Same process, same threads.
//!
//! After criterion's timings come the ratios, from forwards taken in turn so that what disturbs the
//! machine disturbs both, and the peak memory of each, from a process of its own. Then those of the first
//! forward of a process, which has the layers to find out.
//!
//! The floor of the ratio is 1 plus the share of the network behind the layer: its backward costs
//! about its forward again, since the weights' gradients are not computed. Behind a bottleneck that
//! is the decoder; behind the last stage of a classifier it is next to nothing.
//!
//! `cargo bench --bench inject` needs what `python3 scripts/setup.py bench` makes.
#![expect(clippy::print_stdout, clippy::expect_used, clippy::panic, reason = "a program")]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::Criterion;
use medcam::tch::{self, Kind, Tensor};
use medcam::{Device, LayerChoice, Options, Target, inject, load};

struct Network {
    name: &'static str,
    variable: &'static str,
    file: &'static str,
    input: &'static [i64],
    target: Target,
    /// A late layer, and where to find it in the network.
    late: &'static str,
}

fn networks() -> [Network; 4] {
    [
        Network {
            name: "resnet50_224",
            variable: "MEDCAM_BENCH",
            file: "resnet50.pt",
            input: &[1, 3, 224, 224],
            target: Target::Best,
            late: "layer4.2.bn2",
        },
        Network {
            name: "r3d_18_32x112x112",
            variable: "MEDCAM_BENCH",
            file: "r3d_18.pt",
            input: &[1, 3, 32, 112, 112],
            target: Target::Best,
            late: "layer4.1.conv1",
        },
        Network {
            name: "dynunet_64x64x64",
            variable: "MEDCAM_BENCH",
            file: "dynunet.pt",
            input: &[1, 1, 64, 64, 64],
            target: Target::Class(1),
            late: "skip_layers.upsample.conv_block.norm1",
        },
        Network {
            name: "deepbet_128x128x128",
            variable: "MEDCAM_DATA",
            file: "deepbet-1.0.2/bbox_model.pt",
            input: &[1, 1, 128, 128, 128],
            target: Target::Class(1),
            late: "tp_conv1",
        },
    ]
}

impl Network {
    fn path(&self) -> PathBuf {
        let folder = std::env::var_os(self.variable).unwrap_or_else(|| {
            panic!("{} is not set: run `python3 scripts/setup.py bench` first", self.variable)
        });
        PathBuf::from(folder).join(self.file)
    }

    fn input(&self) -> Tensor {
        tch::manual_seed(0);
        Tensor::rand(self.input, (Kind::Float, tch::Device::Cpu))
    }

    /// A forward as `mode` says: `bare`, `auto`, `late`, `full` (maps of all layers); or without
    /// maps, by libtorch alone: `tape`, with autograd's tape from the input on, and `backward`, with
    /// the gradient at the input too.
    fn forward(&self, mode: &str) -> Box<dyn FnMut()> {
        let input = self.input();
        if mode == "tape" || mode == "backward" {
            let backward = mode == "backward";
            let model = tch::CModule::load(self.path()).expect("the model loads");
            for (_, parameter) in model.named_parameters().expect("it has parameters") {
                let _frozen = parameter.set_requires_grad(false);
            }
            let input = input.set_requires_grad(true);
            return Box::new(move || {
                let output = tch::with_grad(|| model.forward_ts(&[&input]));
                let output = output.expect("the model runs");
                assert!(output.requires_grad());
                if backward {
                    let score = output.select(1, 1).sum(Kind::Float);
                    let _ = Tensor::run_backward(&[&score], &[&input], false, false);
                }
            });
        }
        let model = load(self.path(), Device::Cpu).expect("the model loads");
        if mode == "bare" {
            return Box::new(move || drop(model.forward(&input).expect("the model runs")));
        }
        let layers = match mode {
            "auto" => LayerChoice::Auto,
            "full" => LayerChoice::Full,
            _ => LayerChoice::Names(vec![self.late.to_owned()]),
        };
        let options = Options::default().layers(layers).target(self.target.clone());
        let mut injected = inject(model, options).expect("the model takes the injection");
        Box::new(move || drop(injected.forward(&input).expect("the map is made")))
    }
}

const MODES: [&str; 3] = ["bare", "auto", "late"];
/// Whose memory alone is measured.
const FULL: [&str; 3] = ["full", "tape", "backward"];
/// Freed memory goes back to the system, as it does unless a program asks for another thing: what
/// is held then is what is needed, without the gaps of an allocator that keeps everything.
const RETURNED: &str = "--returned";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == RETURNED) {
        // As the program does it: both sides gain, see there.
        medcam::keep_freed_memory();
    }
    if let [_, flag, name, mode, ..] = &arguments[..] {
        match flag.as_str() {
            "--peak" => return print_peak(name, mode),
            "--first" => return print_first(name, mode),
            _ => {}
        }
    }
    let mut criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    for network in networks() {
        let mut group = criterion.benchmark_group(network.name);
        for mode in MODES {
            let mut forward = network.forward(mode);
            group.bench_function(mode, |bencher| bencher.iter(&mut forward));
        }
        group.finish();
    }
    criterion.final_summary();
    // `cargo bench -- --test` and a filter ask for less.
    if arguments.iter().skip(1).all(|argument| argument == "--bench") {
        let steady = print_ratios();
        print_first_ratios(&steady);
    }
}

/// Returns the ratios of `auto` and `late` of each network.
fn print_ratios() -> Vec<[f64; 2]> {
    let mut steady = Vec::new();
    println!("\nover the bare forward, {} threads, 21 rounds in turn", tch::get_num_threads());
    println!(
        "| network | bare | auto | late | peak: bare | auto | late | net: bare | auto | late |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut of_full = Vec::new();
    for network in networks() {
        let mut forwards = MODES.map(|mode| network.forward(mode));
        let mut seconds = MODES.map(|_| Vec::new());
        for round in 0..22 {
            for (forward, seconds) in forwards.iter_mut().zip(&mut seconds) {
                let start = Instant::now();
                forward();
                // The first round finds out the layers and warms up.
                if round > 0 {
                    seconds.push(start.elapsed().as_secs_f64());
                }
            }
        }
        let [bare, auto, late] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        });
        steady.push([auto / bare, late / bare]);
        let peaks = MODES.map(|mode| peak_mib(network.name, mode, &[]));
        let ratios = |of: fn(&(f64, f64)) -> f64| {
            let [bare, auto, late] = peaks.each_ref().map(of);
            format!("{bare:.0} MiB | {:.2} | {:.2}", auto / bare, late / bare)
        };
        println!(
            "| {} | {:.1} ms | {:.2} | {:.2} | {} | {} |",
            network.name,
            bare * 1e3,
            auto / bare,
            late / bare,
            ratios(|peak| peak.0),
            ratios(|peak| peak.1),
        );
        of_full.push(
            [&[RETURNED][..], &[]]
                .map(|how| (network.name, FULL.map(|mode| peak_mib(network.name, mode, how)))),
        );
    }
    println!(
        "\nmaps of all layers; libtorch's tape from the input on; that and backward to the input"
    );
    println!("| network | memory | peak: tape | backward | full | net: tape | backward | full |");
    println!("|---|---|---|---|---|---|---|---|");
    let hows = ["returned", "kept"].into_iter().cycle();
    for ((name, peaks), how) in of_full.into_iter().flatten().zip(hows) {
        let ratios = |of: fn(&(f64, f64)) -> f64| {
            let [full, tape, backward] = peaks.each_ref().map(of);
            format!("{tape:.0} MiB | {:.2} | {:.2}", backward / tape, full / tape)
        };
        println!("| {name} | {how} | {} | {} |", ratios(|peak| peak.0), ratios(|peak| peak.1));
    }
    steady
}

/// The first forwards of fresh processes over the first bare one, beside the steady ratios.
fn print_first_ratios(steady: &[[f64; 2]]) {
    const ROUNDS: usize = 7;
    println!("\nthe first forward of a process over the first bare one, {ROUNDS} of each in turn");
    println!("| network | first bare | auto: first | steady | late: first | steady |");
    println!("|---|---|---|---|---|---|");
    for (network, steady) in networks().iter().zip(steady) {
        let mut seconds = MODES.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (mode, seconds) in MODES.iter().zip(&mut seconds) {
                seconds.push(first_seconds(network.name, mode));
            }
        }
        let [bare, auto, late] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        });
        println!(
            "| {} | {:.1} ms | {:.2} | {:.2} | {:.2} | {:.2} |",
            network.name,
            bare * 1e3,
            auto / bare,
            steady[0],
            late / bare,
            steady[1],
        );
    }
}

fn first_seconds(name: &str, mode: &str) -> f64 {
    let program = std::env::current_exe().expect("the program has a path");
    let output = Command::new(program).args(["--first", name, mode]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("--first {name} {mode}: {text}"))
}

fn print_first(name: &str, mode: &str) {
    let mut forward = of_name(name).forward(mode);
    let start = Instant::now();
    forward();
    println!("{}", start.elapsed().as_secs_f64());
}

fn of_name(name: &str) -> Network {
    networks().into_iter().find(|network| network.name == name).expect("the name is known")
}

/// The peak memory of a process that runs one kind of forward, whole and over what it held once the
/// model was loaded.
fn peak_mib(name: &str, mode: &str, how: &[&str]) -> (f64, f64) {
    let program = std::env::current_exe().expect("the program has a path");
    let output = Command::new(program).args(["--peak", name, mode]).args(how).output();
    let output = output.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [whole, net] => (whole, net),
        _ => panic!("--peak {name} {mode}: {text}"),
    }
}

fn print_peak(name: &str, mode: &str) {
    let mut forward = of_name(name).forward(mode);
    let before = status_mib("VmRSS:");
    for _ in 0..3 {
        forward();
    }
    let peak = status_mib("VmHWM:");
    println!("{peak} {}", peak - before);
}

fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field is there");
    let kibibytes: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("kB");
    kibibytes / 1024.0
}
