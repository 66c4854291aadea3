//! Finds the layers of a network before its first map, without a forward where that is possible.

use tch::Tensor;

use super::checks::differentiable;
use crate::error::Result;
use crate::methods::ScoreAt;
use crate::torch::{
    Facts, LayerChoice, Layers, Network, Selected, Tape, batched_shape, in_libtorch, unknown_layer,
};

/// What is known of a network, for a score that is taken so.
pub(super) fn facts_of(network: &impl Network, score: ScoreAt) -> Facts {
    match score {
        ScoreAt::Logits => network.facts(),
        ScoreAt::Output => network.facts().scored_at_output(),
    }
}

/// The layers by shapes alone; `None` if the network cannot tell them.
pub(super) fn by_shapes(
    network: &impl Network,
    facts: &Facts,
    input: &Tensor,
) -> Result<Option<Layers>> {
    let sample = first_sample(input)?;
    let mut tape = Tape::new()?;
    let output = network.forward_shapes(&sample, &mut tape);
    output.map(|output| layers(&sample, &output, &tape, facts)).transpose()
}

/// The layers that a forward of the first sample shows.
pub(super) fn by_forward(network: &impl Network, facts: &Facts, input: &Tensor) -> Result<Layers> {
    // A copy: the network may write to its input.
    let sample = first_sample(input)?;
    let sample = in_libtorch("input", || sample.f_detach_copy())?;
    let mut tape = Tape::new()?;
    let output = {
        let _no_grad = tch::no_grad_guard();
        network.forward_tapped(&sample, &mut tape)?
    };
    layers(&sample, &output, &tape, facts)
}

/// The layers by shapes, or else by a forward.
pub(super) fn find(network: &impl Network, facts: &Facts, input: &Tensor) -> Result<Layers> {
    match by_shapes(network, facts, input)? {
        Some(layers) => Ok(layers),
        None => by_forward(network, facts, input),
    }
}

/// The layers asked for by name, where nothing has to be found out before the first forward: the last
/// run of each counts, and what the forward shows is compared afterwards. `None` if something has.
///
/// # Errors
///
/// If the network is known to have no layer of a name.
pub(super) fn in_advance(
    network: &mut impl Network,
    facts: &Facts,
    choice: &LayerChoice,
) -> Result<Option<Vec<Selected>>> {
    let LayerChoice::Names(names) = choice else { return Ok(None) };
    let selected: Vec<_> =
        names.iter().map(|name| Selected::in_advance(name, facts)).collect::<Result<_>>()?;
    let is_module = |layer: &Selected| facts.layer_types.contains_key(&layer.name);
    if selected.is_empty() || selected.iter().all(is_module) {
        return Ok(Some(selected).filter(|selected| !selected.is_empty()));
    }
    if !network.tap_operations(true)? {
        // A network in Rust: nothing is known of it.
        return Ok(Some(selected));
    }
    let with_operations = network.facts();
    network.tap_operations(false)?;
    let is_known = |name: &str| {
        with_operations.layer_types.contains_key(name) || facts.untapped.contains_key(name)
    };
    match selected.iter().find(|layer| !is_known(&layer.name)) {
        Some(layer) => {
            let known = with_operations.layer_types.keys().map(String::as_str);
            Err(unknown_layer(&layer.name, known))
        }
        None => Ok(None),
    }
}

fn first_sample(input: &Tensor) -> Result<Tensor> {
    in_libtorch("input", || input.f_narrow(0, 0, 1))
}

fn layers(sample: &Tensor, output: &Tensor, tape: &Tape, facts: &Facts) -> Result<Layers> {
    differentiable(tape.noted_logits().as_ref().unwrap_or(output))?;
    let output = batched_shape(&sample.size(), &output.size(), None)?;
    Layers::new(&sample.size(), &output, &tape.seen(), facts)
}
