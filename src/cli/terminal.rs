//! What the program says. A reader that has gone away (`| head`) is no error and no panic.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

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

/// A line on stderr: errors and warnings.
pub fn complain(text: impl Display) {
    // There is nowhere left to say that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
