//! The `medcam` program: arguments, progress, files, exit codes. Everything else is in the library.
//!
//! Exit codes: 0, 1 (a run failed), 2 (usage), 75 (another run holds the folder: EX_TEMPFAIL of sysexits.h).

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
    let profiles = matches!(&arguments.command, Command::Cohort(cohort) if cohort.profile);
    let profile = tracing::to_stderr(arguments.verbose, profiles);
    let result = match arguments.command {
        Command::Layers(arguments) => layers::run(&arguments),
        Command::Map(arguments) => map::run(&arguments),
        Command::Cohort(arguments) if arguments.worker => cohort::work(&arguments),
        Command::Cohort(arguments) => cohort::run(&arguments, profile),
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
    ExitCode::from(match error {
        error if error.is_usage() => 2,
        error if error.is_busy() => 75,
        _ => 1,
    })
}
