//! What a reader of a map should know.

use serde::Serialize;

use super::AttentionMap;
use crate::ops::Range;
use crate::torch::{Facts, Layers, Selected, TrainingSteps};

const WEIGHTS_CANCEL: &str = "WEIGHTS_CANCEL";

/// Something that a reader of a map should know; each code is explained in `docs/diagnostics.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Warning {
    /// A fixed name for programs, such as `ZERO_MAP`.
    pub code: &'static str,
    /// The layer; empty where the warning is of the whole run.
    pub layer: String,
    /// The sample of the batch, from 0; `None` where the warning is of all.
    pub sample: Option<usize>,
    /// What it means, and what to do.
    pub message: String,
}

impl Warning {
    /// Of the whole run.
    pub(super) fn of_run(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, layer: String::new(), sample: None, message: message.into() }
    }

    pub(super) fn of_layer(code: &'static str, layer: &str, message: &str) -> Self {
        let message = format!("layer '{layer}': {message}");
        Self { code, layer: layer.to_owned(), sample: None, message }
    }
}

/// Warns of a graph with steps that act as in training, which evaluation mode does not change.
pub(crate) fn training_mode(facts: &Facts) -> Option<Warning> {
    let listed = |is_random: bool| {
        let steps = facts.training_steps.iter().filter(|steps| steps.is_random == is_random);
        let steps: Vec<_> =
            steps.map(|TrainingSteps { name, count, .. }| format!("{count} {name}")).collect();
        (!steps.is_empty()).then(|| steps.join(", "))
    };
    let random = listed(true).map(|steps| {
        format!("{steps}: it draws random numbers, so output and map change from run to run")
    });
    let of_batch = listed(false).map(|steps| {
        format!(
            "{steps}: it normalises with the statistics of its input instead of those it learned, so \
             output and map are not those of evaluation, and behind a batch norm those of a sample depend \
             on the others of its batch"
        )
    });
    let seen: Vec<_> = random.into_iter().chain(of_batch).collect();
    (!seen.is_empty()).then(|| {
        Warning::of_run(
            "TRAINING_MODE",
            format!(
                "the file has steps that act as in training and that evaluation mode cannot switch off: \
                 {}. Call network.eval() before you export it; F.dropout(x) needs \
                 training=self.training, and a batch norm its running statistics",
                seen.join("; ")
            ),
        )
    })
}

/// Warns of a layer whose map only redraws the output.
pub(super) fn redraws(layers: Option<&Layers>, layer: &Selected) -> Option<Warning> {
    let facts = layers.and_then(|layers| layers.get(&layer.name))?;
    facts.redraws_output.then(|| {
        Warning::of_layer(
            "REDRAWS_OUTPUT",
            &layer.label,
            "only pointwise steps come between it and the score, so the gradient is the same at \
             every voxel and the map only redraws the output. Take a layer further from it, as auto \
             does (but not that of compat m3dcam)",
        )
    })
}

/// Warnings about the values of a map.
pub(super) fn judge(map: &AttentionMap) -> Vec<Warning> {
    let warning = |code, sample, message: &str| Warning {
        code,
        layer: map.layer.clone(),
        sample: Some(sample),
        message: format!("layer '{}', {}, sample {sample}: {message}", map.layer, map.target),
    };
    let of_sample = |(sample, (range, cancel)): (usize, (&Range, &bool))| {
        if map.zero_gradient.get(sample) == Some(&true) {
            Some(warning(
                "ZERO_GRADIENT",
                sample,
                "the gradient of the score is zero everywhere in this layer, and so is the map. Take \
                 the score before a softmax, or another class or layer",
            ))
        } else if *cancel {
            Some(warning(
                WEIGHTS_CANCEL,
                sample,
                "the map is rounding noise: the gradient averages to zero in every channel, as it \
                 does in front of an instance normalisation. Take a layer behind one",
            ))
        } else if (range.minimum, range.maximum) == (0.0, 0.0) {
            Some(warning(
                "ZERO_MAP",
                sample,
                "the map is zero everywhere: nothing in this layer speaks for the score. Try \
                 another layer or class",
            ))
        } else if range.minimum >= range.maximum {
            Some(warning(
                "CONSTANT_MAP",
                sample,
                "the map is the same everywhere and is written as zeros. Try another layer",
            ))
        } else {
            None
        }
    };
    map.ranges.iter().zip(&map.weights_cancel).enumerate().filter_map(of_sample).collect()
}

/// Warnings about the values of one of the maps that `fused` was made of.
pub(super) fn judge_fused(map: &AttentionMap, fused: &AttentionMap) -> Vec<Warning> {
    let mut warnings = judge(map);
    for Warning { code, sample, message, .. } in &mut warnings {
        let all_cancel = sample.is_some_and(|sample| fused.weights_cancel[sample]);
        if *code == WEIGHTS_CANCEL && !all_cancel {
            message.push_str(". The fused map leaves this one out");
        }
    }
    warnings
}
