//! Handles SIGINT and SIGTERM: removes half-written files and lets the caller record what was done.

use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::error::{Error, Result};
use crate::volumes::{Stopped, stop_writing};

/// Makes these signals remove half-written files, call `last` with the signal's name, and then end
/// the program as they do by default.
pub fn on_interrupt(last: impl Fn(&Stopped, &str) + Send + 'static) -> Result<()> {
    let refuse = |error: std::io::Error| {
        Error::usage(format!("signals cannot be handled: {error}")).because(error)
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(refuse)?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let stopped = stop_writing();
            last(&stopped, low_level::signal_name(signal).unwrap_or("a signal"));
            // The default action ends the process, so that its parent sees which signal ended it.
            let _ = low_level::emulate_default_handler(signal);
        }
    });
    Ok(())
}
