//! Scores, saves and archives the maps of a forward.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ndarray::Array5;
use tch::Tensor;

use super::{Call, Injected};
use crate::bridge::extents;
use crate::error::Result;
use crate::explain::AttentionMap;
use crate::outputs::{self, Archive, MapView, Names};
use crate::torch::Network;
use crate::volumes::{Grid, Input, MapType};

impl AttentionMap {
    /// This map as a view for [`outputs`](crate::outputs).
    ///
    /// # Errors
    ///
    /// As [`values`](Self::values).
    pub fn to_view(&self) -> Result<MapView<'_>> {
        self.values().map(|values| self.view_of(values))
    }

    /// The values that [`view_of`](Self::view_of) takes for files of the type `dtype`: those of a map on a
    /// device come narrowed, and are the same in such a file.
    pub(crate) fn values_for(&self, dtype: MapType) -> Result<Cow<'_, Array5<f32>>> {
        match dtype {
            MapType::U8 => self.values_in_255ths(),
            MapType::F32 => self.values().map(Cow::Borrowed),
        }
    }

    /// These values of this map as a view for [`outputs`](crate::outputs).
    pub(crate) fn view_of<'v>(&'v self, values: &'v Array5<f32>) -> MapView<'v> {
        MapView {
            layer: self.layer(),
            target: self.target(),
            values: self.with_axes_of_input(values),
            classes: self.classes(),
            signed: self.is_signed(),
        }
    }
}

impl<N: Network> Injected<N> {
    /// Writes the results of all forwards, and returns the files: the archive of
    /// [`Options::save_archive`](crate::Options::save_archive), which is closed by this, and the
    /// scores of [`Options::save_scores`](crate::Options::save_scores). Without any map, no archive
    /// is written, and an existing one stays.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or the archive was given up in a forward; the other files are
    /// written nevertheless. Also if there are no scores to save.
    pub fn dump(&mut self) -> Result<Vec<PathBuf>> {
        let archive = self.archive.take().map_or(Ok(None), Archive::finish);
        let scores = match (&self.options.save_scores, &self.evaluator) {
            (Some(folder), Some(evaluator)) => {
                evaluator.clone().layer_order(self.layer_names(false)).dump(folder)
            }
            _ => Ok(Vec::new()),
        };
        let mut files = Vec::from_iter(archive?);
        files.extend(scores?);
        Ok(files)
    }

    /// Scores, saves and archives the maps of the last forward; if one of these fails, its scores
    /// are removed.
    pub(super) fn keep(
        &mut self,
        name: &str,
        one_target: bool,
        input: &Tensor,
        call: &Call,
    ) -> Result<()> {
        let Self { archive, evaluator, maps, options, warnings, .. } = self;
        let maps = maps.iter().map(AttentionMap::to_view).collect::<Result<Vec<_>>>()?;
        if let Some(archive) = archive {
            archive.check(name, &maps)?;
        }
        let of_batch = Grid::of_array_shape(&extents(input))?;
        let mut kept = Ok(());
        if let (Some(evaluator), Some(mask)) = (&mut *evaluator, call.mask) {
            // The mask has the axes of the batch, so the maps are scored in them too, not in the
            // image's.
            let (place, mask) = ((&of_batch, MapType::F32), (&Input::Array(mask.clone()), "mask"));
            // The tables call a map as its file is called.
            let names = Names { folder: Path::new(""), stem: name, one_target };
            kept = maps.iter().try_for_each(|map| {
                let name = names.stem_of(map.target);
                outputs::score(evaluator, map, place, mask, &name, warnings).map(|_| ())
            });
        }
        if let (Ok(()), Some(folder)) = (&kept, &options.save_maps) {
            let names = Names { folder, stem: name, one_target };
            let method = options.settings.backend.to_string();
            let grid = call.image.map_or(&of_batch, |image| &image.grid);
            kept = save(&maps, &names, &method, grid, call.raw_input);
        }
        // The archive comes last, so that the maps' own files are written even if it fails.
        if let (Ok(()), Some(archive)) = (&kept, archive) {
            kept = archive.add(name, &maps);
        }
        if let (Err(_), Some(evaluator)) = (&kept, evaluator) {
            evaluator.truncate(self.scored_before);
        }
        kept
    }
}

/// Writes each map of a forward to its own file, and draws it over its image.
fn save(
    maps: &[MapView<'_>],
    names: &Names<'_>,
    method: &str,
    grid: &Grid,
    images: &[Input],
) -> Result<()> {
    outputs::save_maps(maps, names, grid, MapType::F32, &mut |_| {})?;
    let caption = |map: &MapView<'_>| outputs::caption(map, names.stem, method, &|_| None);
    outputs::save_pictures(maps, names, (images, true), grid, &caption, &mut |_| {})
}
