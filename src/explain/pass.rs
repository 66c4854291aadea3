//! Computes the maps of each target from one recorded forward.

use tch::Tensor;

use super::map::AttentionMap;
use super::recorded::Recorded;
use super::settings::Settings;
use super::warnings::{
    channels_last, empty_target, judge, judge_fused, no_gradient_warning, no_image, redraws,
};
use crate::bridge::MapMaker;
use crate::error::{Error, Result};
use crate::methods::{Compat, Evidence, Finish, Guided, NamedTarget, TargetScore, compat};
use crate::ops::{Maps, Range};
use crate::task::Task;
use crate::torch::{LayerChoice, Layers, Selected, backward_error, in_libtorch, quantized};
use crate::warning::Warning;

/// One recorded forward, from which the maps of each target are made.
pub(super) struct Pass<'a> {
    pub settings: &'a Settings,
    pub layers: Option<&'a Layers>,
    /// See [`Facts::quantized`](crate::Facts::quantized).
    pub quantized: Option<&'a str>,
    pub selected: &'a [Selected],
    pub maker: &'a mut MapMaker,
    pub recorded: Recorded,
    /// The size of the maps; that of the layer, if `None`.
    pub size: Option<[usize; 3]>,
    pub warnings: &'a mut Vec<Warning>,
}

/// The maps of one layer, and what is known of each sample beside its map.
struct LayerMaps {
    maps: Maps,
    /// See [`Evidence::unstable_weights`].
    unstable_weights: Vec<bool>,
    /// Whether the gradient is 0 everywhere. Empty unless a map is 0, as the check is another pass over
    /// the gradient.
    zero_gradient: Vec<bool>,
}

impl LayerMaps {
    fn new(maps: Maps, unstable_weights: Vec<bool>, gradient: &Tensor) -> Result<Self> {
        let zero = |range: &Range| (range.minimum, range.maximum) == (0.0, 0.0);
        if !maps.ranges.iter().any(zero) {
            return Ok(Self { maps, unstable_weights, zero_gradient: Vec::new() });
        }
        let any: Vec<bool> = in_libtorch("gradient", || {
            Vec::try_from(gradient.f_ne(0)?.f_flatten(1, -1)?.f_any_dim(1, false)?)
        })?;
        let zero_gradient = any.into_iter().map(|any| !any).collect();
        Ok(Self { maps, unstable_weights, zero_gradient })
    }
}

impl Pass<'_> {
    /// The maps of one target. `keep` retains the autograd graph for the targets to come.
    pub(super) fn maps(&mut self, target: &NamedTarget, keep: bool) -> Result<Vec<AttentionMap>> {
        let Recorded { task, scored, logits, start, .. } = &self.recorded;
        let (needs, compat) = (self.settings.backend.needs(), self.settings.compat);
        let asked = match compat {
            Compat::None => target.target(),
            Compat::M3dCam => compat::target(target.target(), *task, scored)?,
        };
        let score = tch::with_grad(|| TargetScore::of(&asked, *task, scored, logits))?;
        self.warnings.extend(empty_target(&asked, &target.label, &score.empty));
        if !score.sum.requires_grad() {
            return Err(match self.selected.first() {
                Some(layer) => self.no_gradient(layer),
                None => self.input_unreached(),
            });
        }
        let guided = match start {
            Some(start) => {
                let keep = keep || !self.selected.is_empty();
                Some(Guided::new(&self.guided_gradient(start, &score, keep)?)?)
            }
            None => None,
        };
        let parts = match (compat, task) {
            (Compat::M3dCam, Task::Segmentation) => {
                Some(compat::parts(&asked, *task, scored, logits)?)
            }
            _ => None,
        };
        let finish = Finish { size: self.size, compat, parts };
        let maps = if needs.layer {
            self.of_layers(target, &score, guided.as_ref(), finish, keep)?
        } else {
            let mut evidence = Evidence::new(self.maker, None, guided.as_ref(), &finish);
            let maps = self.settings.backend.maps(&mut evidence)?;
            vec![self.map("input", &target.label, maps, &score)?]
        };
        let maps = match self.settings.fuse {
            Some(fuse) => {
                let fused = AttentionMap::fused(&maps, fuse)?;
                self.warnings.extend(maps.iter().flat_map(|map| judge_fused(map, &fused)));
                vec![fused]
            }
            None => maps,
        };
        self.warnings.extend(maps.iter().flat_map(judge));
        Ok(maps)
    }

    /// The gradient of the score at the input, guided at each activation.
    fn guided_gradient(&self, start: &Tensor, score: &TargetScore, keep: bool) -> Result<Tensor> {
        let tape = &self.recorded.tape;
        tape.set_guided(true);
        let gradient = Tensor::f_run_backward(&[&score.sum], &[start], keep, false)
            .map_err(|error| backward_error(&error.to_string()).because(error))?
            .remove(0);
        tape.set_guided(false);
        if !gradient.defined() {
            return Err(self.input_unreached());
        }
        Ok(gradient)
    }

    fn map(
        &self,
        layer: &str,
        target: &str,
        maps: Maps,
        score: &TargetScore,
    ) -> Result<AttentionMap> {
        let signed = self.settings.backend.needs().guided;
        let rank = self.recorded.spatial_rank;
        AttentionMap::new(layer, target, maps, &score.classes, rank, signed)
    }

    /// The maps of all selected layers, each computed when its gradient arrives in the backward.
    fn of_layers(
        &mut self,
        target: &NamedTarget,
        score: &TargetScore,
        guided: Option<&Guided>,
        finish: Finish,
        keep: bool,
    ) -> Result<Vec<AttentionMap>> {
        let (backend, selected) = (self.settings.backend, self.selected);
        let Recorded { tape, start, .. } = &mut self.recorded;
        let same: Vec<usize> = (0..selected.len()).map(|wish| tape.same(wish)).collect();
        let mut made: Vec<Option<Result<LayerMaps>>> = selected.iter().map(|_| None).collect();
        let (slots, maker) = (&mut made, &mut *self.maker);
        // The closure owns `finish`: its tensor may move to another thread, but two threads may not
        // share it.
        let reduce = move |wish: usize, activation: &Tensor, gradient: &Tensor| {
            let layer: &Selected = &selected[wish];
            slots[wish] = Some(layer.channels_first(activation).and_then(|activation| {
                let gradient = layer.channels_first(gradient)?;
                let tensors = Some((&activation, &gradient));
                let mut evidence = Evidence::new(maker, tensors, guided, &finish)
                    .weights_cancel(layer.weights_cancel);
                let maps = backend.maps(&mut evidence)?;
                LayerMaps::new(maps, evidence.unstable_weights().to_vec(), &gradient)
            }));
        };
        tape.backward(&score.sum, start.as_ref(), keep, reduce)?;
        let mut maps: Vec<Option<AttentionMap>> = Vec::new();
        for (wish, layer) in selected.iter().enumerate() {
            let map = match made[wish].take() {
                Some(made) => {
                    let map = made
                        .and_then(|LayerMaps { maps, unstable_weights, zero_gradient }| {
                            let map = self.map(&layer.label, &target.label, maps, score)?;
                            Ok(AttentionMap { unstable_weights, zero_gradient, ..map })
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
                    let of_layer = [
                        channels_last(layer),
                        redraws(self.layers, layer),
                        no_image(self.layers, layer),
                    ];
                    for warning in of_layer.into_iter().flatten() {
                        // Once per layer, not once per target.
                        if !self.warnings.contains(&warning) {
                            self.warnings.push(warning);
                        }
                    }
                }
                None if self.settings.layers == LayerChoice::Full => {
                    self.warnings.push(no_gradient_warning(layer, &self.no_gradient(layer)));
                }
                None => return Err(self.no_gradient(layer)),
            }
            maps.push(map);
        }
        Ok(maps.into_iter().flatten().collect())
    }

    fn no_gradient(&self, layer: &Selected) -> Error {
        let unreached = || {
            "the score does not depend on it, or the network switches gradients off \
             (torch.no_grad, detach)"
                .to_owned()
        };
        let why = self.quantized.map_or_else(unreached, quantized);
        Error::layer(format!("layer '{}': no gradient of the score reaches it; {why}", layer.label))
    }

    fn input_unreached(&self) -> Error {
        let why = self.quantized.map_or_else(String::new, |name| format!("; {}", quantized(name)));
        Error::model(format!("no gradient of the score reaches the input{why}"))
    }
}
