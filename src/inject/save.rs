//! Where maps go: files per forward, an archive of all, overlays.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, ArrayView3, Axis};
use ndarray_npy::{NpzWriter, WriteNpzError};
use tch::Tensor;

use super::{AttentionMap, Call, Injected};
use crate::error::{Error, Result};
use crate::torch::Network;
use crate::volumes::{self, Caption, MapType, Style};

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
    /// [`Options::save_archive`](crate::Options::save_archive), to which nothing is added afterwards,
    /// and the scores of [`Options::save_scores`](crate::Options::save_scores).
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn dump(&mut self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        if let Some(archive) = self.archive.take() {
            files.push(archive.finish()?);
        }
        if let (Some(folder), Some(evaluator)) = (&self.options.save_scores, &self.options.evaluate)
        {
            let order = self.layer_names(false);
            files.extend(evaluator.clone().layer_order(order).dump(folder)?);
        }
        Ok(files)
    }

    /// Scores the maps of the last forward with its masks.
    pub(super) fn evaluate(&mut self, call: &Call) -> Result<()> {
        let (Some(evaluator), Some(mask)) = (&mut self.options.evaluate, call.mask) else {
            return Ok(());
        };
        self.scored = evaluator.scores().len();
        for map in &self.maps {
            for (b, sample) in map.values.outer_iter().enumerate() {
                let mask = of_sample(mask, b)?;
                let (class, name) = (map.classes[b], format!("{:06}_{b}", self.forwards));
                evaluator.add(sample.index_axis(Axis(0), 0), mask, &map.layer, class, &name)?;
            }
        }
        Ok(())
    }

    /// Writes the names of the layers that can carry a map to `folder/registered_layers.txt`, one a
    /// line, and returns them; found out with one forward of the first sample of `input` if that has
    /// not happened yet.
    ///
    /// # Errors
    ///
    /// As [`layers`](Injected::layers), and if the file cannot be written.
    pub fn test_run(&mut self, input: &Tensor, folder: Option<&Path>) -> Result<Vec<String>> {
        let layers = self.layers(input)?;
        let names: Vec<_> =
            layers.iter().filter(|l| l.can_carry_map).map(|l| l.name.clone()).collect();
        if let Some(folder) = folder {
            volumes::make_folder(folder)?;
            let text = names.iter().fold(String::new(), |text, name| text + name + "\n");
            volumes::atomically(&folder.join("registered_layers.txt"), |file| {
                file.write_all(text.as_bytes())
            })?;
        }
        Ok(names)
    }

    /// Writes the maps of the last forward where the options say.
    pub(super) fn save(&mut self, one: bool, call: &Call) -> Result<()> {
        if let Some(archive) = &mut self.archive {
            for map in &self.maps {
                archive.add(self.forwards, map)?;
            }
        }
        let guided = self.options.backend.needs().guided;
        let style = if guided { Style::Gray } else { Style::Heat };
        let Some(folder) = &self.options.save_maps else { return Ok(()) };
        for map in &self.maps {
            let folder = folder.join(&map.layer);
            volumes::make_folder(&folder)?;
            let mut stem = format!("{:06}", self.forwards);
            if !one {
                stem = format!("{stem}_{}", map.target);
            }
            volumes::write_npy(folder.join(format!("{stem}.npy")), &map.to_array(), MapType::F32)?;
            for (b, image) in call.raw_input.iter().enumerate() {
                let sample = map.values.index_axis(Axis(0), b);
                let sample = sample.index_axis(Axis(0), 0).to_owned();
                let lines = vec![format!("{} · layer {}", map.target, map.layer)];
                let picture = volumes::overlay(image, &sample, &Caption { lines }, style)?;
                let path = folder.join(format!("{stem}_{b}_overlay.png"));
                volumes::write_png(path, &picture.into())?;
            }
        }
        Ok(())
    }
}

/// One sample of a mask `(B, 1, [D,] H, W)`, as `(D, H, W)`.
fn of_sample(mask: &ArrayD<f32>, sample: usize) -> Result<ArrayView3<'_, f32>> {
    let mask = mask.index_axis(Axis(0), sample);
    let mask = if mask.ndim() == 3 { mask } else { mask.index_axis_move(Axis(0), 0) };
    mask.into_dimensionality().map_err(|error| Error::input("evaluate", &error).because(error))
}
