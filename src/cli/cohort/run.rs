//! A run in progress: cases go through the pipeline, and into the journal as they end.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use super::meter::Meter;
use super::record::Files;
use crate::cli::terminal::print;
use crate::cohort::{Cancel, Case, Cohort, Finished, Folder, Journal, Left, StageTimes, Threads};
use crate::error::Result;
use crate::record::{CaseRecord, Line, Status};

/// Why a suspect has no maps.
pub const SUSPECT: &str = "set aside: the process died twice while this case was in flight; \
                           --resume --retry-failed tries it again";

pub struct Run<'a> {
    files: &'a Files<'a>,
    journal: &'a Journal,
    cancel: &'a Cancel,
    pub meter: Meter,
    /// Whether the journal's lines are printed as well.
    prints: bool,
    /// In how many cases each warning was given.
    pub warnings: BTreeMap<String, usize>,
    pub failed: usize,
    pub times: StageTimes,
}

impl<'a> Run<'a> {
    pub fn new(
        files: &'a Files<'a>,
        journal: &'a Journal,
        cancel: &'a Cancel,
        meter: Meter,
        prints: bool,
    ) -> Self {
        let (warnings, times) = (BTreeMap::new(), StageTimes::default());
        Self { files, journal, cancel, meter, prints, warnings, failed: 0, times }
    }

    /// Explains what is left.
    pub fn all(&mut self, cohort: Cohort, folder: &Folder<'_>, left: Left) -> Result<()> {
        for Case { id, image, .. } in left.suspects {
            self.end(CaseRecord::without_maps(id, image, Status::Suspect, SUSPECT))?;
        }
        let shared = cohort.used_threads();
        let alone = Threads { in_flight: NonZeroUsize::MIN, ..shared };
        let (cohort, _) = self.some(cohort.threads(alone), folder, left.alone)?;
        let (cohort, again) = self.some(cohort.threads(shared), folder, left.cases)?;
        self.some(cohort.threads(alone), folder, again)?;
        Ok(())
    }

    /// Explains these cases; returns those that there was no memory for beside others.
    fn some(
        &mut self,
        mut cohort: Cohort,
        folder: &Folder<'_>,
        cases: Vec<Case>,
    ) -> Result<(Cohort, Vec<Case>)> {
        let mut again = Vec::new();
        if cases.is_empty() {
            return Ok((cohort, again));
        }
        let is_alone = cohort.used_threads().in_flight == NonZeroUsize::MIN;
        let (journal, files, cancel) = (self.journal, self.files, self.cancel);
        let unwritten = Mutex::new(None);
        let begun = cases.into_iter().map_while(|case| match journal.begin(&case.id) {
            Ok(()) => Some(case),
            Err(error) => {
                *unwritten.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                cancel.cancel();
                None
            }
        });
        let times = cohort.run(begun, folder, cancel, |finished| match finished.kept {
            Err(error) if error.is_of_storage() => {
                Err(error.with_hint("the run stops here; make room, and go on with --resume"))
            }
            Err(error) if error.is_of_memory() && !is_alone => {
                files.forget(finished.index);
                journal.postpone(&finished.case.id)?;
                again.push(finished.case);
                Ok(())
            }
            kept => self.end(files.record(Finished { kept, ..finished })?),
        })?;
        self.times += times;
        match unwritten.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok((cohort, again)),
        }
    }

    /// Ends a case, in the journal and for whoever watches.
    fn end(&mut self, record: CaseRecord) -> Result<()> {
        self.journal.end(record.clone())?;
        if record.status != Status::Done {
            self.failed += 1;
        }
        self.meter.count(&record.id, record.reason.as_deref());
        let warnings = record.done.iter().flat_map(|done| &done.warnings);
        let codes: BTreeSet<_> = warnings.map(|warning| &warning.code).collect();
        for code in codes {
            *self.warnings.entry(code.clone().into_owned()).or_default() += 1;
        }
        if self.prints {
            print(Line::Ended(record).to_json()?)?;
        }
        Ok(())
    }
}
