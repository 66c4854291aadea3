//! Circles among arrows: between files, between folders, between C++ files.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::tarjan_scc;
use petgraph::graph::Graph;

/// The circles among arrows: sets of nodes each of which leads to all others.
pub fn circles(arrows: &BTreeSet<(String, String)>) -> Vec<BTreeSet<String>> {
    let mut graph = Graph::<&str, ()>::new();
    let mut nodes = BTreeMap::new();
    for (from, to) in arrows {
        let [from, to] =
            [from, to].map(|name| *nodes.entry(name).or_insert_with(|| graph.add_node(name)));
        graph.add_edge(from, to, ());
    }
    let parts = tarjan_scc(&graph).into_iter().filter(|part| part.len() > 1);
    parts.map(|part| part.into_iter().map(|node| graph[node].to_owned()).collect()).collect()
}

/// The arrows that belong to a circle of files, or of what lies side by side in a folder. `x.rs` and
/// the folder `x` count as one there.
pub fn in_circles(arrows: &BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    let mut levels: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
    let mut inside = among(arrows, &circles(arrows), str::to_owned);
    for (from, to) in arrows {
        let folder = shared_folder(from, to);
        let pair = (side_by_side(from, folder), side_by_side(to, folder));
        if pair.0 != pair.1 {
            levels.entry(folder).or_default().insert(pair);
        }
    }
    for (folder, pairs) in &levels {
        let here: BTreeSet<_> = arrows
            .iter()
            .filter(|(from, to)| shared_folder(from, to) == *folder)
            .cloned()
            .collect();
        inside.extend(among(&here, &circles(pairs), |file| side_by_side(file, folder)));
    }
    inside
}

fn among(
    arrows: &BTreeSet<(String, String)>,
    circles: &[BTreeSet<String>],
    node: impl Fn(&str) -> String,
) -> BTreeSet<(String, String)> {
    let inside = |(from, to): &&(String, String)| {
        let (from, to) = (node(from), node(to));
        from != to && circles.iter().any(|circle| circle.contains(&from) && circle.contains(&to))
    };
    arrows.iter().filter(inside).cloned().collect()
}

/// The folder, with its slash, in which the ways to two files part.
fn shared_folder<'a>(one: &'a str, other: &str) -> &'a str {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    &one[..one[..same].rfind('/').map_or(0, |slash| slash + 1)]
}

/// The file or subfolder of `folder` in which a node lies, without `.rs`. The items of the folder's
/// own `mod.rs` stay apart.
fn side_by_side(node: &str, folder: &str) -> String {
    let rest = &node[folder.len()..];
    let name = rest.split_once('/').map_or(rest, |(subfolder, _)| subfolder);
    let item = name.starts_with("mod.rs#");
    let stem = name.split('#').next().unwrap_or(name).trim_end_matches(".rs");
    if item { name.to_owned() } else { stem.to_owned() }
}
