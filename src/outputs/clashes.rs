//! Refuses outputs that would replace a file that the run reads, or each other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The files that a run reads: the paths as given, by canonical path.
#[derive(Debug, Clone)]
pub struct ReadFiles(HashMap<PathBuf, PathBuf>);

impl ReadFiles {
    /// The existing ones of `files`.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let place = |file: &'a Path| Some((file.canonicalize().ok()?, file.to_owned()));
        Self(files.into_iter().filter_map(place).collect())
    }

    /// Refuses outputs that would replace one of these files.
    ///
    /// # Errors
    ///
    /// [`Error::is_usage`], with the name of the first.
    pub fn check(&self, outputs: impl IntoIterator<Item = PathBuf>) -> Result<()> {
        for output in outputs {
            // An output that does not exist yet replaces nothing.
            let Ok(place) = output.canonicalize() else { continue };
            if let Some(read) = self.0.get(&place) {
                return Err(Error::usage(format!(
                    "{}: this output would replace {}, which is read; take another folder for the \
                     outputs (-o)",
                    output.display(),
                    read.display()
                )));
            }
        }
        Ok(())
    }
}

/// Refuses inputs, as name and file, whose maps would have the same names; with `pictures`, the overlays'
/// names count too.
///
/// # Errors
///
/// [`Error::is_usage`], with the files of two such inputs.
///
/// # Example
///
/// ```
/// use std::path::Path;
///
/// let inputs = ["a/scan.nii.gz", "b/scan.nii.gz"].map(|file| ("scan", Path::new(file)));
/// assert!(medcam::outputs::check_distinct(inputs, false).unwrap_err().is_usage());
/// ```
pub fn check_distinct<'a>(
    inputs: impl IntoIterator<Item = (&'a str, &'a Path)>,
    pictures: bool,
) -> Result<()> {
    let mut names: HashMap<String, &Path> = HashMap::new();
    for (stem, path) in inputs {
        let overlay = pictures.then(|| format!("{stem}_overlay"));
        for name in overlay.into_iter().chain([stem.to_owned()]) {
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
