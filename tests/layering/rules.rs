//! Which arrows are allowed: from room to room, from op to op, and none in a circle.

use std::collections::BTreeSet;

use super::arrows::Arrow;
use super::circles::in_circles;
use super::tree::Files;

/// Who may use whom.
pub struct Tables<'a> {
    pub rooms: &'a [(&'a str, &'a [&'a str])],
    /// Folders of `src/ops` that any op may use.
    pub reductions: &'a [&'a str],
    /// The op that may use every other one.
    pub chains: &'a str,
    pub ops: &'a [(&'a str, &'a str)],
}

/// An arrow, and the rule that it breaks.
type Finding = (Arrow, String);

/// The room of a file: its first folder, or its own name.
pub fn room(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

/// The op, or shared reduction, in whose folder a file lies.
fn op(file: &str) -> Option<&str> {
    Some(file.strip_prefix("ops/")?.split_once('/')?.0)
}

impl Tables<'_> {
    /// What is wrong with arrows, apart from those from one file to another that are `known`; and the
    /// known ones that break no rule any more.
    pub fn judge(&self, arrows: &BTreeSet<Arrow>, known: &[(&str, &str)]) -> Vec<String> {
        let all = self.findings(arrows);
        let is =
            |arrow: &Arrow, pair: &(&str, &str)| (arrow.from.as_str(), arrow.to.as_str()) == *pair;
        let gone = known.iter().filter(|pair| !all.iter().any(|(arrow, _)| is(arrow, pair)));
        let gone =
            gone.map(|(from, to)| format!("{from} -> {to} is fine now: take it from GRANTED"));
        let is_new = |arrow: &&Arrow| !known.iter().any(|pair| is(arrow, pair));
        let new = self.findings(&arrows.iter().filter(is_new).cloned().collect());
        let new = new.into_iter().map(|(arrow, rule)| {
            let Arrow { from, to, line, .. } = arrow;
            format!("{from}:{line} -> {to}: {rule}")
        });
        gone.chain(new).collect()
    }

    fn findings(&self, arrows: &BTreeSet<Arrow>) -> Vec<Finding> {
        let circles = in_circles(&arrows.iter().filter_map(|arrow| arrow.nodes.clone()).collect());
        let mut findings = Vec::new();
        for arrow in arrows {
            let mut find = |broken: Option<String>| {
                findings.extend(broken.map(|rule| (arrow.clone(), rule)));
            };
            find(self.between_rooms(arrow));
            if let Some(nodes) = &arrow.nodes {
                find(self.between_ops(arrow));
                let in_circle = arrow.from != arrow.to && circles.contains(nodes);
                find(in_circle.then(|| "part of a circle".to_owned()));
            }
        }
        findings
    }

    fn between_rooms(&self, arrow: &Arrow) -> Option<String> {
        let (own, used) = (room(&arrow.from), room(&arrow.to));
        let allows = |(room, allowed): &(&str, &[&str])| *room == own && allowed.contains(&used);
        let fine = own == used || self.rooms.iter().any(allows);
        (!fine).then(|| format!("{own} may not use {used}"))
    }

    fn between_ops(&self, arrow: &Arrow) -> Option<String> {
        let used = op(&arrow.to)?;
        if !arrow.from.starts_with("ops/") || self.reductions.contains(&used) {
            return None;
        }
        let Some(own) = op(&arrow.from).filter(|own| !self.reductions.contains(own)) else {
            let shows_them = arrow.from == "ops/mod.rs";
            return (!shows_them).then(|| format!("what ops share may not use the op {used}"));
        };
        if own == used || own == self.chains {
            return None;
        }
        if arrow.to.ends_with("/cpu.rs") || arrow.to.ends_with("/cuda.rs") {
            return Some(format!("{own} may not use the inside of the op {used}"));
        }
        let fine = self.ops.contains(&(own, used));
        (!fine).then(|| format!("the op {own} may not use the op {used}"))
    }

    /// Rooms that the tables lack, and what they name or allow without need.
    pub fn beside_the_facts(&self, arrows: &BTreeSet<Arrow>, files: &Files) -> Vec<String> {
        let has = |own: &str| own == "lib" || self.rooms.iter().any(|(room, _)| *room == own);
        let unknown = files.keys().filter(|file| !has(room(file)));
        let mut wrong: Vec<_> =
            unknown.map(|file| format!("{file} is in no room of the table")).collect();
        for (own, allowed) in self.rooms {
            if !files.keys().any(|file| room(file) == *own) {
                wrong.push(format!("{own} is no room"));
            }
            let uses = |used: &str| {
                arrows.iter().any(|arrow| room(&arrow.from) == *own && room(&arrow.to) == used)
            };
            let idle = allowed.iter().filter(|used| !uses(used));
            wrong.extend(idle.map(|used| format!("{own} does not use {used}")));
        }
        for (own, used) in self.ops {
            let uses = |arrow: &Arrow| op(&arrow.from) == Some(own) && op(&arrow.to) == Some(used);
            if !arrows.iter().any(uses) {
                wrong.push(format!("the op {own} does not use the op {used}"));
            }
        }
        wrong
    }
}
