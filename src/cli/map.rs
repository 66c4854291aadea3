//! `medcam map`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use ndarray::Axis;
use tch::Tensor;

use super::args::MapArguments;
use super::evaluate::{Evaluation, Scored};
use super::model::Loaded;
use super::report::{
    Class, Done, Explained, InputReport, Outcome, Report, Seconds, peak_memory_bytes, print_json,
    sha256,
};
use super::terminal::{complain, print};
use crate::error::{Error, Result};
use crate::inject::{AttentionMap, Injected, MapSize, Options, Warning, inject};
use crate::methods::{Backend, Target};
use crate::torch::{Model, Network, to_array};
use crate::volumes::{self, Caption, Input, MapType, Prepared, Style};

pub fn run(arguments: &MapArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let job = Job::new(arguments)?;
    let mut evaluation = Evaluation::new(arguments)?;
    volumes::make_folder(&arguments.output)?;
    let (loaded, model) = Loaded::new(&arguments.model)?;
    let final_activation = model.facts().final_activation;
    let model_sha256 = sha256(&arguments.model.model)?;
    let mut injected = inject(model, job.options.clone())?;

    let progress = progress_bar(arguments.inputs.len());
    let mut task = None;
    let mut layers: Vec<String> = Vec::new();
    let mut inputs = Vec::new();
    for (index, path) in arguments.inputs.iter().enumerate() {
        progress.set_message(volumes::stem_of(path));
        let mut outputs = Vec::new();
        let mut evaluate = |map: &AttentionMap, file: &Path, warnings: &mut Vec<_>| {
            let evaluation = evaluation.as_mut();
            evaluation.map_or(Ok(Vec::new()), |e| e.add(index, map, file, warnings))
        };
        let outcome = match job.one(&loaded, &mut injected, path, &mut evaluate, &mut outputs) {
            Ok(done) => {
                for warning in &done.warnings {
                    progress.suspend(|| {
                        let (code, path) = (warning.code, path.display());
                        complain(format!("warning[{code}]: {path}: {}", warning.message));
                    });
                }
                layers =
                    injected.attention_maps().iter().map(|map| map.layer().to_owned()).collect();
                Outcome::Done(done)
            }
            Err(error) => {
                let error = named(&error, path);
                progress.suspend(|| complain(format!("error: {error}")));
                Outcome::Failed { error }
            }
        };
        task = task.or_else(|| injected.known_layers().map(crate::torch::Layers::task));
        inputs.push(InputReport { input: path.clone(), outputs, outcome });
        progress.inc(1);
    }
    progress.finish_and_clear();

    injected.dump()?;
    let layer_order = injected.layer_names(false);
    let scores = evaluation.map_or(Ok(Vec::new()), |e| e.dump(layer_order, &arguments.output))?;
    let failed = inputs.iter().filter(|i| matches!(i.outcome, Outcome::Failed { .. })).count();
    let report = Report {
        medcam: env!("CARGO_PKG_VERSION"),
        libtorch: env!("MEDCAM_LIBTORCH"),
        model_sha256,
        card: loaded.card_path.clone(),
        device: loaded.device.to_string(),
        threads: tch::get_num_threads(),
        options: arguments,
        task,
        final_activation,
        layers,
        inputs,
        scores,
        failed,
        seconds: start.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory_bytes(),
    };
    report.write(&arguments.output)?;
    if arguments.json {
        print_json(&report)?;
    } else {
        for output in report.outputs() {
            print(output.display())?;
        }
    }
    if failed > 0 {
        let all = arguments.inputs.len();
        complain(format!("error: {failed} of {all} input(s) failed; see run.json"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The message of an error, with the input's path in front unless it is in there.
fn named(error: &Error, path: &Path) -> String {
    let (message, path) = (error.to_string(), path.display().to_string());
    if message.contains(&path) { message } else { format!("{path}: {message}") }
}

fn progress_bar(inputs: usize) -> ProgressBar {
    if inputs < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(inputs as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// Scores a map that was written to a file.
type Evaluate<'a> = dyn FnMut(&AttentionMap, &Path, &mut Vec<Warning>) -> Result<Vec<Scored>> + 'a;

/// One run's settings, checked before anything is loaded.
struct Job<'a> {
    arguments: &'a MapArguments,
    options: Options,
    backend: Backend,
    targets: Vec<Target>,
    /// `None`: the size of each image.
    size: Option<MapSize>,
    dtype: MapType,
    mask: Option<Input>,
}

impl<'a> Job<'a> {
    fn new(arguments: &'a MapArguments) -> Result<Self> {
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
        let backend: Backend = arguments.backend.parse()?;
        let mut options = Options::default()
            .backend(backend)
            .layers(arguments.layer.parse()?)
            .targets(targets.clone())
            .score(arguments.score.parse()?)
            .compat(arguments.compat.parse()?)
            .guide(arguments.guide.parse()?);
        if let Some(fuse) = &arguments.fuse {
            options = options.fuse(fuse.parse()?);
        }
        if arguments.archive {
            options = options.save_archive(arguments.output.join("attention_maps.npz"));
        }
        let job = Self {
            arguments,
            options,
            backend,
            targets,
            size: arguments.size()?,
            dtype: arguments.dtype()?,
            mask: None,
        };
        check_names(arguments)?;
        let mask = arguments.target_mask.as_ref().map(volumes::read).transpose()?;
        Ok(Self { mask, ..job })
    }

    /// Makes and writes what one input gives; `outputs` says what was written, also on failure.
    fn one(
        &self,
        loaded: &Loaded,
        injected: &mut Injected<Model>,
        path: &Path,
        evaluate: &mut Evaluate<'_>,
        outputs: &mut Vec<PathBuf>,
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

        let output = injected.forward(&tensor)?;

        let start = Instant::now();
        let stem = volumes::stem_of(path);
        let file_of = |map: &AttentionMap| {
            if Target::one_map(&self.targets) {
                stem.clone()
            } else {
                format!("{stem}_{}", map.target())
            }
        };
        let mut written = Vec::new();
        for map in injected.attention_maps() {
            let folder = self.arguments.output.join(map.layer());
            volumes::make_folder(&folder)?;
            let (name, values) = (file_of(map), map.values());
            let files = prepared.grid.save_map(&folder, &name, values, self.dtype)?;
            written.extend(files.last().map(|file| (map, file.clone())));
            outputs.extend(files);
        }
        if self.arguments.save_output {
            let file = self.arguments.output.join(format!("{stem}_output.npy"));
            volumes::write_npy(&file, &to_array(&output)?, MapType::F32)?;
            outputs.push(file);
        }
        let mut warnings = injected.warnings().to_vec();
        let mut scores = Vec::new();
        for (map, file) in written {
            scores.extend(evaluate(map, &file, &mut warnings)?);
        }
        let style = if self.backend.needs().guided { Style::Gray } else { Style::Heat };
        // Last: not every input has a picture, and a batch that has none keeps its maps.
        for map in injected.attention_maps().iter().filter(|_| self.arguments.picture) {
            let name = format!("{}_overlay.png", file_of(map));
            let picture = self.arguments.output.join(map.layer()).join(name);
            let caption = self.caption(loaded, &stem, map);
            let sample = map.values().index_axis(Axis(0), 0);
            let on_grid = prepared.grid.restore(sample.index_axis(Axis(0), 0));
            let image = volumes::overlay(&input, &on_grid, &caption, style)?;
            volumes::write_png(&picture, &image.into())?;
            outputs.push(picture);
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

/// Refuses names that `run.json` cannot hold, and inputs that would write the same files.
fn check_names(arguments: &MapArguments) -> Result<()> {
    let MapArguments { inputs, output, target_mask, mask, .. } = arguments;
    let card = arguments.model.card.as_ref();
    let others = [Some(output), target_mask.as_ref(), mask.as_ref(), card];
    for path in inputs.iter().chain(others.into_iter().flatten()) {
        if path.to_str().is_none() {
            let path = path.display();
            return Err(Error::usage(format!("{path}: the name is not UTF-8; rename it")));
        }
    }
    let mut names: HashMap<String, &Path> = HashMap::new();
    for path in inputs {
        let stem = volumes::stem_of(path);
        let overlay = arguments.picture.then(|| format!("{stem}_overlay"));
        for name in overlay.into_iter().chain([stem]) {
            if let Some(other) = names.insert(name, path) {
                return Err(Error::usage(format!(
                    "{} and {} would write maps of the same name; run them into different folders",
                    other.display(),
                    path.display()
                )));
            }
        }
    }
    Ok(())
}
