//! `inject()`: an interface in the manner of M3d-CAM, on top of the core (`explain`) and the files
//! (`outputs`).

mod checks;
mod options;
mod save;

use std::path::Path;

use tch::Tensor;

pub use options::{Call, Options};

use crate::error::{Error, Result};
use crate::evaluation::{Evaluator, Score};
use crate::explain::{AttentionMap, Explainer, MapSize, Timings};
use crate::methods::Target;
use crate::outputs::{self, Archive};
use crate::torch::{Layers, Network, in_libtorch};
use crate::volumes;
use crate::warning::Warning;

/// Injects attention maps into a network: each [`Injected::forward`] gives the network's own
/// output, bit for bit, and computes the maps along with it.
///
/// Runs nothing yet: the layers are found with the first forward, see [`Explainer::explain`].
///
/// # Errors
///
/// If the folder of [`Options::save_maps`] or the file of [`Options::save_archive`] cannot be made,
/// or options contradict each other.
///
/// # Example
///
/// ```no_run
/// use medcam::{Device, Options, Target};
///
/// let model = medcam::load("bbox_model.pt", Device::Cpu)?;
/// let mut model = medcam::inject(model, Options::default().target(Target::Class(1)))?;
/// let batch = tch::Tensor::rand([1, 1, 128, 128, 128], (tch::Kind::Float, tch::Device::Cpu));
/// let probabilities = model.forward(&batch)?;
/// for map in model.attention_maps() {
///     println!("{}: {:?}", map.layer(), map.to_array()?.shape());
/// }
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn inject<N: Network>(network: N, options: Options) -> Result<Injected<N>> {
    let explainer = Explainer::new(network, options.settings.clone())?;
    if options.save_scores.is_some() && options.evaluate.is_none() {
        return Err(Error::usage(
            "save_scores: there are no scores without something to measure (evaluate)",
        ));
    }
    if let Some(folder) = &options.save_maps {
        outputs::prepare_folder(folder)?;
    }
    let archive = options.save_archive.as_deref().map(Archive::new).transpose()?;
    let evaluator = options.evaluate.clone().map(Evaluator::new);
    Ok(Injected {
        explainer,
        options,
        maps: Vec::new(),
        warnings: Vec::new(),
        timings: Timings::default(),
        calls: 0,
        archive,
        evaluator,
        scored_before: 0,
    })
}

/// A network that makes attention maps as it runs; see [`inject()`].
#[derive(Debug)]
pub struct Injected<N: Network> {
    explainer: Explainer<N>,
    options: Options,
    maps: Vec<AttentionMap>,
    warnings: Vec<Warning>,
    timings: Timings,
    /// Number of forwards so far, failed ones included.
    calls: usize,
    archive: Option<Archive>,
    evaluator: Option<Evaluator>,
    /// Number of the evaluator's scores that earlier forwards added.
    scored_before: usize,
}

impl<N: Network> Injected<N> {
    /// Runs the network on a batch `(B, C, [D,] H, W)` and makes its attention maps.
    ///
    /// Returns the network's own output, bit for bit the same as without injection; with
    /// [`Options::replace`], the map instead.
    ///
    /// # Errors
    ///
    /// If the input does not fit the network or is not finite, a layer is unknown or no gradient
    /// reaches it, a class is out of range, the maps are not finite, or they cannot be evaluated or
    /// saved. The maps of the previous forward are then gone, and no score of this one is kept. Its
    /// maps are available if only scoring or saving them failed. If the archive of
    /// [`Options::save_archive`] cannot be written, it is given up, but later forwards run.
    pub fn forward(&mut self, input: &Tensor) -> Result<Tensor> {
        self.forward_with(input, &Call::default())
    }

    /// [`forward`](Self::forward), with options for this call alone.
    ///
    /// # Errors
    ///
    /// As `forward`, and if a part of `call` does not fit the batch.
    pub fn forward_with(&mut self, input: &Tensor, call: &Call) -> Result<Tensor> {
        let output = self.run(input, call)?;
        if self.options.enabled && self.options.replace {
            self.map_tensor(input)
        } else {
            Ok(output)
        }
    }

    /// As [`forward`](Self::forward), but returns the output together with the attention map,
    /// `(B, 1, [D,] H, W)` f32 on the input's device.
    ///
    /// # Errors
    ///
    /// As `forward`; also if the choice of layers and targets gives more than one map, or maps are
    /// switched off.
    pub fn forward_with_attention(&mut self, input: &Tensor) -> Result<(Tensor, Tensor)> {
        let output = self.run(input, &Call::default())?;
        Ok((output, self.map_tensor(input)?))
    }

    /// Runs the network, fills `self.maps` and returns the network's own output.
    fn run(&mut self, input: &Tensor, call: &Call) -> Result<Tensor> {
        self.maps.clear();
        self.warnings.clear();
        self.scored_before = self.evaluator().map_or(0, |evaluator| evaluator.scores().len());
        let number = self.calls;
        self.calls += 1;
        if !self.options.enabled {
            return self.explainer.infer(input);
        }
        self.check_call(input, call)?;
        let mut request = call.request.clone();
        request.targets.get_or_insert_with(|| self.options.settings.targets.clone());
        request.size = Some(match (self.options.settings.size, call.image) {
            (MapSize::Input, Some(image)) => MapSize::Exact(image.grid.map_size()),
            (size, _) => size,
        });
        let explanation = self.explainer.explain(input, &request)?;
        self.maps = explanation.maps;
        self.warnings = explanation.warnings;
        self.timings = explanation.timings;
        let name = call.name.clone().unwrap_or_else(|| format!("{number:06}"));
        let targets = request.targets.unwrap_or_default();
        self.keep(&name, Target::is_single(&targets), input, call)?;
        Ok(explanation.output)
    }

    /// The only map of the last forward, as a tensor.
    fn map_tensor(&self, input: &Tensor) -> Result<Tensor> {
        if !self.options.enabled {
            return Err(Error::usage("no map can be returned: maps are switched off; enable them"));
        }
        let [map] = &self.maps[..] else {
            let names: Vec<_> =
                self.maps.iter().map(|map| format!("{}/{}", map.layer(), map.target())).collect();
            return Err(Error::usage(format!(
                "a single map can be returned, this forward made {}: {}. Choose one layer and one \
                 target, or fuse the layers",
                names.len(),
                names.join(", ")
            )));
        };
        let tensor = map.tensor()?;
        in_libtorch("map", || tensor.f_to_device(input.device()))
    }

    /// The maps of the last forward, in the order of the targets, and for each target in the order
    /// of the layers.
    pub fn attention_maps(&self) -> &[AttentionMap] {
        &self.maps
    }

    /// The scores of the maps of the last forward, map by map, sample by sample and metric by
    /// metric.
    pub fn scores(&self) -> &[Score] {
        self.evaluator().map_or(&[], |evaluator| &evaluator.scores()[self.scored_before..])
    }

    /// The evaluator of [`Options::evaluate`], with the scores of all forwards.
    pub fn evaluator(&self) -> Option<&Evaluator> {
        self.evaluator.as_ref()
    }

    /// Warnings about the maps of the last forward.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The layers of the network: see [`Explainer::layers`].
    ///
    /// # Errors
    ///
    /// If the input does not fit the network, or its output is no classification or segmentation.
    pub fn layers(&mut self, input: &Tensor) -> Result<&Layers> {
        self.explainer.layers(input)
    }

    /// The layers of the network, if a forward has shown them.
    pub fn known_layers(&self) -> Option<&Layers> {
        self.explainer.known_layers()
    }

    /// The names of the layers in the order of `layers`, parents before their children, or the
    /// other way round; empty before a forward or [`layers`](Self::layers) has shown them.
    pub fn layer_names(&self, reverse: bool) -> Vec<String> {
        let mut names = self.explainer.layer_names();
        if reverse {
            names.reverse();
        }
        names
    }

    /// Returns the names of the layers that can carry a map, and writes them to
    /// `folder/registered_layers.txt`, one per line. Runs one forward of the first sample of
    /// `input` unless the layers are known already.
    ///
    /// # Errors
    ///
    /// As [`layers`](Self::layers), and if the file cannot be written.
    pub fn test_run(&mut self, input: &Tensor, folder: Option<&Path>) -> Result<Vec<String>> {
        let layers = self.layers(input)?;
        let names: Vec<_> =
            layers.iter().filter(|l| l.can_carry_map).map(|l| l.name.clone()).collect();
        if let Some(folder) = folder {
            volumes::make_folder(folder)?;
            let text = names.iter().fold(String::new(), |text, name| text + name + "\n");
            outputs::write_text(folder.join("registered_layers.txt"), &text)?;
        }
        Ok(names)
    }

    /// Sets the target of later forwards.
    pub fn set_target(&mut self, target: Target) {
        self.options.settings.targets = vec![target];
    }

    /// Sets the size of the maps of later forwards.
    pub fn set_size(&mut self, size: MapSize) {
        self.options.settings.size = size;
    }

    /// Makes maps from now on.
    pub fn enable(&mut self) {
        self.options.enabled = true;
    }

    /// Makes no maps from now on: [`forward`](Self::forward) is the network's own.
    pub fn disable(&mut self) {
        self.options.enabled = false;
    }

    /// Whether later forwards return the map instead of the output; see [`Options::replace`].
    pub fn replace_output(&mut self, replace: bool) {
        self.options.replace = replace;
    }

    /// Time spent in the last forward, by phase; on a GPU, only the sum is reliable.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The network itself.
    pub fn network(&self) -> &N {
        self.explainer.network()
    }
}
