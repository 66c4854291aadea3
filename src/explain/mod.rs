//! The core of the crate: computes output, maps, warnings and timings from a network, a batch and a
//! request. It writes no files and computes no scores.

mod checks;
mod discovery;
mod fuse;
mod map;
mod pass;
mod recorded;
mod settings;
mod settle;
mod warnings;

use std::time::{Duration, Instant};

use tch::Tensor;

pub use map::AttentionMap;
use pass::Pass;
use recorded::Recorded;
pub use settings::{Fuse, MapSize, Request, Settings};
#[cfg(feature = "cli")]
pub(crate) use warnings::training_mode;

use crate::bridge::{MapMaker, Readback};
use crate::error::{Error, Result};
use crate::methods::{Compat, NamedTarget, ScoreAt, compat, named_targets};
use crate::torch::{Facts, LayerChoice, Layers, Network, Selected, Tape, check_input};
use crate::warning::Warning;

/// Explains a network batch by batch: returns the network's own output and attention maps that
/// explain it.
///
/// Between calls it keeps the network's layers, found with the first batch, and the GPU's stream
/// and scratch memory, but no other state. Files and scores belong to [`inject`](crate::inject()).
///
/// # Example
///
/// ```no_run
/// use medcam::{Device, Explainer, Request, Settings};
///
/// let model = medcam::load("model.pt", Device::Cpu)?;
/// let mut explainer = Explainer::new(model, Settings::default())?;
/// let batch = tch::Tensor::rand([1, 1, 64, 64, 64], (tch::Kind::Float, tch::Device::Cpu));
/// let explanation = explainer.explain(&batch, &Request::default())?;
/// for map in &explanation.maps {
///     println!("{}: {:?}", map.layer(), map.values()?.dim());
/// }
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Debug)]
pub struct Explainer<N: Network> {
    network: N,
    settings: Settings,
    facts: Facts,
    layers: Option<Layers>,
    selected: Vec<Selected>,
    maker: MapMaker,
}

/// The result of one call of [`Explainer::explain`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The network's own output, bit for bit the same as without maps.
    pub output: Tensor,
    /// The maps, in the order of the targets, and for each target in the order of the layers.
    pub maps: Vec<AttentionMap>,
    /// Warnings about these maps.
    pub warnings: Vec<Warning>,
    /// Time spent, by phase.
    pub timings: Timings,
}

/// Time spent in a forward, by phase. A GPU may finish queued work in a later phase, so only the
/// sum is reliable there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Finding the layers; zero after the first forward.
    pub discovery: Duration,
    /// The network's own forward.
    pub inference: Duration,
    /// All work beyond the forward: backward, and computing the maps from the gradients.
    pub maps: Duration,
}

impl<N: Network> Explainer<N> {
    /// An explainer of this network. Runs nothing: the first batch shows the layers.
    ///
    /// # Errors
    ///
    /// If settings contradict each other.
    pub fn new(network: N, settings: Settings) -> Result<Self> {
        if settings.targets.is_empty() {
            return Err(Error::usage("targets: none was given; a map needs something to explain"));
        }
        if settings.fuse.is_some() && !settings.backend.needs().layer {
            return Err(Error::usage(format!(
                "fuse: {} makes one map of the input, not one of each layer",
                settings.backend
            )));
        }
        let score = match settings.compat {
            Compat::M3dCam => ScoreAt::Output,
            Compat::None => settings.score,
        };
        let facts = discovery::facts_of(&network, score);
        let settings = Settings { score, ..settings };
        let (layers, selected, maker) = (None, Vec::new(), MapMaker::default());
        Ok(Self { network, settings, facts, layers, selected, maker })
    }

    /// Runs the network on a batch `(B, C, [D,] H, W)` and makes its attention maps.
    ///
    /// The first call finds the layers and the output shape of a single sample. It does so by shapes
    /// alone where the network can tell them ([`Network::forward_shapes`]); otherwise it runs one
    /// sample of its batch once more, without autograd, unless the batch has one sample alone and
    /// layers are named or the method takes none.
    ///
    /// # Errors
    ///
    /// If the input does not fit the network or is not finite, a layer is unknown or no gradient
    /// reaches it, a class is out of range, or the maps are not finite.
    pub fn explain(&mut self, input: &Tensor, request: &Request) -> Result<Explanation> {
        let start = Instant::now();
        check_input(&self.facts, input)?;
        self.maker.readback = Readback::default();
        let unchecked = checks::finite_later("input", input, &mut self.maker.readback)?;
        let size = checks::size(request.size.unwrap_or(self.settings.size), input)?;
        self.discover(input)?;
        let discovered = Instant::now();
        let mut recorded = match self.record(input) {
            Err(_) if self.selected.iter().any(|layer| layer.run.is_none()) => {
                // Layers that nobody has looked at: discovery may say better what is wrong with them.
                let layers = discovery::by_forward(&self.network, &self.facts, input)?;
                self.selected = self.select(&layers)?;
                self.layers = Some(layers);
                self.record(input)?
            }
            recorded => recorded?,
        };
        if self.settings.backend.needs().layer && self.select_anew(input, &recorded)? {
            recorded = self.record(input)?;
        }
        self.check_recorded(&recorded.tape)?;
        let inferred = Instant::now();
        let asked = request.targets.as_ref().unwrap_or(&self.settings.targets);
        let targets = named_targets(asked, recorded.task, &recorded.logits)?;
        let mut warnings = self.run_warnings(&targets);
        let output = recorded.output.detach();
        let (spatial_rank, unchecked) =
            (recorded.spatial_rank, unchecked.into_iter().chain(recorded.unchecked.take()));
        let mut pass = Pass {
            settings: &self.settings,
            layers: self.layers.as_ref(),
            quantized: self.facts.quantized.as_deref(),
            selected: &self.selected,
            maker: &mut self.maker,
            recorded,
            size,
        };
        let mut made = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            made.push(pass.maps(target, index + 1 < targets.len())?);
        }
        // The one wait for a device.
        let fetched = self.maker.readback.fetch()?;
        for unchecked in unchecked {
            unchecked.check(&fetched)?;
        }
        let mut maps = Vec::new();
        for made in made {
            maps.extend(made.settled(&self.settings, spatial_rank, &fetched, &mut warnings)?);
        }
        let timings = Timings {
            discovery: discovered - start,
            inference: inferred - discovered,
            maps: inferred.elapsed(),
        };
        Ok(Explanation { output, maps, warnings, timings })
    }

    /// The network's own output alone: no maps, no autograd.
    ///
    /// # Errors
    ///
    /// If the input does not fit the network or is not finite.
    pub fn infer(&self, input: &Tensor) -> Result<Tensor> {
        self.check(input)?;
        let _no_grad = tch::no_grad_guard();
        self.network.forward_tapped(input, &mut Tape::new()?)
    }

    /// The layers of the network for a sample of the shape of `input`, unless they are known already:
    /// found by shapes, or with one forward of the first sample.
    ///
    /// # Errors
    ///
    /// If the input does not fit the network, or its output is no classification or segmentation.
    pub fn layers(&mut self, input: &Tensor) -> Result<&Layers> {
        self.check(input)?;
        if self.layers.is_none() {
            let layers = discovery::find(&self.network, &self.facts, input)?;
            self.layers = Some(self.with_operations(layers, input)?);
        }
        self.layers.as_ref().ok_or_else(|| Error::model("layers: none were found"))
    }

    /// The layers of the network, if a forward has shown them.
    pub fn known_layers(&self) -> Option<&Layers> {
        self.layers.as_ref()
    }

    /// The names of the layers in the order of [`layers`](Self::layers), parents before their
    /// children; empty before a forward has shown them.
    pub fn layer_names(&self) -> Vec<String> {
        let layers = self.layers.iter().flat_map(Layers::iter);
        layers.map(|layer| layer.name.clone()).collect()
    }

    /// Forgets the layers: the next input shows them anew.
    #[cfg(feature = "files")]
    pub(crate) fn forget_layers(&mut self) -> Result<()> {
        self.network.tap_operations(false)?;
        self.facts = discovery::facts_of(&self.network, self.settings.score);
        self.layers = None;
        self.selected.clear();
        Ok(())
    }

    /// The settings; with [`Compat::M3dCam`], `score` is always [`ScoreAt::Output`].
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The network itself.
    pub fn network(&self) -> &N {
        &self.network
    }

    fn check(&self, input: &Tensor) -> Result<()> {
        check_input(&self.facts, input)?;
        checks::finite("input", input)
    }

    /// Finds the layers, once, and selects the requested ones. A method that takes no layer needs
    /// them only for a batch of several samples, whose output is compared with that of a single
    /// sample.
    fn discover(&mut self, input: &Tensor) -> Result<()> {
        let needs_layer = self.settings.backend.needs().layer;
        let is_batch = input.size()[0] > 1;
        let is_done = if needs_layer { !self.selected.is_empty() } else { self.layers.is_some() };
        if is_done || !(needs_layer || is_batch) {
            return Ok(());
        }
        // Layers without a selectable one are not kept: another input may show one.
        let known = match self.layers.take() {
            None => discovery::by_shapes(&self.network, &self.facts, input)?,
            known => known,
        };
        if known.is_none() && needs_layer && !is_batch {
            let Self { network, facts, settings, .. } = self;
            if let Some(selected) = discovery::in_advance(network, facts, &settings.layers)? {
                self.selected = selected;
                return Ok(());
            }
        }
        let layers = match known {
            Some(layers) => layers,
            None => discovery::by_forward(&self.network, &self.facts, input)?,
        };
        let layers = if needs_layer { self.with_operations(layers, input)? } else { layers };
        if needs_layer {
            self.selected = self.select(&layers)?;
        }
        self.layers = Some(layers);
        Ok(())
    }

    /// These layers, or the network's operations with them: where `auto` takes one of those, because no
    /// module is one for it or the network is partly written in functions; or where only with them
    /// there is a layer at all.
    fn with_operations(&mut self, layers: Layers, input: &Tensor) -> Result<Layers> {
        let auto = layers.auto().map(|layer| layer.name.clone());
        if (auto.is_some() && !self.facts.bare_convolutions)
            || !self.network.tap_operations(true)?
        {
            return Ok(layers);
        }
        let facts = discovery::facts_of(&self.network, self.settings.score);
        let more = discovery::find(&self.network, &facts, input)?;
        let has_any = |layers: &Layers| layers.iter().any(|layer| layer.can_carry_map);
        let is_worse = match more.auto() {
            Some(layer) => Some(&layer.name) == auto.as_ref(),
            None => has_any(&layers) || !has_any(&more),
        };
        if is_worse {
            self.network.tap_operations(false)?;
            return Ok(layers);
        }
        self.facts = facts;
        Ok(more)
    }

    fn select(&self, layers: &Layers) -> Result<Vec<Selected>> {
        let choice = &self.settings.layers;
        let m3dcam_auto = (self.settings.compat, choice) == (Compat::M3dCam, &LayerChoice::Auto);
        let layer = m3dcam_auto.then(|| compat::auto_layer(&self.facts.registered, layers));
        match layer.flatten() {
            Some(name) => layers.select(&LayerChoice::Names(vec![name])),
            None => layers.select(choice),
        }
    }

    /// Selects again, from the layers of this forward, and returns whether the selection changed:
    /// which layers run, and how often, may depend on the input, and the choice of `auto` on its
    /// size.
    fn select_anew(&mut self, input: &Tensor, recorded: &Recorded) -> Result<bool> {
        let seen = recorded.tape.seen();
        let layers = Layers::new(&input.size(), &recorded.shape, &seen, &self.facts)?;
        let selected = self.select(&layers)?;
        let is_recorded = selected.len() == self.selected.len()
            && selected.iter().zip(&self.selected).all(|(now, then)| now.is_recorded_by(then));
        if !is_recorded || self.layers.is_none() {
            self.layers = Some(layers);
        }
        self.selected = selected;
        Ok(!is_recorded)
    }

    fn check_recorded(&self, tape: &Tape) -> Result<()> {
        for (wish, layer) in self.selected.iter().enumerate() {
            if !tape.recorded(wish) {
                let run =
                    layer.run.map_or_else(|| "its last run".to_owned(), |k| format!("run {k}"));
                return Err(Error::layer(format!(
                    "layer '{}': {run} did not happen for this input",
                    layer.label
                )));
            }
        }
        Ok(())
    }

    fn record(&mut self, input: &Tensor) -> Result<Recorded> {
        let of_one = self.layers.as_ref().map(Layers::output_shape);
        let Self { network, settings, facts, selected, maker, .. } = self;
        let readback = &mut maker.readback;
        recorded::record(network, settings, facts, selected, of_one, input, readback)
    }

    /// Warnings about the run as a whole, not about one map.
    fn run_warnings(&self, targets: &[NamedTarget]) -> Vec<Warning> {
        let left_out = targets.iter().filter_map(|target| target.left_out.as_ref());
        let left_out = left_out.map(|what| Warning::of_run("COMPONENTS_LEFT_OUT", what));
        left_out
            .chain(warnings::training_mode(&self.facts))
            .chain(warnings::partly_guided(&self.settings, &self.facts))
            .collect()
    }
}

// An explainer may move to a worker thread, and its results to a thread that writes them.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Explainer<crate::torch::Model>>();
    is_send::<Explanation>();
    is_send::<AttentionMap>();
    is_send::<Settings>();
};
