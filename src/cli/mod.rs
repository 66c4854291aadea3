//! The `medcam` program: arguments, progress, files, exit codes. Everything else is in the library.
//!
//! Exit codes: 0, 1 (a run failed), 2 (usage).

mod args;
mod evaluate;
mod interrupt;
mod job;
mod layers;
mod map;
mod model;
mod progress;
mod score;
mod terminal;
mod threads;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

use crate::error::Error;

/// Runs the program with the arguments of the process.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_max_level(if arguments.verbose {
            tracing::Level::DEBUG
        } else {
            tracing::Level::WARN
        })
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let result = match arguments.command {
        Command::Layers(arguments) => layers::run(&arguments),
        Command::Map(arguments) => map::run(&arguments),
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
