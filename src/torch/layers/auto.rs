//! Which layer `auto` takes.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Layer, Layers};
use crate::task::Task;
use crate::torch::network::Facts;
use crate::torch::tape::Seen;

/// How many voxels of the image are behind the last run of each layer: its own, or fewer where it
/// comes from layers with fewer alone.
pub(super) fn image_voxels(seen: &[Seen], input: &[i64], facts: &Facts) -> HashMap<String, i64> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut of_runs: HashMap<String, i64> = HashMap::new();
    let mut of_layers = HashMap::new();
    for Seen { name, sizes, .. } in seen {
        let count = counts.entry(name).or_default();
        *count += 1;
        let run = format!("{name}#{count}");
        let is_image = sizes.len() == input.len() && sizes.first() == input.first();
        let own = if !is_image {
            i64::MAX
        } else if facts.channels_last.contains(name) {
            sizes[1..sizes.len() - 1].iter().product()
        } else {
            sizes[2..].iter().product()
        };
        let behind = match facts.sources.get(&run) {
            Some(runs) => {
                let of = |run: &String| of_runs.get(run).copied().unwrap_or(i64::MAX);
                runs.iter().map(of).max().unwrap_or(1)
            }
            None => i64::MAX,
        };
        of_runs.insert(run, own.min(behind));
        of_layers.insert(name.clone(), own.min(behind));
    }
    of_layers
}

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
