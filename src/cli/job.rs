//! Processes one input of `medcam map`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ndarray::Axis;
use tch::Tensor;

use super::args::MapArguments;
use super::evaluate::Evaluation;
use super::model::ModelInput;
use crate::bridge::to_array;
use crate::error::{Error, Result};
use crate::evaluation;
use crate::explain::{AttentionMap, Explainer, MapSize, Request, Settings};
use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::outputs::{self, Archive, MapView, Names, ReadFiles, check_distinct};
use crate::record::{self, Class, Done, ExplainedTarget, Seconds};
use crate::torch::{Guide, LayerChoice, Model};
use crate::volumes::{self, Input, MapType, Prepared};

const ARCHIVE: &str = "attention_maps.npz";

/// The settings of a run, checked before anything is loaded.
pub struct Job<'a> {
    arguments: &'a MapArguments,
    pub settings: Settings,
    /// `None`: the size of each image.
    size: Option<MapSize>,
    dtype: MapType,
    mask: Option<Input>,
}

/// State that is carried from input to input.
pub struct Collected {
    pub explainer: Explainer<Model>,
    pub evaluation: Option<Evaluation>,
    pub archive: Option<Archive>,
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
        let job = Self { arguments, settings, size, dtype, mask: None };
        check_utf8(arguments)?;
        check_distinct(&arguments.inputs, arguments.picture)?;
        let mask = arguments.target_mask.as_ref().map(volumes::read).transpose()?;
        Ok(Self { mask, ..job })
    }

    /// The outputs whose paths follow from the arguments.
    pub fn known_files(&self) -> Vec<PathBuf> {
        let MapArguments { output, inputs, .. } = self.arguments;
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
        for input in inputs {
            for layer in &layers {
                files
                    .extend(targets.iter().flat_map(|target| self.map_files(input, layer, target)));
            }
            files.extend(self.output_file(input));
        }
        files
    }

    /// The archive of `--archive`.
    pub fn archive(&self) -> Result<Option<Archive>> {
        let file = self.arguments.archive.then(|| self.arguments.output.join(ARCHIVE));
        file.map(|file| Archive::new(&file)).transpose()
    }

    fn names<'b>(&'b self, stem: &'b str) -> Names<'b> {
        let one_target = Target::is_single(&self.settings.targets);
        Names { folder: &self.arguments.output, stem, one_target }
    }

    /// The files of one map of an input.
    fn map_files(&self, input: &Path, layer: &str, target: &str) -> Vec<PathBuf> {
        let stem = volumes::stem_of(input);
        let names = self.names(&stem);
        let overlay = self.arguments.picture.then(|| names.overlay(layer, target, None));
        names.maps(input, layer, target).into_iter().chain(overlay).collect()
    }

    /// The file of the model's output for an input, if it is asked for.
    fn output_file(&self, input: &Path) -> Option<PathBuf> {
        let stem = volumes::stem_of(input);
        self.arguments.save_output.then(|| self.names(&stem).output())
    }

    /// Computes and writes the outputs of input number `index`; `wrote` is called with each file
    /// once it is written.
    ///
    /// Returns what the record holds of the input, and the layers that have maps.
    pub fn process(
        &self,
        index: usize,
        model_input: &ModelInput,
        read_files: &ReadFiles,
        collected: &mut Collected,
        wrote: &dyn Fn(PathBuf),
    ) -> Result<(Done, Vec<String>)> {
        let path = &self.arguments.inputs[index];
        let Collected { explainer, evaluation, archive } = collected;
        let start = Instant::now();
        let (input, prepared) = model_input.read(path)?;
        let tensor = model_input.tensor(&prepared)?;
        let size = Some(self.size.unwrap_or(MapSize::Exact(prepared.grid.map_size())));
        let targets = match &self.mask {
            Some(mask) => Some(vec![self.region(mask, &prepared, explainer, &tensor)?]),
            None => None,
        };
        let read = start.elapsed().as_secs_f64();

        let explanation = match explainer.explain(&tensor, &Request { targets, size }) {
            Ok(explanation) => explanation,
            Err(error) => return Err(model_input.with_hint(error, explainer.network(), &tensor)),
        };
        let maps: Vec<_> = explanation.maps.iter().map(AttentionMap::to_view).collect();

        let start = Instant::now();
        let stem = volumes::stem_of(path);
        let names = self.names(&stem);
        let archived = match archive {
            Some(archive) => archive.check(&stem, &maps).and_then(|()| archive.add(&stem, &maps)),
            None => Ok(()),
        };
        let files: Vec<_> =
            maps.iter().map(|map| self.map_files(path, map.layer, map.target)).collect();
        read_files.check(files.iter().flatten().cloned().chain(self.output_file(path)))?;
        outputs::save_maps(&maps, &names, &prepared.grid, self.dtype, &mut |file| wrote(file))?;
        // Checked only now: a failed archive must not keep the maps from being written.
        archived?;
        if let Some(file) = self.output_file(path) {
            volumes::write_npy(&file, &to_array(&explanation.output)?, MapType::F32)?;
            wrote(file);
        }
        let mut warnings = outputs::repairs(&input, None);
        if let (Some(mask), Some(path)) = (&self.mask, &self.arguments.target_mask) {
            warnings.extend(outputs::repairs(mask, Some(path)));
        }
        warnings.extend(explanation.warnings);
        let scores = match evaluation {
            Some(evaluation) => {
                let place = (&prepared.grid, self.dtype);
                evaluation.add(index, &names, &maps, place, &mut warnings)?
            }
            None => Vec::new(),
        };
        // Pictures come last: an array of several samples has none, and this error must not cost
        // its other files.
        if self.arguments.picture {
            let method = self.settings.backend.to_string();
            let class_name = |class| model_input.card.class_name(class).map(str::to_owned);
            let caption = |map: &MapView<'_>| outputs::caption(map, &stem, &method, &class_name);
            let images = (std::slice::from_ref(&input), false);
            outputs::save_pictures(&maps, &names, images, &prepared.grid, &caption, &mut |file| {
                wrote(file);
            })?;
        }
        let seconds = Seconds {
            read,
            discovery: explanation.timings.discovery.as_secs_f64(),
            inference: explanation.timings.inference.as_secs_f64(),
            maps: explanation.timings.maps.as_secs_f64(),
            write: start.elapsed().as_secs_f64(),
        };
        let explained = explained_targets(&maps, model_input);
        let mut layers: Vec<String> = Vec::new();
        for map in &maps {
            // Every target has maps of the same layers.
            if !layers.iter().any(|layer| layer == map.layer) {
                layers.push(map.layer.to_owned());
            }
        }
        Ok((Done { explained, scores, warnings, seconds }, layers))
    }

    /// The target region: the mask on the image's grid, resampled to the model's output grid.
    fn region(
        &self,
        mask: &Input,
        prepared: &Prepared,
        explainer: &mut Explainer<Model>,
        tensor: &Tensor,
    ) -> Result<Target> {
        let output = explainer.layers(tensor)?.output_shape();
        let mut grid = [1; 3];
        for (extent, &n) in grid.iter_mut().rev().zip(output.iter().skip(2).rev()) {
            *extent = usize::try_from(n).unwrap_or(1);
        }
        let mask = prepared.grid.prepare_mask(mask, grid)?.into_dyn();
        // (B, 1, D, H, W) to (B, [D,] H, W), as the output has it.
        let mask = mask.index_axis_move(Axis(1), 0);
        let mask = if output.len() == 4 { mask.index_axis_move(Axis(1), 0) } else { mask };
        let class = match self.settings.targets[..] {
            [Target::Class(class)] => Some(class),
            _ => None,
        };
        Ok(Target::Region { class, mask: Arc::new(mask) })
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

/// The explained targets, in the order of the maps.
fn explained_targets(maps: &[MapView<'_>], model_input: &ModelInput) -> Vec<ExplainedTarget> {
    let mut explained: Vec<ExplainedTarget> = Vec::new();
    for map in maps {
        if explained.last().is_some_and(|last| last.target == map.target) {
            continue;
        }
        let name = |class| model_input.card.class_name(class).map(str::to_owned);
        let named = |index: usize| Class { index, name: name(index) };
        let classes = map.classes.iter().map(|class| class.map(named)).collect();
        explained.push(ExplainedTarget { target: map.target.to_owned(), classes });
    }
    explained
}
