//! Follows each name to the file that defines it. An arrow goes from the file that uses a name to
//! that file, whatever imports and re-exports lie between: a `mod.rs` that only declares and
//! re-exports its children is passed through.
//!
//! A file with children, such as the `mod.rs` of an op, is taken item by item ("ops/mod.rs#View"):
//! types that the children use and functions that call the children may stand in it side by side. Its
//! imports and re-exports belong to no item, so they close no circle; the items that use them may.
//!
//! Not seen: methods. Where an `impl` lies in another file than its type, a call of its methods is no
//! arrow to that file.

use std::collections::BTreeSet;

use super::tree::{Entry, Files, ROOT, Tree};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    pub from: String,
    pub to: String,
    /// The line in `from`.
    pub line: usize,
    /// `from` and `to`, with their items where they have children, for the search for circles. None
    /// where `to` does not define the name but is a module on the way there, and in unit tests.
    pub nodes: Option<(String, String)>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// The module that defines the item, and the item's name.
    Item(usize, String),
    /// A module at which the path ends.
    End(usize),
    /// A module that the path goes through.
    Way(usize),
}

/// One look-up. Each import is followed once, since imports may refer to each other in a circle.
struct Lookup<'a> {
    tree: &'a Tree,
    followed: BTreeSet<usize>,
    found: BTreeSet<Found>,
}

impl Lookup<'_> {
    /// Follows a path that is written in `module`. `strict` says that a module without the name that
    /// is looked for does not count as the module that defines it.
    fn path(&mut self, module: usize, path: &[String], strict: bool) {
        let Some(first) = path.first() else { return };
        let (mut at, mut rest) = match first.as_str() {
            "crate" => (ROOT, &path[1..]),
            "self" => (module, &path[1..]),
            "super" => (self.tree.modules[module].parent, &path[1..]),
            _ => {
                // A name that is not in scope belongs to another crate.
                self.names(module, path, strict);
                return;
            }
        };
        while let Some("super") = rest.first().map(String::as_str) {
            at = self.tree.modules[at].parent;
            rest = &rest[1..];
        }
        self.descend(at, rest, strict);
    }

    fn descend(&mut self, at: usize, rest: &[String], strict: bool) {
        if rest.is_empty() {
            self.found.insert(Found::End(at));
            return;
        }
        self.found.insert(Found::Way(at));
        // A name that is not there was defined by a macro.
        if !self.names(at, rest, strict) && !strict {
            self.found.insert(Found::Item(at, rest[0].clone()));
        }
    }

    /// Follows a path whose first name is looked up in a module; says whether the name was there.
    fn names(&mut self, at: usize, path: &[String], strict: bool) -> bool {
        let (name, rest) = (&path[0], &path[1..]);
        let module = &self.tree.modules[at];
        if let Some(entries) = module.names.get(name) {
            for entry in entries {
                self.entry(at, (name, entry), rest, strict);
            }
            return true;
        }
        let mut there = false;
        for (id, glob) in &module.globs {
            if self.followed.insert(*id) {
                let before = self.found.clone();
                self.path(at, &[glob, path].concat(), true);
                let mut new = self.found.difference(&before);
                if new.any(|found| !matches!(found, Found::Way(_))) {
                    there = true;
                } else {
                    self.found = before;
                }
            }
        }
        there
    }

    /// Finds all that a glob import brings in, apart from modules.
    fn glob(&mut self, module: usize, path: &[String]) {
        let before = std::mem::take(&mut self.found);
        self.path(module, path, false);
        let found = std::mem::replace(&mut self.found, before);
        self.found.extend(found.iter().cloned());
        for found in found {
            let Found::End(at) = found else { continue };
            let there = &self.tree.modules[at];
            for (name, entries) in &there.names {
                for entry in entries.iter().filter(|entry| !matches!(entry, Entry::Child(_))) {
                    self.entry(at, (name, entry), &[], true);
                }
            }
            for (id, path) in &there.globs {
                if self.followed.insert(*id) {
                    self.glob(at, path);
                }
            }
        }
    }

    fn entry(&mut self, at: usize, (name, entry): (&str, &Entry), rest: &[String], strict: bool) {
        match entry {
            Entry::Child(child) => self.descend(*child, rest, strict),
            Entry::Item { has_names } => {
                if *has_names || rest.is_empty() {
                    self.found.insert(Found::Item(at, name.to_owned()));
                }
            }
            Entry::Import { id, path } => {
                if self.followed.insert(*id) {
                    self.path(at, &[path, rest].concat(), strict);
                }
            }
        }
    }
}

fn look_up(tree: &Tree, module: usize, path: &[String]) -> BTreeSet<Found> {
    let mut lookup = Lookup { tree, followed: BTreeSet::new(), found: BTreeSet::new() };
    match path.split_last() {
        Some((last, glob)) if last == "*" => lookup.glob(module, glob),
        _ => lookup.path(module, path, false),
    }
    lookup.found
}

/// All arrows of a crate. Those of `lib.rs`, which shows the crate to others, are left out.
pub fn arrows(files: &Files) -> BTreeSet<Arrow> {
    let tree = Tree::new(files);
    let parents: BTreeSet<_> = tree
        .modules
        .iter()
        .map(|module| (&module.file, &tree.modules[module.parent].file))
        .filter_map(|(file, parent)| (file != parent).then_some(parent))
        .collect();
    let node = |file: &String, item: &str| match parents.contains(file) {
        true => format!("{file}#{item}"),
        false => file.clone(),
    };
    let mut arrows = BTreeSet::new();
    for mention in &tree.mentions {
        let from = &tree.modules[mention.module].file;
        if from == "lib.rs" {
            continue;
        }
        for found in look_up(&tree, mention.module, &mention.path) {
            let (at, item) = match found {
                Found::Item(at, item) => (at, Some(item)),
                Found::End(at) | Found::Way(at) => (at, None),
            };
            let (to, defines) = (&tree.modules[at].file, item.is_some());
            let item = item.filter(|_| !tree.modules[mention.module].tests);
            let nodes = item.map(|item| (node(from, &mention.item), node(to, &item)));
            let nowhere = match &nodes {
                Some((from, to)) => from == to,
                None => from == to || at == ROOT && !defines,
            };
            if !nowhere {
                let (from, to) = (from.clone(), to.clone());
                arrows.insert(Arrow { from, to, line: mention.line, nodes });
            }
        }
    }
    arrows
}
