//! The sink that writes files: maps, outputs, pictures and scores of each case.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Case, Explained, Sink};
use crate::bridge::to_array;
use crate::error::Result;
use crate::evaluation::{Evaluator, Scoring, Threshold};
use crate::explain::{AttentionMap, Settings};
use crate::methods::Target;
use crate::outputs::{self, MapView, Names, ReadFiles};
use crate::record::{Class, Done, ExplainedTarget, MapScores, Seconds};
use crate::volumes::{self, Card, Grid, Input, MapType};
use crate::warning::Warning;

/// Writes the maps of each case into a folder, as `FOLDER/LAYER/ID.nii.gz` on the grid of its image: see
/// [`outputs`](crate::outputs).
///
/// # Example
///
/// ```no_run
/// use medcam::cohort::{Cancel, Case, Cohort, Folder};
/// use medcam::{Device, Explainer, Settings};
///
/// let settings = Settings::default();
/// let model = medcam::load("model.pt", Device::best())?;
/// let folder = Folder::new("maps", &settings);
/// let mut cohort = Cohort::new(vec![Explainer::new(model, settings)?], None)?;
/// let cases = (1..=1000).map(|n| Case::new(format!("{n:04}"), format!("scans/{n:04}.nii.gz")));
/// let mut failed = Vec::new();
/// cohort.run(cases, &folder, &Cancel::default(), |finished| {
///     if let Err(error) = finished.kept {
///         failed.push((finished.case.id, error));
///     }
///     Ok(())
/// })?;
/// # Ok::<(), medcam::Error>(())
/// ```
pub struct Folder<'a> {
    folder: PathBuf,
    one_target: bool,
    method: String,
    dtype: MapType,
    pictures: bool,
    output: bool,
    scoring: Option<Scoring>,
    threshold: Option<Threshold>,
    card: Card,
    region: Option<(&'a Path, &'a Input)>,
    read_files: Option<&'a ReadFiles>,
    keeps_maps: bool,
    wrote: Box<dyn Fn(usize, PathBuf) + Sync + 'a>,
}

/// What a [`Folder`] keeps of a case.
#[derive(Debug)]
#[non_exhaustive]
pub struct Written {
    /// Its record.
    pub done: Done,
    /// The layers that have maps.
    pub layers: Vec<String>,
    /// The scores of its maps, if it has a mask.
    pub scores: Option<Evaluator>,
    /// The maps themselves, if they are asked for.
    pub maps: Vec<AttentionMap>,
}

impl<'a> Folder<'a> {
    /// A folder for the maps of models with these settings. It is made when it is needed.
    pub fn new(folder: impl Into<PathBuf>, settings: &Settings) -> Self {
        Self {
            folder: folder.into(),
            one_target: Target::is_single(&settings.targets),
            method: settings.backend.to_string(),
            dtype: MapType::F32,
            pictures: false,
            output: false,
            scoring: None,
            threshold: None,
            card: Card::default(),
            region: None,
            read_files: None,
            keeps_maps: false,
            wrote: Box::new(|_, _| ()),
        }
    }

    /// The type of the maps' values.
    #[must_use]
    pub fn dtype(mut self, dtype: MapType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Whether each map is also drawn over its image.
    #[must_use]
    pub fn pictures(mut self, pictures: bool) -> Self {
        self.pictures = pictures;
        self
    }

    /// Whether the model's output is written too, to `FOLDER/ID_output.npy`.
    #[must_use]
    pub fn output(mut self, output: bool) -> Self {
        self.output = output;
        self
    }

    /// Scores the maps of each case that has a mask: [`Written::scores`].
    #[must_use]
    pub fn scoring(mut self, scoring: Scoring) -> Self {
        self.scoring = Some(scoring);
        self
    }

    /// Measures how much of each map is at or above this threshold: [`Done::volumes`].
    #[must_use]
    pub fn volumes_above(mut self, threshold: Threshold) -> Self {
        self.threshold = Some(threshold);
        self
    }

    /// The card that has the names of the classes.
    #[must_use]
    pub fn card(mut self, card: Card) -> Self {
        self.card = card;
        self
    }

    /// Calls `wrote` with the number of the case and each file once it is written, on a thread that writes.
    #[must_use]
    pub fn on_file(mut self, wrote: impl Fn(usize, PathBuf) + Sync + 'a) -> Self {
        self.wrote = Box::new(wrote);
        self
    }

    /// Whether [`Written`] has the maps.
    #[must_use]
    pub fn keep_maps(mut self, keep: bool) -> Self {
        self.keeps_maps = keep;
        self
    }

    /// The mask of [`Cohort::region`](super::Cohort::region), whose repairs are warned of with each case.
    #[cfg(feature = "cli")]
    pub(crate) fn region(mut self, path: &'a Path, mask: &'a Input) -> Self {
        self.region = Some((path, mask));
        self
    }

    /// Files that no output may replace.
    #[must_use]
    pub fn read_files(mut self, files: &'a ReadFiles) -> Self {
        self.read_files = Some(files);
        self
    }

    fn names<'b>(&'b self, case: &'b Case) -> Names<'b> {
        let one_target =
            case.targets.as_ref().map_or(self.one_target, |own| Target::is_single(own));
        Names { folder: &self.folder, stem: &case.id, one_target }
    }

    /// The files of one map of a case.
    pub(crate) fn map_files(&self, case: &Case, layer: &str, target: &str) -> Vec<PathBuf> {
        let names = self.names(case);
        let overlay = self.pictures.then(|| names.overlay(layer, target, None));
        names.maps(&case.image, layer, target).into_iter().chain(overlay).collect()
    }

    /// The file of the model's output for a case, if it is asked for.
    pub(crate) fn output_file(&self, case: &Case) -> Option<PathBuf> {
        self.output.then(|| self.names(case).output())
    }

    /// Scores the maps with the values that are written.
    fn score(
        &self,
        case: &Case,
        maps: &[MapView<'_>],
        grid: &Grid,
        warnings: &mut Vec<Warning>,
    ) -> Result<(Option<Evaluator>, Vec<MapScores>)> {
        let (Some(scoring), Some(path)) = (&self.scoring, &case.mask) else {
            return Ok((None, Vec::new()));
        };
        let mask = volumes::read(path)?;
        for warning in outputs::repairs(&mask, Some(path)) {
            // If the mask is that of the region too, its repairs are among the warnings already.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let (names, place) = (self.names(case), (grid, self.dtype));
        let mut evaluator = Evaluator::new(scoring.clone());
        let mut scores = Vec::new();
        for map in maps {
            let name = names.stem_of(map.target);
            let mask = (&mask, &*path.to_string_lossy());
            let of_map = outputs::score(&mut evaluator, map, place, mask, &name, warnings);
            scores.extend(of_map.map_err(|error| {
                let files = names.maps(&case.image, map.layer, map.target);
                let file = files.last().map_or_else(|| name.clone(), |f| f.display().to_string());
                error.within(format!("{file} against {}", path.display()))
            })?);
        }
        Ok((Some(evaluator), scores))
    }
}

impl Sink for Folder<'_> {
    type Kept = Written;

    fn keep(&self, explained: Explained<'_>) -> Result<Written> {
        let start = Instant::now();
        let Explained { index, case, input, prepared, explanation, read } = explained;
        Names::check_stem(&case.id)?;
        let values = explanation.maps.iter().map(|map| map.values_for(self.dtype));
        let values = values.collect::<Result<Vec<_>>>()?;
        let maps = explanation.maps.iter().zip(&values);
        let maps: Vec<_> = maps.map(|(map, values)| map.view_of(values)).collect();
        let names = self.names(case);
        let mut wrote = |file| (self.wrote)(index, file);
        if let Some(read_files) = self.read_files {
            let files = maps.iter().flat_map(|map| self.map_files(case, map.layer, map.target));
            read_files.check(files.chain(self.output_file(case)))?;
        }
        outputs::save_maps(&maps, &names, &prepared.grid, self.dtype, &mut wrote)?;
        if let Some(file) = self.output_file(case) {
            volumes::write_npy(&file, &to_array(&explanation.output)?, MapType::F32)?;
            wrote(file);
        }
        let mut warnings = outputs::repairs(&input, None);
        if let Some((path, mask)) = self.region {
            warnings.extend(outputs::repairs(mask, Some(path)));
        }
        warnings.extend(explanation.warnings.iter().cloned());
        let mut volumes = Vec::new();
        if let Some(threshold) = self.threshold {
            for map in &maps {
                let place = (&prepared.grid, self.dtype);
                volumes.extend(outputs::volumes_above(map, place, threshold)?);
            }
        }
        let (evaluator, scores) = self.score(case, &maps, &prepared.grid, &mut warnings)?;
        // Pictures come last: an array of several samples has none, and this error must not cost
        // its other files.
        if self.pictures {
            let class_name = |class| self.card.class_name(class).map(str::to_owned);
            let caption =
                |map: &MapView<'_>| outputs::caption(map, &case.id, &self.method, &class_name);
            let images = (std::slice::from_ref(&input), false);
            outputs::save_pictures(&maps, &names, images, &prepared.grid, &caption, &mut wrote)?;
        }
        let explained = explained_targets(&maps, &self.card);
        let mut layers: Vec<String> = Vec::new();
        for map in &maps {
            // Every target has maps of the same layers.
            if !layers.iter().any(|layer| layer == map.layer) {
                layers.push(map.layer.to_owned());
            }
        }
        let timings = explanation.timings;
        let seconds = Seconds {
            read: read.as_secs_f64(),
            discovery: timings.discovery.as_secs_f64(),
            inference: timings.inference.as_secs_f64(),
            maps: timings.maps.as_secs_f64(),
            write: start.elapsed().as_secs_f64(),
        };
        let maps = if self.keeps_maps { explanation.maps } else { Vec::new() };
        let done = Done { explained, scores, volumes, warnings, seconds };
        Ok(Written { done, layers, scores: evaluator, maps })
    }
}

/// The explained targets, in the order of the maps.
fn explained_targets(maps: &[MapView<'_>], card: &Card) -> Vec<ExplainedTarget> {
    let mut explained: Vec<ExplainedTarget> = Vec::new();
    for map in maps {
        if explained.last().is_some_and(|last| last.target == map.target) {
            continue;
        }
        let name = |class| card.class_name(class).map(str::to_owned);
        let named = |index: usize| Class { index, name: name(index) };
        let classes = map.classes.iter().map(|class| class.map(named)).collect();
        explained.push(ExplainedTarget { target: map.target.to_owned(), classes });
    }
    explained
}

impl fmt::Debug for Folder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder").field("folder", &self.folder).finish_non_exhaustive()
    }
}
