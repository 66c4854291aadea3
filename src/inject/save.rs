//! Where maps go: scores, files per forward, an archive of all, overlays.

use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, ArrayView3, Axis};
use tch::Tensor;

use super::archive::Archive;
use super::{Call, Injected};
use crate::error::{Error, Result};
use crate::torch::Network;
use crate::volumes::{self, Caption, MapType, Style};

impl<N: Network> Injected<N> {
    /// Writes what was collected over all forwards, and returns the files: the archive of
    /// [`Options::save_archive`](crate::Options::save_archive), to which nothing is added afterwards,
    /// and the scores of [`Options::save_scores`](crate::Options::save_scores). Without any map, no
    /// archive is written, and an older one stays.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or the archive was given up in a forward; the other files are
    /// written all the same. If there are no scores to be saved.
    pub fn dump(&mut self) -> Result<Vec<PathBuf>> {
        let archive = self.archive.take().map_or(Ok(None), Archive::finish);
        let scores = match (&self.options.save_scores, &self.options.evaluate) {
            (Some(folder), Some(evaluator)) => {
                evaluator.clone().layer_order(self.layer_names(false)).dump(folder)
            }
            _ => Ok(Vec::new()),
        };
        let mut files = Vec::from_iter(archive?);
        files.extend(scores?);
        Ok(files)
    }

    /// Scores, saves and archives the maps of the last forward; its scores are gone where one of
    /// these fails.
    pub(super) fn keep(&mut self, name: &str, one: bool, call: &Call) -> Result<()> {
        if let Some(archive) = &self.archive {
            archive.check(name, &self.maps)?;
        }
        let mut kept = self.evaluate(name, call).and_then(|()| self.save(name, one, call));
        // Last: an archive that fails takes no map's own file with it.
        if let (Ok(()), Some(archive)) = (&kept, &mut self.archive) {
            kept = archive.add(name, &self.maps);
        }
        if let (Err(_), Some(evaluator)) = (&kept, &mut self.options.evaluate) {
            evaluator.truncate(self.scored);
        }
        kept
    }

    fn evaluate(&mut self, name: &str, call: &Call) -> Result<()> {
        let (Some(evaluator), Some(mask)) = (&mut self.options.evaluate, call.mask) else {
            return Ok(());
        };
        for map in &self.maps {
            for (b, sample) in map.values.outer_iter().enumerate() {
                let mask = of_sample(mask, b)?;
                let (class, name) = (map.classes[b], format!("{name}_{b}"));
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

    /// Writes the maps of the last forward to files of their own.
    fn save(&self, name: &str, one: bool, call: &Call) -> Result<()> {
        let guided = self.options.backend.needs().guided;
        let style = if guided { Style::Gray } else { Style::Heat };
        let Some(folder) = &self.options.save_maps else { return Ok(()) };
        for map in &self.maps {
            let folder = folder.join(&map.layer);
            volumes::make_folder(&folder)?;
            let stem = if one { name.to_owned() } else { format!("{name}_{}", map.target) };
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
