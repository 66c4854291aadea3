//! What a run would write over: the files that it was given, or one map with another.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::args::MapArguments;
use crate::error::{Error, Result};
use crate::volumes;

/// The files that a run reads, as it was given them, by where they lie.
pub struct Given(HashMap<PathBuf, PathBuf>);

impl Given {
    /// Those of `files` that are there.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let place = |file: &'a Path| Some((file.canonicalize().ok()?, file.to_owned()));
        Self(files.into_iter().filter_map(place).collect())
    }

    /// Refuses outputs of which one would replace such a file.
    pub fn check(&self, outputs: impl IntoIterator<Item = PathBuf>) -> Result<()> {
        for output in outputs {
            // What is not there is not replaced.
            let Ok(place) = output.canonicalize() else { continue };
            if let Some(given) = self.0.get(&place) {
                return Err(Error::usage(format!(
                    "{}: this output would replace {}, which is read; take another folder for the \
                     outputs (-o)",
                    output.display(),
                    given.display()
                )));
            }
        }
        Ok(())
    }
}

/// Refuses names that `run.json` cannot hold, and inputs that would write the same files.
pub fn check_names(arguments: &MapArguments) -> Result<()> {
    let MapArguments { inputs, output, target_mask, mask, .. } = arguments;
    let card = arguments.model.card.as_ref();
    let others = [Some(output), target_mask.as_ref(), mask.as_ref(), card];
    for path in inputs.iter().chain(others.into_iter().flatten()) {
        if path.to_str().is_none() {
            let path = path.display();
            return Err(Error::usage(format!("{path}: the name is not UTF-8; rename it")));
        }
    }
    let mut names: HashMap<String, &Path> = HashMap::new();
    for path in inputs {
        let stem = volumes::stem_of(path);
        let overlay = arguments.picture.then(|| format!("{stem}_overlay"));
        for name in overlay.into_iter().chain([stem]) {
            if let Some(other) = names.insert(name, path) {
                return Err(Error::usage(format!(
                    "{} and {} would write maps of the same name; run them into different folders",
                    other.display(),
                    path.display()
                )));
            }
        }
    }
    Ok(())
}
