//! Parts of a cohort, for machines that share nothing but a file system.

use std::fmt;
use std::path::Path;

use super::Case;
use crate::error::{Error, Result};
use crate::record::JOURNAL;

/// Part `id` of `of`: the cases number `id`, `id + of`, `id + 2·of`... of a list, from 0.
///
/// The parts of a list are disjoint, and together they are the list.
///
/// # Example
///
/// ```
/// use medcam::cohort::{Case, Part};
///
/// let cases: Vec<_> = ["a", "b", "c", "d", "e"].map(|id| Case::new(id, id)).into();
/// let of_part: Vec<_> = Part::new(1, 2)?.of(cases).into_iter().map(|case| case.id).collect();
/// assert_eq!(of_part, ["b", "d"]);
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    id: usize,
    of: usize,
}

impl Part {
    /// Part `id`, from 0, of `of`.
    ///
    /// # Errors
    ///
    /// If there is no such part.
    pub fn new(id: usize, of: usize) -> Result<Self> {
        if of == 0 {
            return Err(Error::usage("0 parts: a cohort has at least one"));
        }
        if id >= of {
            return Err(Error::usage(format!(
                "part {id} of {of}: parts are numbered from 0 to {}",
                of - 1
            )));
        }
        Ok(Self { id, of })
    }

    /// Which part it is, from 0.
    pub fn id(self) -> usize {
        self.id
    }

    /// How many parts there are.
    pub fn count(self) -> usize {
        self.of
    }

    /// The cases of this part.
    pub fn of(self, cases: Vec<Case>) -> Vec<Case> {
        cases.into_iter().skip(self.id).step_by(self.of).collect()
    }

    /// The file name of this part's journal; without parts, [`JOURNAL`].
    pub(super) fn journal(part: Option<Self>) -> String {
        part.map_or_else(
            || JOURNAL.to_owned(),
            |Self { id, of }| format!("journal-{id:05}-of-{of:05}.jsonl"),
        )
    }

    /// What a journal's file name says: that it is none, or the journal of everything, or of a part.
    pub(super) fn of_journal(name: &Path) -> Option<Option<Self>> {
        let name = name.to_str()?;
        if name == JOURNAL {
            return Some(None);
        }
        let (id, of) = name.strip_prefix("journal-")?.strip_suffix(".jsonl")?.split_once("-of-")?;
        Some(Some(Self { id: id.parse().ok()?, of: of.parse().ok()? }))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {} of {}", self.id, self.of)
    }
}
