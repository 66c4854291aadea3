//! Computes the maps of each target from one recorded forward.

use tch::Tensor;

use super::fuse::fused;
use super::recorded::Recorded;
use super::settings::Settings;
use super::settle::{Made, MadeLayer, MadeMaps};
use super::warnings::{channels_last, no_gradient_warning, no_image, redraws};
use crate::bridge::{LayerMaps, MapMaker};
use crate::error::{Error, Result};
use crate::methods::{Compat, Evidence, Finish, Guided, NamedTarget, TargetScore, compat};
use crate::ops::Range;
use crate::task::Task;
use crate::torch::{LayerChoice, Layers, Selected, backward_error, in_libtorch, quantized};

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
}

/// Of each sample whose map is 0 whether the gradient is 0 everywhere; empty if none is, as the check is
/// another pass over the gradient. Maps on a device say that themselves.
fn zero_gradient(maps: &LayerMaps, gradient: &Tensor) -> Result<Vec<bool>> {
    let zero = |range: &Range| (range.minimum, range.maximum) == (0.0, 0.0);
    if !maps.known_ranges().iter().any(zero) {
        return Ok(Vec::new());
    }
    let any: Vec<bool> = in_libtorch("gradient", || {
        Vec::try_from(gradient.f_ne(0)?.f_flatten(1, -1)?.f_any_dim(1, false)?)
    })?;
    Ok(any.into_iter().map(|any| !any).collect())
}

impl Pass<'_> {
    /// The maps of one target. `keep` retains the autograd graph for the targets to come.
    pub(super) fn maps(&mut self, target: &NamedTarget, keep: bool) -> Result<Made> {
        let Recorded { task, scored, logits, start, .. } = &self.recorded;
        let (needs, compat) = (self.settings.backend.needs(), self.settings.compat);
        let asked = match compat {
            Compat::None => target.target(),
            Compat::M3dCam => compat::target(target.target(), *task, scored)?,
        };
        let score = tch::with_grad(|| {
            TargetScore::of(&asked, *task, scored, logits, &mut self.maker.readback)
        })?;
        if !score.sum.requires_grad() {
            return Err(match self.selected.first() {
                Some(layer) => self.no_gradient(layer),
                None => self.input_unreached(),
            });
        }
        let guided = match start {
            Some(start) => {
                let keep = keep || !self.selected.is_empty();
                let gradient = self.guided_gradient(start, &score, keep)?;
                Some(Guided::new(self.maker, &gradient)?)
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
        let layers = if needs.layer {
            self.of_layers(&score, guided, finish, keep)?
        } else {
            let mut evidence = Evidence::new(self.maker, None, guided.as_ref(), &finish);
            let maps = self.settings.backend.maps(&mut evidence)?;
            let (label, warnings) = ("input".to_owned(), Vec::new());
            vec![MadeLayer { label, maps: MadeMaps::Own(maps, Vec::new()), warnings }]
        };
        let fused = match self.settings.fuse {
            Some(fuse) => fused(self.maker, &all_maps(&layers), fuse)?,
            None => None,
        };
        let TargetScore { classes, empty, .. } = score;
        Ok(Made { asked, label: target.label.clone(), classes, empty, layers, fused })
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

    /// The maps of all selected layers, each computed when its gradient arrives in the backward.
    fn of_layers(
        &mut self,
        score: &TargetScore,
        guided: Option<Guided>,
        finish: Finish,
        keep: bool,
    ) -> Result<Vec<MadeLayer>> {
        let (backend, selected) = (self.settings.backend, self.selected);
        let Recorded { tape, start, .. } = &mut self.recorded;
        let same: Vec<usize> = (0..selected.len()).map(|wish| tape.same(wish)).collect();
        let mut made: Vec<Option<Result<MadeMaps>>> = selected.iter().map(|_| None).collect();
        let (slots, maker) = (&mut made, &mut *self.maker);
        // The closure owns `guided` and `finish`: their tensors may move to another thread, but two
        // threads may not share them.
        let reduce = move |wish: usize, activation: &Tensor, gradient: &Tensor| {
            let layer: &Selected = &selected[wish];
            slots[wish] = Some(layer.channels_first(activation).and_then(|activation| {
                let gradient = layer.channels_first(gradient)?;
                let tensors = Some((&activation, &gradient));
                let mut evidence = Evidence::new(maker, tensors, guided.as_ref(), &finish)
                    .weights_cancel(layer.weights_cancel);
                let maps = backend.maps(&mut evidence)?;
                let zero_gradient = zero_gradient(&maps, &gradient)?;
                Ok(MadeMaps::Own(maps, zero_gradient))
            }));
        };
        tape.backward(&score.sum, start.as_ref(), keep, reduce)?;
        let mut layers: Vec<MadeLayer> = Vec::new();
        for (wish, layer) in selected.iter().enumerate() {
            let maps = match made[wish].take() {
                Some(made) => {
                    made.map_err(|error| error.within(format!("layer '{}'", layer.label)))?
                }
                None => match layers.get(same[wish]).map(|earlier| &earlier.maps) {
                    Some(MadeMaps::Own(..) | MadeMaps::SameAs(_)) => MadeMaps::SameAs(same[wish]),
                    _ => MadeMaps::None,
                },
            };
            let warnings = match &maps {
                MadeMaps::None if self.settings.layers == LayerChoice::Full => {
                    vec![no_gradient_warning(layer, &self.no_gradient(layer))]
                }
                MadeMaps::None => return Err(self.no_gradient(layer)),
                _ => {
                    let layers = self.layers;
                    [channels_last(layer), redraws(layers, layer), no_image(layers, layer)]
                        .into_iter()
                        .flatten()
                        .collect()
                }
            };
            layers.push(MadeLayer { label: layer.label.clone(), maps, warnings });
        }
        Ok(layers)
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

/// The maps of all layers that have some, by the layer's name.
fn all_maps(layers: &[MadeLayer]) -> Vec<(&str, &LayerMaps)> {
    let mut all = Vec::new();
    for layer in layers {
        let own = match layer.maps {
            MadeMaps::SameAs(earlier) => layers.get(earlier).unwrap_or(layer),
            _ => layer,
        };
        if let MadeMaps::Own(maps, _) = &own.maps {
            all.push((&*layer.label, maps));
        }
    }
    all
}
