//! Each op and chain against the same computation composed of libtorch's own calls, as M3d-CAM,
//! pytorch-grad-cam and MONAI write it: one call on inputs that no cache holds, both arms in turn.
//!
//! After criterion's figures comes a table: medians of both arms, and the least time in which the
//! machine's memory moves the bytes that the op must read and write, at the bandwidth measured in
//! the same run. docs/performance.md says how to read it.
//!
//! `cargo bench --bench ops` takes some minutes; `-- --quick` one, `-- grad_cam/cpu` one chain.
//! `-- --cuda` times a GPU instead (`ops/on_cuda.rs`), `-- --network FILE ...` a whole network
//! (`ops/network.rs`). `MEDCAM_BENCH_JSON=FILE` writes the figures to a file.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program")]

#[path = "ops/alpha_weights.rs"]
mod alpha_weights;
#[path = "ops/bandwidth.rs"]
mod bandwidth;
#[path = "ops/case.rs"]
mod case;
#[path = "ops/ceiling.rs"]
mod ceiling;
#[path = "ops/channel_weights.rs"]
mod channel_weights;
#[path = "ops/clock.rs"]
mod clock;
#[path = "ops/cuda.rs"]
mod cuda;
#[path = "ops/elementwise.rs"]
mod elementwise;
#[path = "ops/evaluation_sums.rs"]
mod evaluation_sums;
#[path = "ops/fused.rs"]
mod fused;
#[path = "ops/guided_activation.rs"]
mod guided_activation;
#[path = "ops/guided_product.rs"]
mod guided_product;
#[path = "ops/inputs.rs"]
mod inputs;
#[cfg(feature = "files")]
#[path = "ops/network.rs"]
mod network;
#[path = "ops/normalize.rs"]
mod normalize;
#[path = "ops/on_cuda.rs"]
mod on_cuda;
#[path = "ops/plan.rs"]
mod plan;
#[path = "ops/project.rs"]
mod project;
#[path = "ops/report.rs"]
mod report;
#[path = "ops/resample.rs"]
mod resample;
#[path = "ops/runner.rs"]
mod runner;
#[path = "ops/summary.rs"]
mod summary;

use std::time::Duration;

use criterion::Criterion;

/// The cases of each op for one layer.
const OPS: &[fn(case::Layer) -> Vec<case::Case>] = &[
    channel_weights::cases,
    alpha_weights::cases,
    project::cases,
    elementwise::cases,
    resample::cases,
    normalize::cases,
    guided_product::cases,
    guided_activation::cases,
    evaluation_sums::cases,
    summary::cases,
    fused::cases,
];

fn main() {
    // As the program does it: both sides gain, see there.
    medcam::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if asked("--cuda") {
        return on_cuda::main(&arguments);
    }
    #[cfg(feature = "files")]
    if asked("--network") {
        return network::main(&arguments);
    }
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .nresamples(2000)
        .without_plots()
        .configure_from_args();
    // What `cargo bench -- --test` asks for: that everything runs.
    let mut runner = runner::Runner::new(criterion, asked("--test"));
    let layers = plan::on_cpu();
    for op in OPS {
        for case in layers.iter().flat_map(|&layer| op(layer)) {
            if runner.wants(&case) {
                runner.run(case);
            }
        }
    }
    let (rows, ceilings) = runner.finish();
    println!("{}", report::table(&rows, &ceilings));
    if let Some(path) = std::env::var_os("MEDCAM_BENCH_JSON") {
        report::write(path.as_ref(), &report::json(&rows, &ceilings));
    }
}
