//! The masks of `--mask`, and the tables of `medcam map`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::cohort::Case;
use crate::error::{Error, Result};
use crate::evaluation::Evaluator;
use crate::volumes;

/// Gives each case that has no mask its own: this file, for the only case, or the file of a case's name in
/// this folder.
pub fn find_masks(cases: &mut [Case], mask: Option<&Path>) -> Result<()> {
    let Some(mask) = mask else { return Ok(()) };
    if mask.is_dir() {
        let files = by_stem(mask)?;
        for case in cases.iter_mut().filter(|case| case.mask.is_none()) {
            let of_case = files.get(&case.id).map_or(&[][..], Vec::as_slice);
            case.mask = Some(only(of_case, case, mask)?);
        }
        return Ok(());
    }
    let mut without: Vec<_> = cases.iter_mut().filter(|case| case.mask.is_none()).collect();
    match &mut without[..] {
        [] => {}
        [case] => case.mask = Some(mask.to_owned()),
        without => {
            return Err(Error::usage(format!(
                "--mask {}: one file for {} inputs; give a folder with a mask of each input's name",
                mask.display(),
                without.len()
            )));
        }
    }
    Ok(())
}

/// Writes the scores of all inputs; nothing if there are none.
pub fn dump(evaluator: Evaluator, layers: Vec<String>, folder: &Path) -> Result<Vec<PathBuf>> {
    if evaluator.scores().is_empty() {
        return Ok(Vec::new());
    }
    evaluator.layer_order(layers).dump(folder)
}

/// The files in a folder, by their stems.
fn by_stem(folder: &Path) -> Result<HashMap<String, Vec<PathBuf>>> {
    let refuse = |error: std::io::Error| Error::file(folder, &error).because(error);
    let mut files: HashMap<_, Vec<_>> = HashMap::new();
    for entry in folder.read_dir().map_err(refuse)? {
        let path = entry.map_err(refuse)?.path();
        if path.is_file() {
            files.entry(volumes::stem_of(&path)).or_default().push(path);
        }
    }
    files.values_mut().for_each(|same| same.sort());
    Ok(files)
}

/// The mask of a case, of those that have its name.
fn only(files: &[PathBuf], case: &Case, folder: &Path) -> Result<PathBuf> {
    match files {
        [mask] => Ok(mask.clone()),
        [] => Err(Error::usage(format!(
            "--mask {}: no mask of {} there: no file of the name '{}'",
            folder.display(),
            case.image.display(),
            case.id
        ))),
        [first, second, ..] => Err(Error::usage(format!(
            "--mask: {} and {} are both named as {}",
            first.display(),
            second.display(),
            case.image.display()
        ))),
    }
}
