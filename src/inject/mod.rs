//! `inject()`: one network with its method, options and outputs.

mod archive;
mod checks;
mod forward;
mod map;
mod options;
mod save;
mod warning;

use std::time::Duration;

use tch::Tensor;

use archive::Archive;
pub use map::AttentionMap;
pub use options::{Call, Fuse, MapSize, Options};
pub use warning::Warning;
#[cfg(feature = "cli")]
pub(crate) use warning::training_mode;

use crate::error::{Error, Result};
use crate::evaluation::{Evaluator, Score};
use crate::methods::{Compat, ScoreAt, Target};
use crate::torch::{
    Device, Facts, Layers, MapMaker, Network, Selected, Tape, batched_shape, check_input,
    to_tensor, torch,
};
use crate::volumes;

/// Injects attention maps into a network: each [`Injected::forward`] gives the network's own
/// output, bit for bit, and makes the maps on the way.
///
/// Nothing is run here. The first forward runs one sample of its batch once more, without autograd,
/// to find out which layers there are, and what one sample gives.
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
///     println!("{}: {:?}", map.layer(), map.to_array().shape());
/// }
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn inject<N: Network>(network: N, mut options: Options) -> Result<Injected<N>> {
    if options.targets.is_empty() {
        return Err(Error::usage("targets: none was given; a map needs something to explain"));
    }
    if options.fuse.is_some() && !options.backend.needs().layer {
        return Err(Error::usage(format!(
            "fuse: {} makes one map of the input, not one of each layer",
            options.backend
        )));
    }
    if let Some(folder) = &options.save_maps {
        volumes::make_folder(folder)?;
        volumes::remove_leftovers(folder);
    }
    if options.save_scores.is_some() && options.evaluate.is_none() {
        return Err(Error::usage(
            "save_scores: there are no scores without an evaluator (evaluate)",
        ));
    }
    let archive = options.save_archive.as_deref().map(Archive::new).transpose()?;
    if options.compat == Compat::M3dCam {
        options.score = ScoreAt::Output;
    }
    let facts = match options.score {
        ScoreAt::Logits => network.facts(),
        ScoreAt::Output => network.facts().scored_at_output(),
    };
    Ok(Injected {
        network,
        options,
        facts,
        layers: None,
        selected: Vec::new(),
        maker: MapMaker::default(),
        maps: Vec::new(),
        warnings: Vec::new(),
        calls: 0,
        timings: Timings::default(),
        archive,
        scored: 0,
    })
}

/// A network that makes attention maps as it runs; see [`inject()`].
#[derive(Debug)]
pub struct Injected<N: Network> {
    network: N,
    options: Options,
    facts: Facts,
    layers: Option<Layers>,
    selected: Vec<Selected>,
    maker: MapMaker,
    maps: Vec<AttentionMap>,
    warnings: Vec<Warning>,
    /// How often a forward was asked for.
    calls: usize,
    timings: Timings,
    archive: Option<Archive>,
    /// How many of the evaluator's scores are of earlier forwards.
    scored: usize,
}

/// Where the time of the last forward went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Finding out the layers; zero after the first forward.
    pub discovery: Duration,
    /// The network's own forward.
    pub inference: Duration,
    /// All that the maps took on top: backward, and from the gradients to the finished maps.
    pub maps: Duration,
}

impl<N: Network> Injected<N> {
    /// Runs the network on a batch `(B, C, [D,] H, W)` and makes its attention maps.
    ///
    /// Returns the network's own output, bit for bit what it gives without injection; the map in
    /// its place with [`Options::replace`].
    ///
    /// # Errors
    ///
    /// If the input does not fit the network or is not finite, a layer is unknown or no gradient
    /// reaches it, a class is out of range, the maps are not finite, or they cannot be evaluated or
    /// saved. The maps of the forward before are gone then, and no score of this one is kept; its maps
    /// are there where only keeping them failed. What cannot be added to the archive of
    /// [`Options::save_archive`] ends the archive, not the forwards to come.
    pub fn forward(&mut self, input: &Tensor) -> Result<Tensor> {
        self.forward_with(input, &Call::default())
    }

    /// [`forward`](Self::forward), with what this one call has of its own.
    ///
    /// # Errors
    ///
    /// As `forward`, and if what the call brings does not fit the batch.
    pub fn forward_with(&mut self, input: &Tensor, call: &Call) -> Result<Tensor> {
        let output = self.run(input, call)?;
        if self.options.enabled && self.options.replace {
            self.map_tensor(input)
        } else {
            Ok(output)
        }
    }

    /// [`forward`](Self::forward), and beside the output the attention map `(B, 1, [D,] H, W)` on
    /// the input's device.
    ///
    /// # Errors
    ///
    /// As `forward`; if the choice of layers and targets gives more than one map, or maps are
    /// switched off.
    pub fn forward_with_attention(&mut self, input: &Tensor) -> Result<(Tensor, Tensor)> {
        let output = self.run(input, &Call::default())?;
        Ok((output, self.map_tensor(input)?))
    }

    /// The only map of the last forward, as a tensor.
    fn map_tensor(&self, input: &Tensor) -> Result<Tensor> {
        if !self.options.enabled {
            return Err(Error::usage("no map can be returned: maps are switched off; enable them"));
        }
        let [map] = &self.maps[..] else {
            let names: Vec<_> =
                self.maps.iter().map(|map| format!("{}/{}", map.layer, map.target)).collect();
            return Err(Error::usage(format!(
                "a single map can be returned, this forward made {}: {}. Choose one layer and one \
                 target, or fuse the layers",
                names.len(),
                names.join(", ")
            )));
        };
        let tensor = to_tensor(&map.to_array(), Device::Cpu, tch::Kind::Float)?;
        torch("map", || tensor.f_to_device(input.device()))
    }

    /// The maps of the last forward: target by target as they were asked for, and for each the
    /// layers in the order of the choice.
    pub fn attention_maps(&self) -> &[AttentionMap] {
        &self.maps
    }

    /// The scores of the maps of the last forward, map by map, sample by sample and metric by metric;
    /// those of all forwards are [`Options::evaluate`]'s own, see
    /// [`evaluator`](Self::evaluator).
    pub fn scores(&self) -> &[Score] {
        self.evaluator().map_or(&[], |evaluator| &evaluator.scores()[self.scored..])
    }

    /// The evaluator, with the scores of all forwards.
    pub fn evaluator(&self) -> Option<&Evaluator> {
        self.options.evaluate.as_ref()
    }

    /// What to know about the maps of the last forward.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The layers of the network, found out with one forward of the first sample of `input` if
    /// that has not happened yet.
    ///
    /// # Errors
    ///
    /// If the input does not fit the network, or its output is no classification or segmentation.
    pub fn layers(&mut self, input: &Tensor) -> Result<&Layers> {
        self.check(input)?;
        match self.layers {
            Some(ref layers) => Ok(layers),
            None => Ok(self.layers.insert(find_layers(&self.network, &self.facts, input)?)),
        }
    }

    /// The layers of the network, if a forward has shown them.
    pub fn known_layers(&self) -> Option<&Layers> {
        self.layers.as_ref()
    }

    /// Changes what the maps of the forwards to come explain.
    pub fn set_target(&mut self, target: Target) {
        self.options.targets = vec![target];
    }

    /// The names of the layers in the order of `layers`, parents before their children, or the other
    /// way round; empty before a forward or [`layers`](Self::layers) has shown them.
    pub fn layer_names(&self, reverse: bool) -> Vec<String> {
        let layers = self.layers.iter().flat_map(Layers::iter);
        let mut names: Vec<_> = layers.map(|layer| layer.name.clone()).collect();
        if reverse {
            names.reverse();
        }
        names
    }

    /// Changes the size of the maps of the forwards to come.
    pub fn set_size(&mut self, size: MapSize) {
        self.options.size = size;
    }

    /// Makes maps from now on.
    pub fn enable(&mut self) {
        self.options.enabled = true;
    }

    /// Makes no maps from now on: [`forward`](Self::forward) is the network's own.
    pub fn disable(&mut self) {
        self.options.enabled = false;
    }

    /// Whether the forwards to come return the map in place of the output; see
    /// [`Options::replace`].
    pub fn replace_output(&mut self, replace: bool) {
        self.options.replace = replace;
    }

    /// Where the time of the last forward went; on a GPU, where work is queued, only the sum counts.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The network itself.
    pub fn network(&self) -> &N {
        &self.network
    }

    fn check(&self, input: &Tensor) -> Result<()> {
        check_input(&self.facts, input)?;
        checks::finite("input", input)
    }
}

fn find_layers(network: &impl Network, facts: &Facts, input: &Tensor) -> Result<Layers> {
    let mut tape = Tape::new()?;
    // A copy: the network may write to its input.
    let sample = torch("input", || input.f_narrow(0, 0, 1)?.f_detach_copy())?;
    let output = {
        let _no_grad = tch::no_grad_guard();
        network.forward_tapped(&sample, &mut tape)?
    };
    checks::differentiable(tape.noted_logits().as_ref().unwrap_or(&output))?;
    let output = batched_shape(&sample.size(), &output.size(), None)?;
    Layers::new(&sample.size(), &output, &tape.seen(), facts)
}
