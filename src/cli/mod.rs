//! The `medcam` program: arguments, progress, files, exit codes. Everything else is in the library.
//!
//! Exit codes: 0, 1 (a run failed), 2 (usage).

mod args;
mod cohort;
mod evaluate;
mod interrupt;
mod job;
mod layers;
mod map;
mod merge;
mod model;
mod plan;
mod progress;
mod score;
mod terminal;
mod threads;
mod tracing;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

use crate::error::Error;

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let profiled = match &arguments.command {
        Command::Cohort(cohort) if cohort.profile => Some(cohort.options.output.as_path()),
        _ => None,
    };
    // Completes its file where it is dropped, at the end.
    let _profile = match tracing::to_stderr(arguments.verbose, profiled) {
        Ok(profile) => profile,
        Err(error) => return fail(&error),
    };
    let result = match arguments.command {
        Command::Layers(arguments) => layers::run(&arguments),
        Command::Map(arguments) => map::run(&arguments),
        Command::Cohort(arguments) if arguments.worker => cohort::work(&arguments),
        Command::Cohort(arguments) => cohort::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Merge(arguments) => merge::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    terminal::complain(format!("error: {error}"));
    ExitCode::from(if error.is_usage() { 2 } else { 1 })
}
