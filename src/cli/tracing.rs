//! Where events and spans go.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::Path;

use tracing_chrome::{ChromeLayerBuilder, FlushGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Error, Result};
use crate::outputs;

/// The Chrome trace of `--profile`.
const PROFILE: &str = "profile.json";

/// Sends events to stderr, and the spans of stages to the profile in this folder, if there is one.
pub fn to_stderr(verbose: bool, profiled: Option<&Path>) -> Result<Option<FlushGuard>> {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let events = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .with_filter(level);
    let (spans, guard) = match profiled {
        Some(folder) => {
            outputs::prepare_folder(folder)?;
            let path = folder.join(PROFILE);
            let file = File::create(&path).map_err(|error| {
                Error::file(&path, format!("cannot be made: {error}")).because(error)
            })?;
            let builder = ChromeLayerBuilder::new().writer(BufWriter::new(file));
            let (spans, guard) = builder.include_args(true).build();
            (Some(spans.with_filter(LevelFilter::INFO)), Some(guard))
        }
        None => (None, None),
    };
    tracing_subscriber::registry().with(events).with(spans).init();
    Ok(guard)
}
