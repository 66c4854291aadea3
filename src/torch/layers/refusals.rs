//! Errors for layers that cannot carry a map.

use super::{Layer, Layers};
use crate::error::Error;

const QUANTIZED: &str = "the network is quantised, and its operators have no gradient. Export the \
                         float network from which it was made";

/// What to say of a network with quantised steps, where something has no gradient.
pub(crate) fn quantized(operator: &str) -> String {
    format!("{QUANTIZED} (it has {operator})")
}

/// The error for a name that is none of `names`.
pub(crate) fn unknown_layer<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let mut near: Vec<_> = names
        .map(|known| {
            let contained = known.contains(name) || name.contains(known);
            (!contained, strsim::damerau_levenshtein(name, known), known)
        })
        .collect();
    near.sort_unstable();
    let near: Vec<_> = near.iter().take(5).map(|(_, _, name)| *name).collect();
    let near = match &near[..] {
        [] => "It has no layers at all".to_owned(),
        near => {
            format!("Near it: {}. All of them: medcam layers MODEL --shape ...", near.join(", "))
        }
    };
    Error::layer(format!("layer '{name}': the network has none of this name. {near}"))
}

impl Layers {
    /// The error for a name that no layer has.
    pub(super) fn unknown_layer(&self, name: &str) -> Error {
        if self.not_run.contains(name) {
            return Error::layer(format!(
                "layer '{name}' cannot carry a map: the output that is explained does not depend on \
                 it, only another output of the model does. Choose that one (--explain-output, \
                 Model::with_output)"
            ));
        }
        let names = || self.layers.iter().map(|layer| layer.name.as_str());
        if let Some(returns) = self.untapped.get(name) {
            let inside = format!("{name}.");
            let inside: Vec<_> = names().filter(|layer| layer.starts_with(&inside)).collect();
            let inside = match inside.last() {
                Some(last) => format!("Take a layer inside, such as '{last}', or one behind it"),
                None => "Take a layer behind it".to_owned(),
            };
            return Error::layer(format!(
                "layer '{name}' cannot carry a map: it returns {returns}, and a map needs a single \
                 tensor. {inside}"
            ));
        }
        unknown_layer(name, names())
    }

    /// The error for a layer that cannot carry a map.
    pub(super) fn cannot_carry(&self, layer: &Layer) -> Error {
        let auto = self
            .auto()
            .map_or(String::new(), |auto| format!(" Layer auto would take is '{}'.", auto.name));
        let shape = &layer.shape;
        let spatial = shape.len() >= 4 && layer.voxels() > 1;
        let why = if let (false, Some(operator)) = (layer.is_floating_point, &self.quantized) {
            quantized(operator)
        } else if !layer.is_floating_point {
            "its output is not floating point, so it has no gradient".to_owned()
        } else if self.no_images.contains(&layer.name) {
            format!("its output of shape {shape:?} is no image, but attention weights or windows")
        } else if spatial && !layer.has_batch {
            self.without_batch(layer)
        } else if spatial {
            "no gradient reaches it: the score does not depend on it".to_owned()
        } else {
            format!("its output of shape {shape:?} has no spatial extent")
        };
        Error::layer(format!("layer '{}' cannot carry a map: {why}.{auto}", layer.name))
    }

    /// The error for a network of which `auto` takes no layer.
    pub(super) fn no_auto(&self) -> Error {
        let Some(best) = self.best_by_hand() else { return self.no_layer() };
        let why = if !best.shows_image {
            "only pad, crop or resize others, or come from a single voxel, so that a map shows nothing \
             of the image"
        } else if best.channels() == 1 {
            "have a single channel, which a map could only repeat"
        } else if best.weights_cancel {
            "have weights that cancel in front of an instance norm, so that Grad-CAM's map is rounding \
             noise"
        } else {
            "are separated from the score by pointwise steps and resizing alone, so that a map only \
             redraws the output"
        };
        Error::layer(format!(
            "layer auto: this network has no good one. Those that can carry a map {why}. The best of \
             them to take by hand: --layer {}",
            best.name
        ))
    }

    /// The error for a network without a layer that can carry a map.
    pub(super) fn no_layer(&self) -> Error {
        let float = |layer: &&Layer| layer.is_floating_point && layer.shape.len() >= 4;
        let stacked = self.layers.iter().rfind(|layer| float(layer) && !layer.has_batch);
        let reached = |layer: &&Layer| float(layer) && layer.voxels() > 1;
        let why = if let Some(operator) = &self.quantized {
            quantized(operator)
        } else if let Some(layer) = stacked {
            format!("of layer '{}' {}", layer.name, self.without_batch(layer))
        } else if self.layers.is_empty() {
            "it has neither modules nor operations of its own that medcam knows".to_owned()
        } else if let Some(layer) = self.layers.iter().rfind(reached) {
            format!(
                "no gradient reaches those with more than one voxel, such as '{}': the score does not \
                 depend on them",
                layer.name
            )
        } else {
            "none has an output with more than one voxel".to_owned()
        };
        Error::layer(format!("no layer of this network can carry a map: {why}"))
    }

    fn without_batch(&self, layer: &Layer) -> String {
        format!(
            "the output of shape {:?} has {} along its first axis for a batch of {}: its first axis is \
             not the batch, but flips, crops or windows that the model stacks (or a batch size that \
             tracing baked in). Export the model without such test-time augmentation",
            layer.shape, layer.shape[0], self.batch
        )
    }
}
