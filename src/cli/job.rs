//! What `medcam map` is asked for, checked before anything is loaded.

use std::path::PathBuf;

use super::args::MapArguments;
use super::evaluate::Evaluation;
use crate::cohort::{Case, Folder};
use crate::error::{Error, Result};
use crate::evaluation;
use crate::explain::{MapSize, Settings};
use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::outputs::{Archive, ReadFiles, check_distinct};
use crate::record;
use crate::torch::{Guide, LayerChoice};
use crate::volumes::{self, Input, MapType};

const ARCHIVE: &str = "attention_maps.npz";

/// The settings of a run, checked before anything is loaded.
pub struct Job<'a> {
    arguments: &'a MapArguments,
    pub settings: Settings,
    /// `None`: the size of each image.
    pub size: Option<MapSize>,
    dtype: MapType,
    pub evaluation: Option<Evaluation>,
    /// The mask of `--target-mask`.
    pub region: Option<Input>,
}

impl<'a> Job<'a> {
    pub fn new(arguments: &'a MapArguments) -> Result<Self> {
        let targets: Vec<Target> =
            arguments.label.iter().map(|label| label.trim().parse()).collect::<Result<_>>()?;
        if arguments.target_mask.is_some()
            && !matches!(targets[..], [Target::Best | Target::Class(_)])
        {
            return Err(Error::usage(format!(
                "--target-mask goes with --label N or best, not with --label {}",
                arguments.label.join(",")
            )));
        }
        for (i, target) in targets.iter().enumerate() {
            if targets[..i].iter().any(|other| other.label() == target.label()) {
                let label = &arguments.label[i];
                return Err(Error::usage(format!("--label: {label} is there twice")));
            }
        }
        let backend: Backend = arguments.backend.parse()?;
        let layers: LayerChoice = arguments.layer.parse()?;
        if !backend.needs().layer && layers != LayerChoice::Auto {
            return Err(Error::usage(format!(
                "--layer {}: {backend} makes a map of the input and takes no layer; leave --layer \
                 out, or take --backend ggcam",
                arguments.layer
            )));
        }
        let guide = arguments.guide.parse()?;
        if !backend.needs().guided && guide != Guide::Relu {
            return Err(Error::usage(format!(
                "--guide {}: {backend} guides nothing; leave --guide out, or take --backend gbp or \
                 ggcam",
                arguments.guide
            )));
        }
        let score = arguments.score.parse()?;
        let compat = arguments.compat.parse()?;
        // With `--compat m3dcam`, `--score` is `output` by default (see `MapArguments`), so
        // `logits` was given explicitly.
        if (score, compat) == (ScoreAt::Logits, Compat::M3dCam) {
            return Err(Error::usage(
                "--score logits: M3d-CAM takes the score after a final softmax; leave --score out, or \
                 --compat m3dcam",
            ));
        }
        let fuse = arguments.fuse.as_ref().map(|fuse| fuse.parse()).transpose()?;
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
        let (size, dtype) = (arguments.size()?, arguments.dtype()?);
        check_utf8(arguments)?;
        check_distinct(&arguments.inputs, arguments.picture)?;
        let region = arguments.target_mask.as_ref().map(volumes::read).transpose()?;
        let evaluation = Evaluation::new(arguments)?;
        Ok(Self { arguments, settings, size, dtype, evaluation, region })
    }

    /// The inputs, each called by the stem of its file.
    pub fn cases(&self) -> impl Iterator<Item = Case> + Send {
        let masks = self.evaluation.iter().flat_map(|evaluation| &evaluation.masks);
        let masks = masks.cloned().map(Some).chain(std::iter::repeat(None));
        self.arguments.inputs.iter().zip(masks).map(|(input, mask)| {
            let case = Case::new(volumes::stem_of(input), input);
            Case { mask, ..case }
        })
    }

    /// The files that the run reads.
    pub fn read_files(&self) -> ReadFiles {
        let card = self.arguments.model.card_file();
        let masks = self.evaluation.iter().flat_map(|evaluation| &evaluation.masks);
        let files = [&self.arguments.model.model].into_iter().chain(&card);
        let files = files.chain(&self.arguments.inputs).chain(masks);
        ReadFiles::new(files.chain(&self.arguments.target_mask).map(PathBuf::as_path))
    }

    /// Where the files of all inputs go.
    pub fn folder(&self) -> Folder<'_> {
        let arguments = self.arguments;
        let folder = Folder::new(&arguments.output, &self.settings)
            .dtype(self.dtype)
            .pictures(arguments.picture)
            .output(arguments.save_output)
            .keep_maps(arguments.archive);
        let folder = match &self.evaluation {
            Some(evaluation) => folder.scoring(evaluation.scoring.clone()),
            None => folder,
        };
        match (&arguments.target_mask, &self.region) {
            (Some(path), Some(mask)) => folder.region(path, mask),
            _ => folder,
        }
    }

    /// The outputs whose paths follow from the arguments.
    pub fn known_files(&self) -> Vec<PathBuf> {
        let output = &self.arguments.output;
        let mut names = vec![record::FILE];
        names.extend(self.arguments.archive.then_some(ARCHIVE));
        names.extend(self.arguments.mask.iter().flat_map(|_| evaluation::FILES));
        let mut files: Vec<_> = names.into_iter().map(|name| output.join(name)).collect();
        let Settings { backend, layers, targets, .. } = &self.settings;
        let layers = match (&self.arguments.fuse, layers) {
            _ if !backend.needs().layer => vec!["input"],
            (Some(_), _) => vec!["fused"],
            (None, LayerChoice::Names(names)) => names.iter().map(String::as_str).collect(),
            (None, LayerChoice::Auto | LayerChoice::Full) => Vec::new(),
        };
        let targets: Vec<_> = targets.iter().map(Target::label).collect();
        let folder = self.folder();
        for case in self.cases() {
            for layer in &layers {
                files.extend(
                    targets.iter().flat_map(|target| folder.map_files(&case, layer, target)),
                );
            }
            files.extend(folder.output_file(&case));
        }
        files
    }

    /// The archive of `--archive`.
    pub fn archive(&self) -> Result<Option<Archive>> {
        let file = self.arguments.archive.then(|| self.arguments.output.join(ARCHIVE));
        file.map(|file| Archive::new(&file)).transpose()
    }
}

/// Refuses names that `run.json` cannot hold.
fn check_utf8(arguments: &MapArguments) -> Result<()> {
    let MapArguments { inputs, output, target_mask, mask, .. } = arguments;
    let card = arguments.model.card.as_ref();
    let others = [Some(output), target_mask.as_ref(), mask.as_ref(), card];
    for path in inputs.iter().chain(others.into_iter().flatten()) {
        if path.to_str().is_none() {
            let path = path.display();
            return Err(Error::usage(format!("{path}: the name is not UTF-8; rename it")));
        }
    }
    Ok(())
}
