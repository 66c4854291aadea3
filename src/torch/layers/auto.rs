//! Which layer `auto` takes.

use std::cmp::Reverse;

use super::{Layer, Layers};
use crate::task::Task;

impl Layers {
    /// The layer that [`LayerChoice::Auto`](crate::LayerChoice::Auto) takes; see there for the rule.
    pub fn auto(&self) -> Option<&Layer> {
        let mut candidates: Vec<_> =
            self.layers.iter().filter(|layer| layer.can_carry_map && self.is_good(layer)).collect();
        if candidates.iter().any(|layer| !layer.embeds_patches) {
            candidates.retain(|layer| !layer.embeds_patches);
        }
        match self.task {
            Task::Classification => {
                candidates.into_iter().max_by_key(|layer| (layer.has_extent(), layer.last_run))
            }
            Task::Segmentation => candidates
                .into_iter()
                .max_by_key(|layer| (layer.has_extent(), Reverse(layer.voxels()), layer.last_run)),
        }
    }

    /// Whether nothing speaks against a layer that can carry a map.
    fn is_good(&self, layer: &Layer) -> bool {
        layer.shows_image
            && !layer.weights_cancel
            && layer.channels() > 1
            && !(self.task == Task::Segmentation && layer.redraws_output)
    }

    /// The best of the layers that can carry a map where `auto` takes none: what speaks against it
    /// weighs least, and of those alike it is the furthest from an output that they redraw, or else
    /// the closest to the output.
    pub(super) fn best_by_hand(&self) -> Option<&Layer> {
        self.layers.iter().filter(|layer| layer.can_carry_map).max_by_key(|layer| {
            let order = i64::try_from(layer.last_run).unwrap_or(i64::MAX);
            let order = if layer.redraws_output { -order } else { order };
            let several = layer.channels() > 1;
            (layer.shows_image, several, !layer.weights_cancel, !layer.redraws_output, order)
        })
    }
}
