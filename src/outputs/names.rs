//! The file names of maps.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::volumes;

/// The paths of one input's maps: `FOLDER/LAYER/STEM`, or `FOLDER/LAYER/STEM_TARGET` if the input
/// has maps of several targets.
///
/// # Example
///
/// ```
/// use std::path::Path;
///
/// use medcam::outputs::Names;
///
/// let names = Names { folder: Path::new("maps"), stem: "scan", one_target: false };
/// assert_eq!(names.stem_of("class2"), "scan_class2");
/// assert_eq!(names.overlay("up2", "class2", None), Path::new("maps/up2/scan_class2_overlay.png"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The folder of all maps.
    pub folder: &'a Path,
    /// The name of the input, without folder and suffix.
    pub stem: &'a str,
    /// Whether the target is left out of the names.
    pub one_target: bool,
}

impl Names<'_> {
    /// The folder of a layer.
    pub fn folder_of(&self, layer: &str) -> PathBuf {
        self.folder.join(layer)
    }

    /// The stem of the files of a target's maps.
    pub fn stem_of(&self, target: &str) -> String {
        if self.one_target { self.stem.to_owned() } else { format!("{}_{target}", self.stem) }
    }

    /// The file of a map's picture over its image; `sample` is the number of one sample of several.
    pub fn overlay(&self, layer: &str, target: &str, sample: Option<usize>) -> PathBuf {
        let sample = sample.map_or_else(String::new, |sample| format!("_{sample}"));
        self.folder_of(layer).join(format!("{}{sample}_overlay.png", self.stem_of(target)))
    }

    /// The files that [`save_maps`](super::save_maps) writes for one map of the image file `input`.
    pub fn maps(&self, input: &Path, layer: &str, target: &str) -> Vec<PathBuf> {
        let (folder, stem) = (self.folder_of(layer), self.stem_of(target));
        let suffixes = volumes::map_suffixes(input).iter();
        suffixes.map(|suffix| folder.join(format!("{stem}{suffix}"))).collect()
    }

    /// The file of the model's own output.
    pub fn output(&self) -> PathBuf {
        self.folder.join(format!("{}_output.npy", self.stem))
    }

    /// Refuses a stem that cannot be one part of a path.
    ///
    /// # Errors
    ///
    /// If it is empty, `.` or `..`, or has a separator or a NUL in it.
    pub fn check_stem(stem: &str) -> Result<()> {
        if stem.contains(['/', '\\', '\0']) || ["", ".", ".."].contains(&stem) {
            return Err(Error::input(
                "name",
                format!("{stem:?} cannot be part of a path; give one such as the stem of a file"),
            ));
        }
        Ok(())
    }
}
