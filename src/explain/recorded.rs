//! Runs one forward with the tape recording, and collects the tensors that the maps need.

use tch::Tensor;

use super::checks::{Unchecked, differentiable, finite_later};
use super::settings::Settings;
use super::warnings::GUIDE_ALL;
use crate::bridge::Readback;
use crate::error::{Error, Result};
use crate::methods::ScoreAt;
use crate::task::Task;
use crate::torch::{Facts, Guide, Network, Selected, Tape, batched, batched_shape};

/// The tensors of one forward that the maps need.
pub(super) struct Recorded {
    pub tape: Tape,
    /// The network's own output.
    pub output: Tensor,
    /// Shape of the output as `(B, K, ...)`.
    pub shape: Vec<i64>,
    /// The tensor from which the score is taken, `(B, K, ...)`.
    pub scored: Tensor,
    /// The scores before a final activation, `(B, K, ...)`.
    pub logits: Tensor,
    pub task: Task,
    /// The input as the tape's first leaf, for the guided methods.
    pub start: Option<Tensor>,
    /// Number of spatial axes, 2 or 3.
    pub spatial_rank: usize,
    /// The check of the output that waits until the maps are there.
    pub unchecked: Option<Unchecked>,
}

/// Runs the network on `input` and records the selected layers.
///
/// `of_one` is the shape of a single sample's output, `(1, K, ...)`, if it is known.
pub(super) fn record(
    network: &impl Network,
    settings: &Settings,
    facts: &Facts,
    selected: &[Selected],
    of_one: Option<&[i64]>,
    input: &Tensor,
    readback: &mut Readback,
) -> Result<Recorded> {
    let mut tape = Tape::new()?;
    for layer in selected {
        tape.want(&layer.name, layer.run)?;
    }
    let needs = settings.backend.needs();
    let start = needs.guided.then(|| input.detach().set_requires_grad(true));
    let output = match &start {
        Some(start) => {
            tape.guide(settings.guide);
            // Autograd forbids writing to a leaf in place, and the network may write to its input,
            // so it gets a copy.
            tch::with_grad(|| network.forward_tapped(&start.copy(), &mut tape))
        }
        // Detached: the tape does not reach beyond the input.
        None => tch::no_grad(|| network.forward_tapped(&input.detach(), &mut tape)),
    }?;
    if needs.guided && tape.guided_activations() == 0 {
        return Err(nothing_guided(settings, facts));
    }
    let logits = tape.noted_logits().unwrap_or_else(|| output.shallow_clone());
    differentiable(match settings.score {
        ScoreAt::Logits => &logits,
        ScoreAt::Output => &output,
    })?;
    let unchecked = finite_later("the model's output", &output, readback)?;
    let shape = batched_shape(&input.size(), &output.size(), of_one)?;
    let task = Task::of(&input.size(), &shape)?;
    // The logits may differ in shape from the output: a squeeze behind the softmax may drop the
    // output's batch axis, and a network written in Rust may note scores of any shape.
    let logits = if logits.size() == output.size() {
        batched(&logits, &shape)?
    } else {
        batched(&logits, &batched_shape(&input.size(), &logits.size(), None)?)?
    };
    let scored = match settings.score {
        ScoreAt::Logits => logits.shallow_clone(),
        ScoreAt::Output => batched(&output, &shape)?,
    };
    let spatial_rank = input.dim() - 2;
    Ok(Recorded { tape, output, shape, scored, logits, task, start, spatial_rank, unchecked })
}

fn nothing_guided(settings: &Settings, facts: &Facts) -> Error {
    let others: Vec<_> = facts.activations.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let what = match (settings.guide, others.is_empty()) {
        (Guide::Relu, false) => {
            format!("it has no ReLU, but {}. {GUIDE_ALL}", others.join(", "))
        }
        _ => "it has no activation that can be guided. Take another backend".to_owned(),
    };
    Error::model(format!(
        "{}: nothing in the network was guided, so the map would be the plain gradient: {what}",
        settings.backend
    ))
}
