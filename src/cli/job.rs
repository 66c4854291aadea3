//! What `medcam map` does with one input.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ndarray::Axis;
use tch::Tensor;

use super::args::MapArguments;
use super::clashes::{Given, check_names};
use super::evaluate::{Scored, repairs};
use super::model::Loaded;
use super::report::{self, Class, Done, Explained, Seconds};
use crate::error::{Error, Result};
use crate::evaluation;
use crate::inject::{AttentionMap, Call, Injected, MapSize, Options, Warning};
use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::torch::{Guide, LayerChoice, Model, to_array};
use crate::volumes::{self, Caption, Input, MapType, Prepared, Style};

const ARCHIVE: &str = "attention_maps.npz";

/// Scores the maps of an input, which were written to files.
pub type Evaluate<'a> =
    dyn FnMut(&[(&AttentionMap, PathBuf)], &mut Vec<Warning>) -> Result<Vec<Scored>> + 'a;

/// One run's settings, checked before anything is loaded.
pub struct Job<'a> {
    arguments: &'a MapArguments,
    pub options: Options,
    backend: Backend,
    layers: LayerChoice,
    targets: Vec<Target>,
    /// `None`: the size of each image.
    size: Option<MapSize>,
    dtype: MapType,
    mask: Option<Input>,
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
        // The default is what compat takes: see `MapArguments`.
        if (score, compat) == (ScoreAt::Logits, Compat::M3dCam) {
            return Err(Error::usage(
                "--score logits: M3d-CAM takes the score after a final softmax; leave --score out, or \
                 --compat m3dcam",
            ));
        }
        let mut options = Options::default()
            .backend(backend)
            .layers(layers.clone())
            .targets(targets.clone())
            .score(score)
            .compat(compat)
            .guide(guide);
        if let Some(fuse) = &arguments.fuse {
            options = options.fuse(fuse.parse()?);
        }
        if arguments.archive {
            options = options.save_archive(arguments.output.join(ARCHIVE));
        }
        let job = Self {
            arguments,
            options,
            backend,
            layers,
            targets,
            size: arguments.size()?,
            dtype: arguments.dtype()?,
            mask: None,
        };
        check_names(arguments)?;
        let mask = arguments.target_mask.as_ref().map(volumes::read).transpose()?;
        Ok(Self { mask, ..job })
    }

    /// The outputs whose names the arguments tell.
    pub fn known_files(&self) -> Vec<PathBuf> {
        let MapArguments { output, inputs, .. } = self.arguments;
        let mut names = vec![report::FILE];
        names.extend(self.arguments.archive.then_some(ARCHIVE));
        names.extend(self.arguments.mask.iter().flat_map(|_| evaluation::FILES));
        let mut files: Vec<_> = names.into_iter().map(|name| output.join(name)).collect();
        let layers = match (&self.arguments.fuse, &self.layers) {
            _ if !self.backend.needs().layer => vec!["input"],
            (Some(_), _) => vec!["fused"],
            (None, LayerChoice::Names(names)) => names.iter().map(String::as_str).collect(),
            (None, LayerChoice::Auto | LayerChoice::Full) => Vec::new(),
        };
        let targets: Vec<_> = self.targets.iter().map(Target::label).collect();
        for input in inputs {
            for layer in &layers {
                files
                    .extend(targets.iter().flat_map(|target| self.map_files(input, layer, target)));
            }
            files.extend(self.output_file(input));
        }
        files
    }

    /// The files of one map of an input.
    fn map_files(&self, input: &Path, layer: &str, target: &str) -> Vec<PathBuf> {
        let overlay = self.arguments.picture.then_some("_overlay.png");
        let name = self.name_of(&volumes::stem_of(input), target);
        let suffixes = volumes::map_suffixes(input).iter().copied().chain(overlay);
        let folder = self.arguments.output.join(layer);
        suffixes.map(|suffix| folder.join(format!("{name}{suffix}"))).collect()
    }

    /// The file of the model's output for an input, if it is asked for.
    fn output_file(&self, input: &Path) -> Option<PathBuf> {
        let name = format!("{}_output.npy", volumes::stem_of(input));
        self.arguments.save_output.then(|| self.arguments.output.join(name))
    }

    /// What the files of a map are called.
    fn name_of(&self, stem: &str, target: &str) -> String {
        if Target::one_map(&self.targets) { stem.to_owned() } else { format!("{stem}_{target}") }
    }

    /// Makes and writes what one input gives; `wrote` is told of each file as soon as it is there.
    pub fn one(
        &self,
        loaded: &Loaded,
        given: &Given,
        injected: &mut Injected<Model>,
        path: &Path,
        evaluate: &mut Evaluate<'_>,
        wrote: &dyn Fn(PathBuf),
    ) -> Result<Done> {
        let start = Instant::now();
        let (input, prepared) = loaded.read(path)?;
        let tensor = loaded.tensor(&prepared)?;
        injected.set_size(self.size.unwrap_or(MapSize::Exact(prepared.grid.map_size())));
        if let Some(mask) = &self.mask {
            let region = self.region(mask, &prepared, injected, &tensor)?;
            injected.set_target(region);
        }
        let read = start.elapsed().as_secs_f64();

        let stem = volumes::stem_of(path);
        let call =
            if self.arguments.archive { Call::default().name(&stem) } else { Call::default() };
        let forward = match injected.forward_with(&tensor, &call) {
            Err(error) if injected.attention_maps().is_empty() => {
                return Err(loaded.explain(error, injected.network(), &tensor));
            }
            // Where only the archive failed, the maps are whole.
            forward => forward,
        };
        let maps = injected.attention_maps();

        let start = Instant::now();
        let files = maps.iter().flat_map(|map| self.map_files(path, map.layer(), map.target()));
        given.check(files.chain(self.output_file(path)))?;
        let mut written = Vec::new();
        for map in maps {
            let folder = self.arguments.output.join(map.layer());
            volumes::make_folder(&folder)?;
            let (name, values) = (self.name_of(&stem, map.target()), map.values());
            let files = prepared.grid.save_map(&folder, &name, values, self.dtype)?;
            written.extend(files.last().map(|file| (map, file.clone())));
            files.into_iter().for_each(wrote);
        }
        let output = forward?;
        if let Some(file) = self.output_file(path) {
            volumes::write_npy(&file, &to_array(&output)?, MapType::F32)?;
            wrote(file);
        }
        let mut warnings = repairs(&input, None);
        if let (Some(mask), Some(path)) = (&self.mask, &self.arguments.target_mask) {
            warnings.extend(repairs(mask, Some(path)));
        }
        warnings.extend_from_slice(injected.warnings());
        let scores = evaluate(&written, &mut warnings)?;
        let style = if self.backend.needs().guided { Style::Gray } else { Style::Heat };
        // Last: not every input has a picture, and a batch that has none keeps its maps.
        for map in injected.attention_maps().iter().filter(|_| self.arguments.picture) {
            let name = format!("{}_overlay.png", self.name_of(&stem, map.target()));
            let picture = self.arguments.output.join(map.layer()).join(name);
            let caption = self.caption(loaded, &stem, map);
            let sample = map.values().index_axis(Axis(0), 0);
            let on_grid = prepared.grid.restore(sample.index_axis(Axis(0), 0));
            let image = volumes::overlay(&input, &on_grid, &caption, style)?;
            volumes::write_png(&picture, &image.into())?;
            wrote(picture);
        }
        let mut explained: Vec<Explained> = Vec::new();
        for map in injected.attention_maps() {
            if explained.last().is_some_and(|last| last.target == map.target()) {
                continue;
            }
            let named = |index: usize| Class {
                index,
                name: loaded.card.class_name(index).map(str::to_owned),
            };
            let classes = map.classes().iter().map(|class| class.map(named)).collect();
            explained.push(Explained { target: map.target().to_owned(), classes });
        }
        Ok(Done {
            explained,
            scores,
            warnings,
            seconds: Seconds::new(read, injected.timings(), start.elapsed().as_secs_f64()),
        })
    }

    /// The mask, given on the image's grid, as a region of the model's output.
    fn region(
        &self,
        mask: &Input,
        prepared: &Prepared,
        injected: &mut Injected<Model>,
        tensor: &Tensor,
    ) -> Result<Target> {
        let output = injected.layers(tensor)?.output_shape();
        let mut grid = [1; 3];
        for (extent, &n) in grid.iter_mut().rev().zip(output.iter().skip(2).rev()) {
            *extent = usize::try_from(n).unwrap_or(1);
        }
        let mask = prepared.grid.prepare_mask(mask, grid)?.into_dyn();
        // (B, 1, D, H, W) to (B, [D,] H, W), as the output has it.
        let mask = mask.index_axis_move(Axis(1), 0);
        let mask = if output.len() == 4 { mask.index_axis_move(Axis(1), 0) } else { mask };
        let class = match self.targets[..] {
            [Target::Class(class)] => Some(class),
            _ => None,
        };
        Ok(Target::Region { class, mask: Arc::new(mask) })
    }

    fn caption(&self, loaded: &Loaded, stem: &str, map: &AttentionMap) -> Caption {
        let class = match map.classes().first() {
            Some(&Some(index)) => match loaded.card.class_name(index) {
                Some(name) => format!("class {index} ({name})"),
                None => format!("class {index}"),
            },
            _ => "all outputs".to_owned(),
        };
        let class = if map.target().starts_with("component") {
            format!("{class}, {}", map.target())
        } else {
            class
        };
        let backend = self.backend;
        Caption {
            lines: vec![format!("{class} · layer {} · {backend}", map.layer()), stem.to_owned()],
        }
    }
}
