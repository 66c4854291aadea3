//! Errors for layers that cannot carry a map.

use super::{Layer, Layers};
use crate::error::Error;

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
        let mut near: Vec<_> = self
            .layers
            .iter()
            .map(|layer| {
                let contained = layer.name.contains(name) || name.contains(&layer.name);
                (!contained, strsim::damerau_levenshtein(name, &layer.name), &layer.name)
            })
            .collect();
        near.sort();
        let near: Vec<_> = near.iter().take(5).map(|(_, _, name)| name.as_str()).collect();
        Error::layer(format!(
            "layer '{name}': the network has none of this name. Near it: {}. All of them: medcam \
             layers MODEL --shape ...",
            near.join(", ")
        ))
    }

    /// The error for a layer that cannot carry a map.
    pub(super) fn cannot_carry(&self, layer: &Layer) -> Error {
        let auto = self
            .auto()
            .map_or(String::new(), |auto| format!(" Layer auto would take is '{}'.", auto.name));
        let shape = &layer.shape;
        let spatial = shape.len() >= 4 && layer.voxels() > 1;
        let why = if !layer.is_floating_point {
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

    /// The error for a network without a layer that can carry a map.
    pub(super) fn no_layer(&self) -> Error {
        let stacked =
            |layer: &&Layer| !layer.has_batch && layer.shape.len() >= 4 && layer.is_floating_point;
        let why = match self.layers.iter().rfind(stacked) {
            Some(layer) => format!("of layer '{}' {}", layer.name, self.without_batch(layer)),
            None => {
                "none has an output with more than one voxel that the score depends on".to_owned()
            }
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
