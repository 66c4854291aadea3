//! Where maps go: files per forward, an archive of all, overlays.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ndarray::Axis;
use ndarray_npy::{NpzWriter, WriteNpzError};

use super::{AttentionMap, Call, Injected};
use crate::error::{Error, Result};
use crate::torch::Network;
use crate::volumes::{self, Caption, MapType};

/// The archive of [`Options::save_archive`](crate::Options::save_archive), under a name of its own
/// until it is complete.
pub(super) struct Archive {
    writer: NpzWriter<File>,
    unfinished: PathBuf,
    path: PathBuf,
}

impl Archive {
    pub(super) fn new(path: &Path) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let unfinished = path.with_file_name(name);
        let file = File::create(&unfinished).map_err(|error| {
            Error::file(path, format!("cannot make this archive: {error}")).because(error)
        })?;
        Ok(Self { writer: NpzWriter::new(file), unfinished, path: path.to_owned() })
    }

    fn add(&mut self, forward: usize, map: &AttentionMap) -> Result<()> {
        let name = format!("{forward:06}/{}/{}", map.layer, map.target);
        self.writer.add_array(name, &map.to_array()).map_err(|error| self.refuse(error))
    }

    fn finish(self) -> Result<PathBuf> {
        let Self { writer, unfinished, path } = self;
        let refuse = |error: &dyn fmt::Display| {
            Error::file(&path, format!("cannot complete this archive: {error}"))
        };
        writer.finish().map_err(|error| refuse(&error).because(error))?;
        fs::rename(&unfinished, &path).map_err(|error| refuse(&error).because(error))?;
        Ok(path)
    }

    fn refuse(&self, error: WriteNpzError) -> Error {
        Error::file(&self.path, format!("cannot write to this archive: {error}")).because(error)
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<N: Network> Injected<N> {
    /// Writes what was collected over all forwards, and returns the files: the archive of
    /// [`Options::save_archive`](crate::Options::save_archive). What comes after is not collected.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn dump(&mut self) -> Result<Vec<PathBuf>> {
        self.archive.take().map(Archive::finish).transpose().map(|path| path.into_iter().collect())
    }

    /// Writes the maps of the last forward where the options say.
    pub(super) fn save(&mut self, targets: usize, call: &Call) -> Result<()> {
        if let Some(archive) = &mut self.archive {
            for map in &self.maps {
                archive.add(self.forwards, map)?;
            }
        }
        let Some(folder) = &self.options.save_maps else { return Ok(()) };
        for map in &self.maps {
            let folder = folder.join(&map.layer);
            volumes::make_folder(&folder)?;
            let mut stem = format!("{:06}", self.forwards);
            if targets > 1 {
                stem = format!("{stem}_{}", map.target);
            }
            volumes::write_npy(folder.join(format!("{stem}.npy")), &map.to_array(), MapType::F32)?;
            for (b, image) in call.raw_input.iter().enumerate() {
                let sample = map.values.index_axis(Axis(0), b);
                let sample = sample.index_axis(Axis(0), 0).to_owned();
                let lines = vec![format!("{} · layer {}", map.target, map.layer)];
                let picture = volumes::overlay(image, &sample, &Caption { lines })?;
                let path = folder.join(format!("{stem}_{b}_overlay.png"));
                volumes::write_png(path, &picture.into())?;
            }
        }
        Ok(())
    }
}
