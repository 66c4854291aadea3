//! How far a cohort is: a bar on a terminal, elsewhere a line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::cli::terminal::complain;

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(30);

pub struct Meter {
    bar: ProgressBar,
    begun: Instant,
    last_line: Instant,
    /// The cases of earlier runs.
    before: usize,
    ended: usize,
    failed: usize,
    all: usize,
}

impl Meter {
    /// `before` of `all` cases have ended in earlier runs, `failed` of them badly.
    pub fn new(all: usize, before: usize, failed: usize) -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(all as u64).with_position(before as u64),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {wide_msg}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, begun: now, last_line: now, before, ended: 0, failed, all }
    }

    /// Counts a case that ended, or failed for a reason.
    pub fn count(&mut self, id: &str, failure: Option<&str>) {
        self.ended += 1;
        if let Some(reason) = failure {
            self.failed += 1;
            self.bar.suspend(|| complain(format!("error: {id}: {reason}")));
        }
        self.bar.inc(1);
        self.bar.set_message(self.rate());
        if self.bar.is_hidden() && self.last_line.elapsed() >= EVERY {
            self.last_line = Instant::now();
            complain(format!("{}/{}  {}", self.before + self.ended, self.all, self.rate()));
        }
    }

    /// Ends the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn rate(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = self.ended as f64 / seconds.max(1e-9);
        let left = self.all.saturating_sub(self.before + self.ended) as f64 / rate;
        let left = HumanDuration(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX));
        let rate = if rate < 1.0 {
            format!("{:.1} s a case", 1.0 / rate)
        } else {
            format!("{rate:.1} cases a second")
        };
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        format!("{rate}, {left:#} left{failed}")
    }
}
