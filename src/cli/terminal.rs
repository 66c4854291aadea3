//! Writes to stdout and stderr. A closed pipe (`| head`) is neither an error nor a panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes a line of results to stdout.
pub fn print(text: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::file("stdout", format!("cannot write: {error}")).because(error))
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON to stdout.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    print(text.map_err(|error| Error::usage(format!("json: {error}")).because(error))?)
}

/// Writes an error or a warning to stderr.
pub fn complain(text: impl Display) {
    // Ignore failure: there is nowhere left to report that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
