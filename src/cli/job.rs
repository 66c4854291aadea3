//! What `medcam map` and `medcam cohort` are asked for each image, checked before anything is loaded.

use std::path::{Path, PathBuf};

use super::args::{Options, metrics};
use crate::cohort::{Case, Cohort, Folder};
use crate::error::{Error, Result};
use crate::evaluation::Scoring;
use crate::explain::{Explainer, MapSize, Settings};
use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::outputs::ReadFiles;
use crate::torch::{Guide, LayerChoice, Model};
use crate::volumes::{self, Card, Input, MapType};

/// What is asked for each image, checked before anything is loaded.
pub struct Job<'a> {
    options: &'a Options,
    pub settings: Settings,
    /// `None`: the size of each image.
    pub size: Option<MapSize>,
    dtype: MapType,
    pub scoring: Scoring,
    /// The mask of `--target-mask`.
    pub region: Option<Input>,
}

impl<'a> Job<'a> {
    pub fn new(options: &'a Options) -> Result<Self> {
        let targets: Vec<Target> =
            options.label.iter().map(|label| label.trim().parse()).collect::<Result<_>>()?;
        if options.target_mask.is_some()
            && !matches!(targets[..], [Target::Best | Target::Class(_)])
        {
            return Err(Error::usage(format!(
                "--target-mask goes with --label N or best, not with --label {}",
                options.label.join(",")
            )));
        }
        for (i, target) in targets.iter().enumerate() {
            if targets[..i].iter().any(|other| other.label() == target.label()) {
                let label = &options.label[i];
                return Err(Error::usage(format!("--label: {label} is there twice")));
            }
        }
        options.model.precision()?;
        let backend: Backend = options.backend.parse()?;
        let layers: LayerChoice = options.layer.parse()?;
        if !backend.needs().layer && layers != LayerChoice::Auto {
            return Err(Error::usage(format!(
                "--layer {}: {backend} makes a map of the input and takes no layer; leave --layer \
                 out, or take --backend ggcam",
                options.layer
            )));
        }
        let guide = options.guide.parse()?;
        if !backend.needs().guided && guide != Guide::Relu {
            return Err(Error::usage(format!(
                "--guide {}: {backend} guides nothing; leave --guide out, or take --backend gbp or \
                 ggcam",
                options.guide
            )));
        }
        let score = options.score.parse()?;
        let compat = options.compat.parse()?;
        // With `--compat m3dcam`, `--score` is `output` by default (see `Options`), so
        // `logits` was given explicitly.
        if (score, compat) == (ScoreAt::Logits, Compat::M3dCam) {
            return Err(Error::usage(
                "--score logits: M3d-CAM takes the score after a final softmax; leave --score out, or \
                 --compat m3dcam",
            ));
        }
        let fuse = options.fuse.as_ref().map(|fuse| fuse.parse()).transpose()?;
        let settings = Settings {
            backend,
            layers,
            targets,
            score,
            compat,
            guide,
            fuse,
            ..Settings::default()
        };
        let (size, dtype) = (options.size()?, options.dtype()?);
        check_utf8(options)?;
        let region = options.target_mask.as_ref().map(volumes::read).transpose()?;
        let scoring = Scoring::new(metrics(&options.metric)?, options.threshold.parse()?);
        let scoring = scoring.masks(options.mask_values.parse()?);
        Ok(Self { options, settings, size, dtype, scoring, region })
    }

    /// The files that the run reads; `sources` say where its cases come from.
    pub fn read_files(&self, cases: &[Case], sources: &[PathBuf]) -> ReadFiles {
        let card = self.options.model.card_file();
        let files = [&self.options.model.model].into_iter().chain(&card);
        let files = files.chain(&self.options.target_mask).chain(sources);
        let of_cases = cases.iter().flat_map(|case| [&case.image].into_iter().chain(&case.mask));
        ReadFiles::new(files.chain(of_cases).map(PathBuf::as_path))
    }

    /// Where the files of all inputs go.
    pub fn folder(&self) -> Folder<'_> {
        let options = self.options;
        let folder = Folder::new(&options.output, &self.settings)
            .dtype(self.dtype)
            .pictures(options.picture)
            .output(options.save_output)
            .scoring(self.scoring.clone());
        match (&options.target_mask, &self.region) {
            (Some(path), Some(mask)) => folder.region(path, mask),
            _ => folder,
        }
    }

    /// A cohort of these models, as the options say.
    pub fn cohort(&self, models: Vec<Model>, card: Option<Card>) -> Result<Cohort> {
        let explainer = |model| Explainer::new(model, self.settings.clone());
        let explainers = models.into_iter().map(explainer).collect::<Result<_>>()?;
        let mut cohort = Cohort::new(explainers, card)?;
        if let Some(size) = self.size {
            cohort = cohort.size(size);
        }
        if let Some(region) = &self.region {
            cohort = cohort.region(region.clone());
        }
        Ok(cohort)
    }

    /// The outputs whose paths follow from the options.
    pub fn known_files(&self, cases: &[Case]) -> Vec<PathBuf> {
        let Settings { backend, layers, targets, .. } = &self.settings;
        let layers = match (&self.options.fuse, layers) {
            _ if !backend.needs().layer => vec!["input"],
            (Some(_), _) => vec!["fused"],
            (None, LayerChoice::Names(names)) => names.iter().map(String::as_str).collect(),
            (None, LayerChoice::Auto | LayerChoice::Full) => Vec::new(),
        };
        let targets: Vec<_> = targets.iter().map(Target::label).collect();
        let (folder, mut files) = (self.folder(), Vec::new());
        for case in cases {
            for layer in &layers {
                files.extend(
                    targets.iter().flat_map(|target| folder.map_files(case, layer, target)),
                );
            }
            files.extend(folder.output_file(case));
        }
        files
    }
}

/// Refuses names that `run.json` and a journal cannot hold.
fn check_utf8(options: &Options) -> Result<()> {
    let Options { output, target_mask, mask, .. } = options;
    let card = options.model.card.as_ref();
    for path in [Some(output), target_mask.as_ref(), mask.as_ref(), card].into_iter().flatten() {
        utf8(path)?;
    }
    Ok(())
}

/// The text of a path.
pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::usage(format!("{}: the name is not UTF-8; rename it", path.display()))
    })
}
