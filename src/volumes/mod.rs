//! Images in and maps out: NIfTI volumes, PNG and JPEG images and NumPy arrays are read, prepared
//! for a model as its [`Card`] says, and maps are written back onto the grid they came from.
//!
//! ```text
//! read ──> Input ── Card::prepare ──> Prepared { tensor, grid }
//!                                        model ── map (D, H, W) ── Grid::save_map, overlay
//! ```

mod affine;
mod align;
mod card;
mod grid;
mod header;
mod intensity;
mod jpeg;
mod nifti_header;
mod nifti_write;
mod npy;
mod picture;
mod png_file;
mod prepare;
mod raster;
mod volume;
mod write;

use std::fs::{self, File};
use std::io;
use std::path::Path;

use ndarray::ArrayD;

pub use affine::Orientation;
pub(crate) use align::to_axes_of;
pub use card::{
    AxisOrder, Card, Color, InputCard, Nan, PerChannel, Sampling, Step, Values, Voxels,
};
pub use grid::Grid;
pub use header::Header;
pub use npy::{read_npy, write_npy};
pub use picture::{Caption, Style, overlay};
pub use prepare::Prepared;
pub use raster::{Image, write_png};
pub use volume::Volume;
pub use write::{MapType, make_folder};
#[cfg(feature = "cli")]
pub(crate) use write::{Stopped, stop_writing};
pub(crate) use write::{Unfinished, atomically, remove_leftovers};

use crate::error::{Error, Result};

/// One image read from disk.
#[derive(Debug, Clone)]
pub enum Input {
    /// A NIfTI volume.
    Volume(Volume),
    /// A PNG or JPEG image.
    Image(Image),
    /// A NumPy array that is ready-made model input: `(B, C, H, W)` or `(B, C, D, H, W)`.
    Array(ArrayD<f32>),
}

const SUFFIXES: [&str; 10] =
    [".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img", ".png", ".jpeg", ".jpg", ".npy"];

/// Suffixes of formats that are not read, with a command that converts them to NIfTI.
const CONVERTERS: [(&[&str], &str); 3] = [
    (&[".mgz", ".mgh"], "mri_convert IN.mgz OUT.nii.gz"),
    (&[".dcm", ".dicom", ".ima"], "dcm2niix -z y -o OUT_FOLDER IN_FOLDER"),
    (
        &[".nrrd", ".nhdr", ".mha", ".mhd"],
        "python -c \"import SimpleITK as s; s.WriteImage(s.ReadImage('IN.nrrd'), 'OUT.nii.gz')\"",
    ),
];

/// Reads one image. The suffix, in capitals or not, selects the format: `.nii`, `.nii.gz`, `.hdr`
/// or `.img` (of a NIfTI pair, each also `.gz`), `.png`, `.jpg`, `.jpeg` or `.npy`.
///
/// # Errors
///
/// If the suffix is another one, or the file is a pipe, cannot be opened or is invalid. The message
/// names the file.
pub fn read(path: impl AsRef<Path>) -> Result<Input> {
    let path = path.as_ref();
    match suffix_of(path) {
        Some(".npy") => read_npy(path).map(Input::Array),
        Some(".png" | ".jpeg" | ".jpg") => Image::read(path).map(Input::Image),
        Some(_) => Volume::read(path).map(Input::Volume),
        None => {
            let name = path.to_string_lossy().to_ascii_lowercase();
            let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
            let command = CONVERTERS.iter().find(|(suffixes, _)| ends(suffixes));
            let command = command.map_or(String::new(), |(_, command)| {
                format!("; make a NIfTI file of it: {command}")
            });
            let known = SUFFIXES.join(", ");
            Err(Error::file(path, format!("unknown kind of file; readable are {known}{command}")))
        }
    }
}

/// Opens a file and returns its length in bytes. Refuses pipes, as reading one could block forever.
fn open(path: &Path) -> Result<(File, u64)> {
    let refuse =
        |error: io::Error| Error::file(path, format!("cannot open: {error}")).because(error);
    let what = fs::metadata(path).map_err(refuse)?;
    if !what.is_file() {
        let kind = if what.is_dir() { "a directory" } else { "a pipe or device" };
        return Err(Error::file(path, format!("cannot open: {kind}, not a file")));
    }
    Ok((File::open(path).map_err(refuse)?, what.len()))
}

/// The file's name without folder and suffix: `scans/a.b.nii.gz` gives `a.b`.
///
/// # Example
///
/// ```
/// assert_eq!(medcam::volumes::stem_of("scans/sub-01_T1w.nii.gz"), "sub-01_T1w");
/// ```
pub fn stem_of(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let suffix = suffix_of(path).map_or(0, str::len);
    name[..name.len() - suffix].to_owned()
}

/// Suffixes of the files that [`Grid::save_map`] writes for this input.
pub(crate) fn map_suffixes(input: &Path) -> &'static [&'static str] {
    match suffix_of(input) {
        Some(".npy") => &[".npy"],
        Some(".png" | ".jpeg" | ".jpg") | None => &[".png", ".npy"],
        Some(_) => &[".nii.gz"],
    }
}

/// Whether the file's name has a suffix that [`read`] knows.
#[cfg(feature = "torch")]
pub(crate) fn is_readable(path: &Path) -> bool {
    suffix_of(path).is_some()
}

fn suffix_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    SUFFIXES.into_iter().find(|suffix| name.ends_with(suffix))
}
