//! What the program says. A reader that has gone away (`| head`) is no error and no panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::error::{Error, Result};

/// A line on stdout: results.
pub fn print(text: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::file("stdout", format!("cannot write: {error}")).because(error))
        }
        _ => Ok(()),
    }
}

/// A value as JSON on stdout.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    print(text.map_err(|error| Error::usage(format!("json: {error}")).because(error))?)
}

/// A line on stderr: errors and warnings.
pub fn complain(text: impl Display) {
    // There is nowhere left to say that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
