//! The warnings of an explanation; each code is explained in `docs/diagnostics.md`.

use std::borrow::Cow;

use super::map::AttentionMap;
use super::settings::Settings;
use crate::error::Error;
use crate::methods::Target;
use crate::ops::Range;
use crate::torch::{Facts, Guide, Layers, Selected, TrainingSteps};
use crate::warning::Warning;

const WEIGHTS_CANCEL: &str = "WEIGHTS_CANCEL";

pub(super) const GUIDE_ALL: &str = "Guide all kinds of activations (--guide all, Guide::All)";

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

/// Warns of activations that a guided method leaves unguided while it guides others.
pub(super) fn partly_guided(settings: &Settings, facts: &Facts) -> Option<Warning> {
    if !settings.backend.needs().guided || settings.guide != Guide::Relu {
        return None;
    }
    let others = facts.activations_beyond_relu();
    let others: Vec<_> = others.map(|(name, count)| format!("{count} {name}")).collect();
    (!others.is_empty()).then(|| {
        Warning::of_run(
            "PARTLY_GUIDED",
            format!(
                "ReLU is guided, {} are not, so the map is between guided backpropagation and \
                 the plain gradient. {GUIDE_ALL}",
                others.join(", ")
            ),
        )
    })
}

/// Warns of samples that have no voxel of the target named `label`.
pub(super) fn empty_target<'a>(
    asked: &'a Target,
    label: &'a str,
    empty: &'a [usize],
) -> impl Iterator<Item = Warning> + 'a {
    empty.iter().map(move |&sample| {
        let what = match asked {
            Target::Predicted(class) => format!("nothing is predicted as class {class}"),
            _ if label.starts_with("component") => format!("there is no {label} here"),
            _ => "the target mask has no voxel".to_owned(),
        };
        Warning {
            sample: Some(sample),
            ..Warning::of_run(
                "EMPTY_TARGET",
                format!(
                    "sample {sample}: {what}, so the map is zero. Take another class or region"
                ),
            )
        }
    })
}

/// Warns of a layer that `full` selected although the score does not depend on it.
pub(super) fn no_gradient_warning(layer: &Selected, error: &Error) -> Warning {
    Warning {
        layer: layer.label.clone(),
        ..Warning::of_run("NO_GRADIENT", format!("{error}. It has no map; leave it out"))
    }
}

/// Warns of a layer whose last axis was read as its channels.
pub(super) fn channels_last(layer: &Selected) -> Option<Warning> {
    layer.channels_last.then(|| {
        Warning::of_layer(
            "CHANNELS_LAST",
            &layer.label,
            "its output was read as (B, [D,] H, W, C), as transformers have it. Check in its shape \
             (medcam layers) that the last axis is the channels",
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

/// Warns of a layer whose map does not depend on the image.
pub(super) fn no_image(layers: Option<&Layers>, layer: &Selected) -> Option<Warning> {
    let facts = layers.and_then(|layers| layers.get(&layer.name))?;
    facts.regrids_one_voxel.then(|| {
        Warning::of_layer(
            "NO_IMAGE",
            &layer.label,
            "it pads or resizes a single voxel, so the map has the same form for every image. Take a \
             layer that still has more than one, as auto does",
        )
    })
}

/// Warnings about the values of a map.
pub(super) fn judge(map: &AttentionMap) -> Vec<Warning> {
    let warning = |code: &'static str, sample, message: &str| Warning {
        code: Cow::Borrowed(code),
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
        } else if map.unstable_weights.get(sample) == Some(&true) {
            Some(warning(
                "UNSTABLE_WEIGHTS",
                sample,
                "the map of Grad-CAM++ hangs on rounding: some activations are negative, and with them the \
                 denominator of its weights comes close to 0. Take a layer whose activations are not \
                 negative, such as a ReLU, or another method (--backend gcam)",
            ))
        } else {
            None
        }
    };
    map.ranges.iter().zip(&map.weights_cancel).enumerate().filter_map(of_sample).collect()
}

/// Warnings about the values of one of the maps that `fused` combines.
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
