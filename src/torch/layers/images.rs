//! How much of the image each layer shows.

use std::collections::HashMap;

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
