//! Where events and spans go.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tracing_chrome::{ChromeLayerBuilder, FlushGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The Chrome trace of `--profile`, completed where it is dropped.
pub struct Profile {
    path: Arc<OnceLock<PathBuf>>,
    _guard: FlushGuard,
}

impl Profile {
    /// Writes to this file from now on, and what has come so far.
    pub fn write_to(&self, path: PathBuf) {
        let _ = self.path.set(path);
    }
}

/// Sends events to stderr, and the spans of stages to a profile, if there is to be one.
pub fn to_stderr(verbose: bool, profile: bool) -> Option<Profile> {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let events = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .with_filter(level);
    let (spans, profile) = match profile {
        true => {
            let late = Late::default();
            let path = late.path.clone();
            let (spans, guard) = ChromeLayerBuilder::new().writer(late).include_args(true).build();
            let spans = spans.with_filter(LevelFilter::INFO);
            (Some(spans), Some(Profile { path, _guard: guard }))
        }
        false => (None, None),
    };
    tracing_subscriber::registry().with(events).with(spans).init();
    profile
}

/// A file that gets its path late, and keeps in memory what comes before: no file is touched until the run has its
/// folder for itself.
#[derive(Default)]
struct Late {
    path: Arc<OnceLock<PathBuf>>,
    early: Vec<u8>,
    file: Option<BufWriter<File>>,
}

impl Write for Late {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(path) = self.path.get() else {
            self.early.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = none.insert(BufWriter::new(File::create(path)?));
                file.write_all(&std::mem::take(&mut self.early))?;
                file
            }
        };
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}
