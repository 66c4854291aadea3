//! Writes maps to disk, as NIfTI on the image's grid, NumPy arrays, pictures and an archive, and
//! scores them against masks. Takes host views, a [`Grid`](crate::volumes::Grid) and [`Names`];
//! needs no libtorch.
//!
//! ```text
//! MapView ── save_maps(names, grid) ──> FOLDER/LAYER/STEM.nii.gz        (NIfTI in)
//!                                       FOLDER/LAYER/STEM.png, STEM.npy (picture in)
//!                                       FOLDER/LAYER/STEM.npy           (array in)
//!         ── save_pictures ──────────> FOLDER/LAYER/STEM_overlay.png
//!         ── score ──────────────────> Evaluator ──> scores.xlsx, scores.csv, mean_scores.png
//!         ── volumes_above ──────────> MapVolume: share of voxels, mL
//!         ── Archive::add ───────────> attention_maps.npz
//! CaseRecord ── CaseTables ──────────> cases.xlsx, cases.csv, cases.parquet
//! ```
//!
//! Every file appears whole or not at all.

mod archive;
mod clashes;
mod names;
mod pictures;
mod save;
mod score;
mod tables;
mod volume;

use std::io::Write;
use std::path::Path;

use ndarray::ArrayViewD;

pub use archive::Archive;
pub use clashes::{ReadFiles, check_distinct};
pub use names::Names;
pub use pictures::{caption, save_pictures};
pub use save::save_maps;
pub use score::{repairs, score};
pub use tables::CaseTables;
pub use volume::volumes_above;

use crate::error::Result;
use crate::volumes;

/// The maps of one layer and one target of a batch, in host memory.
#[derive(Debug, Clone)]
pub struct MapView<'a> {
    /// The layer, which names the folder.
    pub layer: &'a str,
    /// The target, `best`, `class2`...: part of the file's name if there are several.
    pub target: &'a str,
    /// `(B, 1, [D,] H, W)`, along the axes of the network's input, within `[0, 1]`.
    pub values: ArrayViewD<'a, f32>,
    /// The class that each sample's map explains.
    pub classes: &'a [Option<usize>],
    /// Whether the values have a sign, as those of Guided Backpropagation: drawn in gray, not in
    /// colour.
    pub signed: bool,
}

/// Writes a text file, whole or not at all.
///
/// # Errors
///
/// If the file cannot be written; the message names it.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    volumes::atomically(path.as_ref(), |file| file.write_all(text.as_bytes()))
}

/// Creates the folder for maps, and removes the temporary files that interrupted runs left in it.
///
/// # Errors
///
/// If the folder cannot be made; the message names it.
pub fn prepare_folder(folder: impl AsRef<Path>) -> Result<()> {
    volumes::make_folder(&folder)?;
    volumes::remove_leftovers(folder.as_ref());
    Ok(())
}
