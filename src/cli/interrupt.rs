//! Handles SIGINT and SIGTERM.

use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::error::{Error, Result};
use crate::volumes::{Stopped, stop_writing};

/// What is called with the name of a signal.
pub type Ask = Box<dyn Fn(&str) + Send>;

/// Makes these signals remove half-written files, call `last` with the signal's name, and end the program as they
/// do by default; but for the first if there is an `ask`, which is called instead.
pub fn on_interrupt(
    ask: Option<Ask>,
    last: impl Fn(&Stopped, &str) + Send + 'static,
) -> Result<()> {
    let refuse = |error: std::io::Error| {
        Error::usage(format!("signals cannot be handled: {error}")).because(error)
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(refuse)?;
    thread::spawn(move || {
        let name = |signal| low_level::signal_name(signal).unwrap_or("a signal");
        let mut signals = signals.forever();
        if let Some(ask) = ask
            && let Some(signal) = signals.next()
        {
            ask(name(signal));
        }
        for signal in signals {
            let stopped = stop_writing();
            last(&stopped, name(signal));
            end_by(signal);
        }
    });
    Ok(())
}

/// Ends the process as the signal of this name does by default, so that its parent sees which it was.
pub fn end_by_name(name: &str) {
    end_by(if name == "SIGINT" { SIGINT } else { SIGTERM });
}

fn end_by(signal: i32) {
    let _ = low_level::emulate_default_handler(signal);
}
