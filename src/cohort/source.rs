//! Where cases come from: files, folders, patterns, a manifest, a BIDS dataset.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::Case;
use crate::error::{Error, Result};
use crate::outputs::Names;
use crate::volumes;

/// The file that makes a folder a BIDS dataset.
const BIDS: &str = "dataset_description.json";

/// The cases of sources, in their order, and within a source in the order of its files' names or lines:
///
/// | source | cases | called |
/// |---|---|---|
/// | an image | itself | the stem of its file; where others have that too, with the folders that tell them apart |
/// | `scans/*/t1.nii.gz` | the files that match | likewise |
/// | a folder | all images in it and below it, hidden ones aside | the path from that folder, `_` between its parts |
/// | a folder with `dataset_description.json` | the images of a BIDS dataset's subjects, not its derivatives | the stem of its file, `sub-01_ses-1_T1w` |
/// | a `.csv` | its lines: columns `image` and, if they are there, `id`, `mask` and `label`, paths from the file's folder | `id`, or the stem of `image` |
///
/// Nothing in the folder `outputs` is taken: maps of an earlier run are no images of this one.
///
/// `label` is what is explained of that case, as the `--label` of `medcam map`: `1`, `best,2`, `predicted:1`.
///
/// # Errors
///
/// If a source is not there, has no image, or a manifest cannot be read; or if two cases would have the same id.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// # for subject in ["sub-01", "sub-02"] {
/// #     std::fs::create_dir(folder.join(subject)).unwrap();
/// #     std::fs::write(folder.join(subject).join("T1.nii.gz"), "").unwrap();
/// # }
/// let cases = medcam::cohort::cases_of(&[folder], None)?;
/// assert_eq!(cases[0].id, "sub-01_T1");
/// assert_eq!(cases[1].image, folder.join("sub-02/T1.nii.gz"));
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn cases_of(sources: &[impl AsRef<Path>], outputs: Option<&Path>) -> Result<Vec<Case>> {
    let outputs = outputs.and_then(|folder| folder.canonicalize().ok());
    let outputs = outputs.as_deref();
    let mut cases = Vec::new();
    // The places of images that are called by their stems so far.
    let mut by_stem = Vec::new();
    for source in sources {
        let source = source.as_ref();
        if source.is_dir() {
            if outputs
                .is_some_and(|out| source.canonicalize().is_ok_and(|from| from.starts_with(out)))
            {
                return Err(Error::usage(format!(
                    "{}: these images are in the folder of the outputs; take another folder for those",
                    source.display()
                )));
            }
            cases.extend(of_folder(source, outputs)?);
        } else if has_extension(source, "csv") {
            cases.extend(of_manifest(source)?);
        } else {
            let images = images_of(source, outputs)?;
            by_stem.extend(cases.len()..cases.len() + images.len());
            cases
                .extend(images.into_iter().map(|image| Case::new(volumes::stem_of(&image), image)));
        }
    }
    tell_apart(&mut cases, &by_stem);
    let mut seen: HashMap<&str, &Path> = HashMap::new();
    for case in &cases {
        Names::check_stem(&case.id).map_err(|error| error.within(case.image.display()))?;
        if let Some(other) = seen.insert(&case.id, &case.image) {
            return Err(Error::usage(format!(
                "{} and {} would both be called '{}'; give each an id in a CSV manifest: id,image",
                other.display(),
                case.image.display(),
                case.id
            )));
        }
    }
    Ok(cases)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// The file itself, or the files that match it as a pattern.
fn images_of(source: &Path, outputs: Option<&Path>) -> Result<Vec<PathBuf>> {
    let text = source.to_str().filter(|text| text.contains(['*', '?', '[']));
    let Some(pattern) = text.filter(|_| !source.exists()) else {
        return match source.exists() {
            true => Ok(vec![source.to_owned()]),
            false => Err(Error::file(source, "no such file or folder")),
        };
    };
    let refuse =
        |error: &dyn std::fmt::Display| Error::file(source, format!("as a pattern: {error}"));
    let matches = glob::glob(pattern).map_err(|error| refuse(&error))?;
    let files = matches.collect::<Result<Vec<_>, _>>().map_err(|error| refuse(&error))?;
    let is_output = |file: &PathBuf| {
        outputs
            .is_some_and(|outputs| file.canonicalize().is_ok_and(|file| file.starts_with(outputs)))
    };
    let images = files.into_iter().filter(|file| is_image(file) && !is_output(file));
    let images: Vec<_> = images.collect();
    if images.is_empty() {
        return Err(Error::file(source, "no image matches this pattern"));
    }
    Ok(images)
}

/// Whether this is a file that can be read as an image; the voxels of a pair go with its header.
fn is_image(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let header = ["", ".gz"].into_iter().find_map(|gz| {
        let bare = name.strip_suffix(&format!(".img{gz}"))?;
        Some(["", ".gz"].map(|gz| PathBuf::from(format!("{bare}.hdr{gz}"))))
    });
    let is_voxels_of_pair = header.is_some_and(|headers| headers.iter().any(|file| file.is_file()));
    path.is_file() && volumes::is_readable(path) && !is_voxels_of_pair
}

fn of_folder(folder: &Path, outputs: Option<&Path>) -> Result<Vec<Case>> {
    let is_bids = folder.join(BIDS).is_file();
    let is_wanted = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy();
        let is_subject = !is_bids || entry.depth() != 1 || name.starts_with("sub-");
        let is_outputs = entry.file_type().is_dir()
            && outputs.is_some_and(|outputs| {
                entry.path().canonicalize().is_ok_and(|folder| folder == outputs)
            });
        entry.depth() == 0 || (!name.starts_with('.') && is_subject && !is_outputs)
    };
    let mut cases = Vec::new();
    for entry in WalkDir::new(folder)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_wanted)
    {
        let entry = entry.map_err(|error| {
            Error::file(folder, format!("cannot be searched: {error}")).because(error)
        })?;
        let path = entry.path();
        if !is_image(path) {
            continue;
        }
        let id = if is_bids { volumes::stem_of(path) } else { joined(path, folder) };
        cases.push(Case::new(id, path));
    }
    if cases.is_empty() {
        return Err(Error::file(folder, "no image in this folder or below it"));
    }
    Ok(cases)
}

/// The path of a file from a folder, without its suffix, as one name.
fn joined(path: &Path, folder: &Path) -> String {
    let folders =
        path.strip_prefix(folder).unwrap_or(path).parent().into_iter().flat_map(Path::components);
    let names = folders.filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    names.chain([volumes::stem_of(path)]).collect::<Vec<_>>().join("_")
}

/// Calls cases of the same stem by their path from the folder that all of them are in.
fn tell_apart(cases: &mut [Case], by_stem: &[usize]) {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for &place in by_stem {
        places.entry(cases[place].id.clone()).or_default().push(place);
    }
    for places in places.values().filter(|places| places.len() > 1) {
        let first = cases[places[0]].image.clone();
        let common = first
            .ancestors()
            .find(|folder| places.iter().all(|&place| cases[place].image.starts_with(folder)));
        for &place in places {
            cases[place].id = joined(&cases[place].image, common.unwrap_or(Path::new("")));
        }
    }
}

/// Refuses a column that is there twice, and warns of those that say nothing here.
fn check_columns(path: &Path, columns: &csv::StringRecord) -> Result<()> {
    let names: Vec<_> = columns.iter().map(str::to_ascii_lowercase).collect();
    let is_known = |name: &&String| matches!(name.as_str(), "image" | "id" | "mask" | "label");
    for (index, name) in names.iter().enumerate().filter(|(_, name)| is_known(name)) {
        if names[..index].contains(name) {
            return Err(Error::file(path, format!("no manifest: it has two columns '{name}'")));
        }
    }
    let unknown: Vec<_> = names.iter().filter(|name| !is_known(name)).cloned().collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        tracing::warn!("{}: these columns are not used: {unknown}", path.display());
    }
    Ok(())
}

fn of_manifest(path: &Path) -> Result<Vec<Case>> {
    let refuse =
        |error: csv::Error| Error::file(path, format!("no manifest: {error}")).because(error);
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(refuse)?;
    let columns = reader.headers().map_err(refuse)?.clone();
    let column = |name: &str| columns.iter().position(|column| column.eq_ignore_ascii_case(name));
    let [image, id, mask, label] = ["image", "id", "mask", "label"].map(column);
    let Some(image) = image else {
        let found: Vec<_> = columns.iter().collect();
        return Err(Error::file(
            path,
            format!("no manifest: it has no column 'image', but {}", found.join(", ")),
        ));
    };
    check_columns(path, &columns)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut cases = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(refuse)?;
        let field = |column: Option<usize>| {
            column.and_then(|c| record.get(c)).filter(|text| !text.is_empty())
        };
        let line = record.position().map_or(index as u64 + 2, csv::Position::line);
        let Some(image) = field(Some(image)) else {
            return Err(Error::file(path, format!("line {line}: no image")));
        };
        let image = folder.join(image);
        let name = field(id).map_or_else(|| volumes::stem_of(&image), str::to_owned);
        let mut case = Case::new(name, image);
        case.mask = field(mask).map(|mask| folder.join(mask));
        let targets =
            field(label).map(|label| label.split(',').map(|one| one.trim().parse()).collect());
        case.targets = targets
            .transpose()
            .map_err(|error: Error| error.within(format!("{}: line {line}", path.display())))?;
        cases.push(case);
    }
    if cases.is_empty() {
        return Err(Error::file(path, "a manifest without a case"));
    }
    Ok(cases)
}
