//! `medcam plan`: how much memory a cohort will take.

use std::process::ExitCode;

use bytesize::ByteSize;
use sysinfo::System;

use super::args::CohortArguments;
use super::cohort::{cases, part_of};
use super::job::Job;
use super::model::load_models;
use super::terminal::{print, print_json};
use crate::error::{Error, Result};
use crate::record::MemoryPrediction;

pub fn run(arguments: &CohortArguments) -> Result<ExitCode> {
    let options = &arguments.options;
    let job = Job::new(options)?;
    if arguments.sources.is_empty() {
        return Err(Error::usage(
            "plan: a worker is not told its images; give SOURCE in place of --worker",
        ));
    }
    let all = cases(arguments, &job)?;
    let cases = match part_of(arguments)? {
        Some(part) => part.of(all),
        None => all,
    };
    let (card, models) = load_models(&options.model)?;
    let mut cohort = job.cohort(models, card)?;
    let limit = match arguments.max_memory {
        Some(limit) => limit.as_u64(),
        None => available_bytes()?,
    };
    let prediction = cohort.max_memory(&cases, limit)?;
    match arguments.json {
        true => print_json(&prediction)?,
        false => print(table(cases.len(), &prediction))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Memory that is free, on this machine and in this container.
fn available_bytes() -> Result<u64> {
    let mut system = System::new().map_err(|error| {
        Error::unavailable(format!("free memory is not known ({error}); give --max-memory"))
    })?;
    system.refresh_memory();
    let of_machine = system.available_memory();
    Ok(system.cgroup_limits().map_or(of_machine, |limits| limits.free_memory.min(of_machine)))
}

fn table(cases: usize, prediction: &MemoryPrediction) -> String {
    let MemoryPrediction { largest, input_shape, tried_shape, tried_seconds, .. } = prediction;
    let size = |bytes: u64| ByteSize(bytes).to_string();
    let measured = match input_shape == tried_shape {
        true => "measured".to_owned(),
        false => format!("predicted from trials up to {tried_shape:?}"),
    };
    [
        format!("{cases} case(s); the largest that fits is {largest}, input of the model {input_shape:?}"),
        format!("process with its models   {:>10}", size(prediction.process_bytes)),
        format!("... while an input runs   {:>10}   {measured}", size(prediction.forward_bytes)),
        format!("a case in flight          {:>10}   image, input, output, maps, files", size(prediction.case_bytes)),
        format!("cases in flight           {:>10}", prediction.in_flight),
        format!("peak                      {:>10}   of {}", size(prediction.peak_bytes), size(prediction.limit_bytes)),
        format!("cases that are too large  {:>10}", prediction.too_large),
        format!("inference and maps        {tried_seconds:>8.2} s   for {tried_shape:?}"),
    ]
    .join("\n")
}
