//! One forward, and the maps that come of it.

use std::time::Instant;

use tch::Tensor;

use super::checks::{differentiable, finite};
use super::map::AttentionMap;
use super::options::Call;
use super::warning::{Warning, judge, judge_fused, redraws, training_mode};
use super::{Injected, Timings, find_layers};
use crate::error::{Error, Result};
use crate::methods::{
    Compat, Evidence, Explained, Finish, Guided, Score, ScoreAt, Target, compat, explained,
};
use crate::ops::{Maps, Range};
use crate::torch::{
    Guide, LayerChoice, Layers, Network, Selected, Tape, Task, backward_error, batched,
    batched_shape, torch,
};

const GUIDE_ALL: &str = "Guide all kinds of activations (--guide all, Guide::All)";

/// What a forward left for the maps.
struct Ran {
    tape: Tape,
    /// The network's own.
    output: Tensor,
    /// Its shape as `(B, K, ...)`.
    shape: Vec<i64>,
    /// Where the score is taken, as `(B, K, ...)`.
    scored: Tensor,
    /// The score before a final activation, as `(B, K, ...)`.
    logits: Tensor,
    task: Task,
    /// The input as the tape's first leaf, for the guided methods.
    start: Option<Tensor>,
    size: Option<[usize; 3]>,
    spatial_rank: usize,
}

/// The maps of one layer, and in which samples its gradient is 0 everywhere (looked at only where a
/// map is).
struct Made {
    maps: Maps,
    zero_gradient: Vec<bool>,
}

impl Made {
    fn new(maps: Maps, gradient: &Tensor) -> Result<Self> {
        let zero = |range: &Range| (range.minimum, range.maximum) == (0.0, 0.0);
        if !maps.ranges.iter().any(zero) {
            return Ok(Self { maps, zero_gradient: Vec::new() });
        }
        let any: Vec<bool> = torch("gradient", || {
            Vec::try_from(gradient.f_ne(0)?.f_flatten(1, -1)?.f_any_dim(1, false)?)
        })?;
        Ok(Self { maps, zero_gradient: any.into_iter().map(|any| !any).collect() })
    }
}

impl<N: Network> Injected<N> {
    /// The network's own output, and `self.maps`.
    pub(super) fn run(&mut self, input: &Tensor, call: &Call) -> Result<Tensor> {
        self.maps.clear();
        self.warnings.clear();
        self.scored = self.evaluator().map_or(0, |evaluator| evaluator.scores().len());
        let number = self.calls;
        self.calls += 1;
        let start = Instant::now();
        self.check(input)?;
        if !self.options.enabled {
            let _no_grad = tch::no_grad_guard();
            return self.network.forward_tapped(input, &mut Tape::new()?);
        }
        self.check_call(input, call)?;
        let size = self.size(input)?;
        self.discover(input)?;
        let discovered = Instant::now();
        let mut ran = self.forward_recorded(input, size)?;
        if self.options.backend.needs().layer && self.select_anew(input, &ran)? {
            ran = self.forward_recorded(input, size)?;
        }
        self.check_recorded(&ran.tape)?;
        let inferred = Instant::now();
        let asked = call.targets.clone().unwrap_or_else(|| self.options.targets.clone());
        let targets = explained(&asked, ran.task, &ran.logits)?;
        for left_out in targets.iter().filter_map(|target| target.left_out.as_ref()) {
            self.warnings.push(Warning::of_run("COMPONENTS_LEFT_OUT", left_out));
        }
        self.warnings.extend(training_mode(&self.facts));
        self.warn_of_unguided();
        for (index, target) in targets.iter().enumerate() {
            self.explain(&mut ran, target, index + 1 < targets.len())
                .inspect_err(|_| self.maps.clear())?;
        }
        self.timings = Timings {
            discovery: discovered - start,
            inference: inferred - discovered,
            maps: inferred.elapsed(),
        };
        let name = call.name.clone().unwrap_or_else(|| format!("{number:06}"));
        self.keep(&name, Target::one_map(&asked), call)?;
        Ok(ran.output.detach())
    }

    /// Finds out, once, which layers there are and which of them are wanted. Where a method takes no layer,
    /// a batch is still held against what a single sample gives.
    fn discover(&mut self, input: &Tensor) -> Result<()> {
        let needs_layer = self.options.backend.needs().layer;
        if needs_layer && self.selected.is_empty() {
            // Not kept if nothing can be selected: of another input there may be.
            let layers = match self.layers.take() {
                Some(layers) => layers,
                None => find_layers(&self.network, &self.facts, input)?,
            };
            self.selected = self.select(&layers)?;
            self.layers = Some(layers);
        } else if !needs_layer && self.layers.is_none() && input.size()[0] > 1 {
            self.layers = Some(find_layers(&self.network, &self.facts, input)?);
        }
        Ok(())
    }

    fn select(&self, layers: &Layers) -> Result<Vec<Selected>> {
        let m3dcam_auto =
            (self.options.compat, &self.options.layers) == (Compat::M3dCam, &LayerChoice::Auto);
        let layer = m3dcam_auto.then(|| compat::auto_layer(&self.facts.registered, layers));
        match layer.flatten() {
            Some(name) => layers.select(&LayerChoice::Names(vec![name])),
            None => layers.select(&self.options.layers),
        }
    }

    /// Whether the layers that this forward showed call for others than were recorded: what runs, and
    /// how often, may depend on the input, and what `auto` takes on its size.
    fn select_anew(&mut self, input: &Tensor, ran: &Ran) -> Result<bool> {
        let layers = Layers::new(&input.size(), &ran.shape, &ran.tape.seen(), &self.facts)?;
        let selected = self.select(&layers)?;
        let differs = selected != self.selected;
        if differs {
            (self.layers, self.selected) = (Some(layers), selected);
        }
        Ok(differs)
    }

    fn check_recorded(&self, tape: &Tape) -> Result<()> {
        for (wish, layer) in self.selected.iter().enumerate() {
            if !tape.recorded(wish) {
                return Err(Error::layer(format!(
                    "layer '{}': run {} did not happen for this input",
                    layer.label, layer.run
                )));
            }
        }
        Ok(())
    }

    fn forward_recorded(&self, input: &Tensor, size: Option<[usize; 3]>) -> Result<Ran> {
        let mut tape = Tape::new()?;
        for layer in &self.selected {
            tape.want(&layer.name, layer.run)?;
        }
        let needs = self.options.backend.needs();
        let start = needs.guided.then(|| input.detach().set_requires_grad(true));
        let output = match &start {
            Some(start) => {
                tape.guide(self.options.guide);
                // A leaf may not be written to; its copy may.
                tch::with_grad(|| self.network.forward_tapped(&start.copy(), &mut tape))
            }
            // What went before the input is not of this tape.
            None => tch::no_grad(|| self.network.forward_tapped(&input.detach(), &mut tape)),
        }?;
        if needs.guided && tape.guided_activations() == 0 {
            return Err(self.nothing_guided());
        }
        let logits = tape.noted_logits().unwrap_or_else(|| output.shallow_clone());
        differentiable(match self.options.score {
            ScoreAt::Logits => &logits,
            ScoreAt::Output => &output,
        })?;
        finite("the model's output", &output)?;
        let of_one = self.layers.as_ref().map(Layers::output_shape);
        let shape = batched_shape(&input.size(), &output.size(), of_one)?;
        let task = Task::of(&input.size(), &shape)?;
        // The output may have lost its batch axis behind the softmax, and a network written in Rust may note
        // scores of any shape.
        let logits = if logits.size() == output.size() {
            batched(&logits, &shape)?
        } else {
            batched(&logits, &batched_shape(&input.size(), &logits.size(), None)?)?
        };
        let scored = match self.options.score {
            ScoreAt::Logits => logits.shallow_clone(),
            ScoreAt::Output => batched(&output, &shape)?,
        };
        let spatial_rank = input.dim() - 2;
        Ok(Ran { tape, output, shape, scored, logits, task, start, size, spatial_rank })
    }

    fn nothing_guided(&self) -> Error {
        let others: Vec<_> =
            self.facts.activations.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let what = match (self.options.guide, others.is_empty()) {
            (Guide::Relu, false) => {
                format!("it has no ReLU, but {}. {GUIDE_ALL}", others.join(", "))
            }
            _ => "it has no activation that can be guided. Take another backend".to_owned(),
        };
        Error::model(format!(
            "{}: nothing in the network was guided, so the map would be the plain gradient: {what}",
            self.options.backend
        ))
    }

    /// Warns of activations that a guided method does not guide, beside those that it does.
    fn warn_of_unguided(&mut self) {
        if !self.options.backend.needs().guided || self.options.guide != Guide::Relu {
            return;
        }
        let others = self.facts.activations_beyond_relu();
        let others: Vec<_> = others.map(|(name, count)| format!("{count} {name}")).collect();
        if !others.is_empty() {
            self.warnings.push(Warning::of_run(
                "PARTLY_GUIDED",
                format!(
                    "ReLU is guided, {} are not, so the map is between guided backpropagation and \
                     the plain gradient. {GUIDE_ALL}",
                    others.join(", ")
                ),
            ));
        }
    }

    /// Makes the maps of one target; `keep`: others of the same forward follow.
    fn explain(&mut self, ran: &mut Ran, target: &Explained, keep: bool) -> Result<()> {
        let asked = match self.options.compat {
            Compat::None => target.target(),
            Compat::M3dCam => compat::target(target.target(), ran.task, &ran.scored)?,
        };
        let score = tch::with_grad(|| Score::of(&asked, ran.task, &ran.scored, &ran.logits))?;
        self.warn_of_empty(&asked, target, &score);
        if !score.sum.requires_grad() {
            let unreached = || Error::model("no gradient of the score reaches the input");
            return Err(self.selected.first().map_or_else(unreached, no_gradient));
        }
        let guided = match &ran.start {
            Some(start) => {
                ran.tape.set_guided(true);
                let keep = keep || !self.selected.is_empty();
                let gradient = Tensor::f_run_backward(&[&score.sum], &[start], keep, false)
                    .map_err(|error| backward_error(&error.to_string()).because(error))?
                    .remove(0);
                ran.tape.set_guided(false);
                if !gradient.defined() {
                    return Err(Error::model("no gradient of the score reaches the input"));
                }
                Some(Guided::new(&gradient)?)
            }
            None => None,
        };
        let parts = match (self.options.compat, ran.task) {
            (Compat::M3dCam, Task::Segmentation) => {
                Some(compat::parts(&asked, ran.task, &ran.scored, &ran.logits)?)
            }
            _ => None,
        };
        let finish = Finish { size: ran.size, compat: self.options.compat, parts };
        let explained = if self.options.backend.needs().layer {
            self.of_layers(ran, target, &score, guided.as_ref(), finish, keep)?
        } else {
            let mut evidence = Evidence::new(&mut self.maker, None, guided.as_ref(), &finish);
            let maps = self.options.backend.maps(&mut evidence)?;
            let (name, rank) = (&target.label, ran.spatial_rank);
            vec![AttentionMap::new("input", name, maps, &score.classes, rank)?]
        };
        let explained = match self.options.fuse {
            Some(fuse) => {
                let fused = AttentionMap::fused(&explained, fuse)?;
                self.warnings.extend(explained.iter().flat_map(|map| judge_fused(map, &fused)));
                vec![fused]
            }
            None => explained,
        };
        self.warnings.extend(explained.iter().flat_map(judge));
        self.maps.extend(explained);
        Ok(())
    }

    /// The maps of all selected layers, each made as its gradient arrives.
    fn of_layers(
        &mut self,
        ran: &mut Ran,
        target: &Explained,
        score: &Score,
        guided: Option<&Guided>,
        finish: Finish,
        keep: bool,
    ) -> Result<Vec<AttentionMap>> {
        let Self { maker, selected, options, layers, warnings, .. } = self;
        let same: Vec<usize> = (0..selected.len()).map(|wish| ran.tape.same(wish)).collect();
        let mut made: Vec<Option<Result<Made>>> = selected.iter().map(|_| None).collect();
        let (backend, slots, wanted) = (options.backend, &mut made, &*selected);
        // It owns `finish`, whose tensor two threads may not share.
        let reduce = move |wish: usize, activation: &Tensor, gradient: &Tensor| {
            let layer = &wanted[wish];
            slots[wish] = Some(layer.channels_first(activation).and_then(|activation| {
                let gradient = layer.channels_first(gradient)?;
                let tensors = Some((&activation, &gradient));
                let evidence = Evidence::new(maker, tensors, guided, &finish);
                let maps = backend.maps(&mut evidence.weights_cancel(layer.weights_cancel))?;
                Made::new(maps, &gradient)
            }));
        };
        ran.tape.backward(&score.sum, ran.start.as_ref(), keep, reduce)?;
        let mut maps: Vec<Option<AttentionMap>> = Vec::new();
        for (wish, layer) in selected.iter().enumerate() {
            let map = match made[wish].take() {
                Some(made) => {
                    let (label, rank) = (&target.label, ran.spatial_rank);
                    let map = made
                        .and_then(|Made { maps, zero_gradient }| {
                            let classes = &score.classes;
                            let map = AttentionMap::new(&layer.label, label, maps, classes, rank)?;
                            Ok(AttentionMap { zero_gradient, ..map })
                        })
                        .map_err(|error| error.within(format!("layer '{}'", layer.label)))?;
                    Some(map)
                }
                None => maps
                    .get(same[wish])
                    .and_then(Option::clone)
                    .map(|map| AttentionMap { layer: layer.label.clone(), ..map }),
            };
            match &map {
                Some(_) => {
                    let axes = layer.channels_last.then(|| {
                        let message = "its output was read as (B, [D,] H, W, C), as transformers have \
                                       it. Check in its shape (medcam layers) that the last axis is the \
                                       channels";
                        Warning::of_layer("CHANNELS_LAST", &layer.label, message)
                    });
                    warnings.extend(axes.filter(|warning| !warnings.contains(warning)));
                    let warning = redraws(layers.as_ref(), layer);
                    // Once, for however many targets.
                    warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
                }
                None if options.layers == LayerChoice::Full => {
                    let message = format!("{}. It has no map; leave it out", no_gradient(layer));
                    let layer = layer.label.clone();
                    warnings.push(Warning { code: "NO_GRADIENT", layer, sample: None, message });
                }
                None => return Err(no_gradient(layer)),
            }
            maps.push(map);
        }
        Ok(maps.into_iter().flatten().collect())
    }

    /// Warns of samples in which there is nothing of the target.
    fn warn_of_empty(&mut self, asked: &Target, target: &Explained, score: &Score) {
        for &sample in &score.empty {
            let what = match asked {
                Target::Predicted(class) => format!("nothing is predicted as class {class}"),
                _ if target.label.starts_with("component") => {
                    format!("there is no {} here", target.label)
                }
                _ => "the target mask has no voxel".to_owned(),
            };
            self.warnings.push(Warning {
                sample: Some(sample),
                ..Warning::of_run(
                    "EMPTY_TARGET",
                    format!(
                        "sample {sample}: {what}, so the map is zero. Take another class or region"
                    ),
                )
            });
        }
    }
}

fn no_gradient(layer: &Selected) -> Error {
    Error::layer(format!(
        "layer '{}': no gradient of the score reaches it; the score does not depend on it",
        layer.label
    ))
}
