//! `#include` among the C++ and CUDA files.

use std::collections::BTreeSet;

use super::circles::circles;
use super::tree::Files;

/// Folders that the compilers search.
const SEARCHED: [&str; 3] = ["src/torch/shim", "kernels", "tests/cuda_on_host"];

const SHIM: &str = "src/torch/shim/";

type Pairs = BTreeSet<(String, String)>;

/// Who includes whom. An include in quotes that is not among the files is an error.
fn includes(files: &Files) -> (Pairs, Vec<String>) {
    let (mut pairs, mut wrong) = (BTreeSet::new(), Vec::new());
    for (file, text) in files {
        let own = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        for line in text.lines() {
            let directive = line.trim().strip_prefix('#').map(str::trim);
            let rest = directive.and_then(|directive| directive.strip_prefix("include"));
            let Some(name) = rest.and_then(|rest| rest.split('"').nth(1)) else { continue };
            let mut places =
                [own].into_iter().chain(SEARCHED).map(|folder| format!("{folder}/{name}"));
            match places.find(|place| files.contains_key(place)) {
                Some(place) => drop(pairs.insert((file.clone(), place))),
                None => wrong.push(format!("{file}: no file \"{name}\"")),
            }
        }
    }
    (pairs, wrong)
}

/// A path without its ending: `x.h` and `x.cpp` are one thing.
fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// What is wrong with includes.
pub fn judge(files: &Files) -> Vec<String> {
    let (pairs, mut wrong) = includes(files);
    for circle in circles(&pairs).iter().chain(&circles(&of_stems(&pairs))) {
        wrong.push(format!("a circle: {circle:?}"));
    }
    wrong
}

fn of_stems(pairs: &Pairs) -> Pairs {
    let stems = pairs.iter().map(|(from, to)| (stem(from).to_owned(), stem(to).to_owned()));
    stems.filter(|(from, to)| from != to).collect()
}

/// Headers of the shim without the `.cpp` that defines what they declare, apart from those that
/// stand `alone`; and a `.cpp` that no header declares: neither its own nor, through others,
/// `shim.h`.
pub fn without_twin(files: &Files, alone: &[&str]) -> Vec<String> {
    let (pairs, mut wrong) = includes(files);
    let mut declared = BTreeSet::from([format!("{SHIM}shim.h")]);
    for _ in files {
        let more = pairs.iter().filter(|(_, to)| declared.contains(to));
        let more: Vec<_> = more.map(|(from, _)| from.clone()).collect();
        declared.extend(more);
    }
    for file in files.keys().filter_map(|file| file.strip_prefix(SHIM)) {
        let twin = |ending| format!("{SHIM}{}{ending}", stem(file));
        let has_twin = pairs.contains(&(twin(".cpp"), twin(".h")));
        if file.ends_with(".h") && has_twin == alone.contains(&file) {
            wrong.push(format!("{file}: its .cpp is missing, or it is not alone"));
        }
        if file.ends_with(".cpp") && !has_twin && !declared.contains(&twin(".cpp")) {
            wrong.push(format!("{file}: no header declares what it defines"));
        }
    }
    let gone = alone.iter().filter(|header| !files.contains_key(&format!("{SHIM}{header}")));
    wrong.extend(gone.map(|header| format!("{header} is not there")));
    wrong
}
