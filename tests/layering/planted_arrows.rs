//! Arrows, circles and the tables of rooms and ops, on small crates made for one case each.

use std::collections::BTreeSet;

use super::arrows::arrows;
use super::rules::{Tables, room};
use super::tree::Files;

pub fn crate_of(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
}

const LIB: &str = "mod error; mod inject; mod low; mod torch;
    pub use error::Error; pub use inject::Options as Settings; pub use torch::*;";

/// A crate in which `low/deep.rs` has the text.
fn with_deep(text: &str) -> Files {
    crate_of(&[
        ("lib.rs", LIB),
        ("error.rs", "pub struct Error; pub enum Kind { Usage }"),
        ("inject/mod.rs", "mod options; pub use options::Options;"),
        ("inject/options.rs", "pub struct Options;"),
        ("low/mod.rs", "mod deep; pub fn help() {}"),
        ("low/deep.rs", text),
        ("torch/mod.rs", "mod tape; pub use tape::{Run, Tape}; pub const ON: bool = true;"),
        ("torch/tape.rs", "pub struct Tape; pub trait Run {} include!(\"made.rs\");"),
    ])
}

/// The other rooms that a text in `low/deep.rs` uses.
fn rooms_used(text: &str) -> String {
    let arrows = arrows(&with_deep(text));
    let rooms =
        arrows.iter().filter(|arrow| arrow.from == "low/deep.rs").map(|arrow| room(&arrow.to));
    let rooms: BTreeSet<_> = rooms.filter(|room| *room != "low").collect();
    Vec::from_iter(rooms).join(" ")
}

/// The files that define what a text in `low/deep.rs` uses.
fn files_used(text: &str) -> String {
    let arrows = arrows(&with_deep(text));
    let from_deep = arrows.iter().filter(|arrow| arrow.from == "low/deep.rs");
    let files: BTreeSet<_> =
        from_deep.filter(|arrow| arrow.nodes.is_some()).map(|arrow| arrow.to.as_str()).collect();
    Vec::from_iter(files).join(" ")
}

#[test]
fn imports_are_arrows() {
    for (text, rooms) in [
        ("use crate::torch::Tape;", "torch"),
        ("use crate::torch;", "torch"),
        ("use crate::{error, torch::{self, Tape}};", "error torch"),
        ("use crate::{error::{Kind::{self, *}}, torch as t};", "error torch"),
        ("fn f() { use crate::{torch::ON}; }", "torch"),
        ("pub use crate::torch::Tape;", "torch"),
        ("use super::super::torch::Tape;", "torch"),
        ("mod inner { use super::super::super::{torch}; }", "torch"),
        ("use self::super::super::torch::ON;", "torch"),
        ("#[cfg(test)] mod tests { use crate::torch::Tape; }", "torch"),
    ] {
        assert_eq!(rooms_used(text), rooms, "{text}");
    }
}

#[test]
fn paths_in_code_are_arrows() {
    for text in [
        "fn f() -> bool { crate::torch::ON }",
        "fn f(x: &dyn Fn(Vec<crate::torch::Tape>)) {}",
        "impl crate::torch::Run for u8 {}",
        "fn f() { <crate::torch::Tape as Default>::default(); }",
        "fn f(x: impl Iterator<Item = super::super::torch::Tape>) {}",
        "fn f() { println!(\"{}\", 1..crate::torch::ON); }",
        "fn f() { crate::torch::later!(); }",
        "fn f() { later! { use crate::{torch::{ON}}; } }",
        "macro_rules! m { () => { Vec::<$crate::torch::Tape>::new() } }",
        "#[serde(with = \"crate::torch\")] struct S;",
        "#[arg(value_parser = crate::torch::ON)] struct S;",
        "use super::super as top; fn f(x: top::torch::Tape) {}",
    ] {
        assert_eq!(rooms_used(text), "torch", "{text}");
    }
}

#[test]
fn names_that_the_crate_shows_lead_to_their_rooms() {
    for (text, rooms) in [
        ("use crate::Settings;", "inject"),
        ("fn f(x: crate::Error) -> crate::Tape {}", "error torch"),
        ("use crate as all; fn f(x: all::Settings) {}", "inject"),
        ("use crate::*;", "error inject torch"),
        ("fn f() { crate::nothing(); }", "lib"),
    ] {
        assert_eq!(rooms_used(text), rooms, "{text}");
    }
}

#[test]
fn comments_strings_and_other_crates_are_no_arrows() {
    for text in [
        "/// [`crate::torch`]\nfn f() {}",
        "//! ```\n//! use crate::torch::Tape;\n//! ```",
        "// crate::torch::ON\nfn f() -> &'static str { \"crate::torch::ON\" }",
        "pub(in crate::low) fn f() {}",
        "use torch::Tape; fn f(x: &X) { x.torch(); }",
        "fn f() { assert!(x.torch::<u8>(), <u8>::torch::ON); }",
    ] {
        assert_eq!(rooms_used(text), "", "{text}");
    }
}

#[test]
fn arrows_go_to_the_file_that_defines_a_name() {
    for (text, files) in [
        ("use crate::torch::Tape;", "torch/tape.rs"),
        ("use crate::torch; fn f(x: torch::Tape) {}", "torch/tape.rs"),
        ("use crate::torch; fn f(x: bool) { x == torch::ON; }", "torch/mod.rs"),
        ("use crate::torch as t; fn f() { assert!(<u8>::t::ON, x.t::<u8>(), x.t::ON); }", ""),
        ("use super::*; fn f() { help(); }", "low/mod.rs"),
        ("fn f() { crate::torch::tape::made(); }", "torch/tape.rs"),
        ("fn f() { crate::error::Kind::Usage; }", "error.rs"),
    ] {
        assert_eq!(files_used(text), files, "{text}");
    }
}

#[test]
fn a_path_attribute_is_followed() {
    let arrows = arrows(&crate_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "#[path = \"../odd/one.rs\"] mod one; mod x { #[path = \"two.rs\"] mod y; }"),
        ("odd/one.rs", "use super::super::b::X;"),
        ("a/x/two.rs", "use super::super::super::b::X;"),
        ("b.rs", "pub struct X;"),
    ]));
    for file in ["odd/one.rs", "a/x/two.rs"] {
        assert!(arrows.iter().any(|arrow| arrow.from == file && arrow.to == "b.rs"), "{file}");
    }
}

#[test]
#[should_panic(expected = "no module declares")]
fn a_file_that_no_module_declares_is_seen() {
    arrows(&crate_of(&[("lib.rs", ""), ("lost.rs", "")]));
}

const TABLES: Tables<'_> = Tables {
    rooms: &[("a", &["b"]), ("b", &[]), ("ops", &[])],
    reductions: &["sums"],
    chains: "fused",
    ops: &[("one", "two")],
};

/// What the rules say of a crate, once for each pair of files.
fn judge(files: &[(&str, &str)], known: &[(&str, &str)]) -> String {
    let said = TABLES.judge(&arrows(&crate_of(files)), known).join("\n");
    let without_line = |line: &str| {
        let (file, rest) = line.split_once(':').unwrap_or((line, ""));
        format!("{file}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
    };
    Vec::from_iter(said.lines().map(without_line).collect::<BTreeSet<_>>()).join("\n")
}

#[test]
fn rooms_keep_to_their_table() {
    let lib = ("lib.rs", "mod a; mod b;");
    let (a, b) = (("a.rs", "pub struct A; use crate::b::B;"), ("b.rs", "pub struct B;"));
    assert_eq!(judge(&[lib, a, b], &[]), "");
    let b = ("b.rs", "pub struct B; fn f() { crate::a::A; }");
    let said = judge(&[lib, ("a.rs", "pub struct A;"), b], &[]);
    assert_eq!(said, "b.rs -> a.rs: b may not use a");
}

#[test]
fn a_table_that_says_too_much_or_too_little_is_seen() {
    let files =
        crate_of(&[("lib.rs", "mod a; mod b; mod c;"), ("a.rs", ""), ("b.rs", ""), ("c.rs", "")]);
    let wrong = [
        "c.rs is in no room of the table",
        "a does not use b",
        "ops is no room",
        "the op one does not use the op two",
    ];
    assert_eq!(TABLES.beside_the_facts(&arrows(&files), &files), wrong);
}

/// A crate of ops, in which a file has the text.
fn with_op(file: &str, text: &str) -> String {
    let mut files = vec![
        ("lib.rs", "mod ops;"),
        ("ops/mod.rs", "pub mod fused; mod launch; pub mod one; mod sums; pub mod two;"),
        ("ops/fused/mod.rs", ""),
        ("ops/launch.rs", "pub fn launch() {}"),
        ("ops/one/mod.rs", "mod cpu; pub struct One;"),
        ("ops/one/cpu.rs", ""),
        ("ops/sums/mod.rs", "pub mod cpu; pub struct Sums;"),
        ("ops/sums/cpu.rs", "pub fn sums() {}"),
        ("ops/two/mod.rs", "pub mod cpu; pub mod rows; pub struct Two;"),
        ("ops/two/cpu.rs", "pub fn two() {}"),
        ("ops/two/rows.rs", "pub struct Rows;"),
    ];
    let old = files.iter_mut().find(|(name, _)| *name == file).unwrap();
    let text = format!("{} {text}", old.1);
    old.1 = &text;
    judge(&files, &[])
}

#[test]
fn ops_keep_to_their_table() {
    for (file, text) in [
        ("ops/one/mod.rs", "use super::two::{Two, rows::Rows};"),
        ("ops/one/cpu.rs", "use crate::ops::{launch::launch, sums::{Sums, cpu::sums}};"),
        ("ops/fused/mod.rs", "use super::two::cpu::two;"),
        ("ops/mod.rs", "pub use two::Two; fn f() { two::cpu::two(); }"),
        ("ops/one/cpu.rs", "#[cfg(test)] mod tests { use crate::ops::two::cpu::two; }"),
    ] {
        assert_eq!(with_op(file, text), "", "{file}: {text}");
    }
    for (file, text, said) in [
        ("ops/two/rows.rs", "use crate::ops::one::One;", "the op two may not use the op one"),
        ("ops/one/cpu.rs", "use super::super::two::cpu;\nfn f() { cpu::two() }", "the inside of"),
        (
            "ops/two/cpu.rs",
            "fn f(x: crate::ops::fused::X) {}",
            "the op two may not use the op fused",
        ),
        ("ops/launch.rs", "use super::{one::One};", "what ops share may not use the op one"),
        ("ops/sums/cpu.rs", "use crate::ops::two::Two;", "what ops share may not use the op two"),
    ] {
        assert!(with_op(file, text).contains(said), "{file}: {text}: {}", with_op(file, text));
    }
}

const CIRCLE: [(&str, &str); 4] = [
    ("lib.rs", "mod a;"),
    ("a/mod.rs", "mod x; mod y; pub use x::X; pub use y::Y;"),
    ("a/x.rs", "use super::Y; pub struct X;"),
    ("a/y.rs", "pub struct Y(crate::a::X);"),
];

#[test]
fn circles_of_files_are_seen() {
    let said = "a/x.rs -> a/y.rs: part of a circle\na/y.rs -> a/x.rs: part of a circle";
    assert_eq!(judge(&CIRCLE, &[]), said);
    let three = judge(
        &[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod x; mod y; mod z;"),
            ("a/x.rs", "use super::y::Y; pub struct X;"),
            ("a/y.rs", "use super::z::Z; pub struct Y;"),
            ("a/z.rs", "use super::{x::{X}}; pub struct Z;"),
        ],
        &[],
    );
    assert_eq!(three.lines().count(), 3, "{three}");
}

#[test]
fn circles_of_folders_are_seen() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod x; mod y;"),
        ("a/x/mod.rs", "pub mod up; pub mod down;"),
        ("a/x/up.rs", "use crate::a::y::low::Low;"),
        ("a/x/down.rs", "pub struct Down;"),
        ("a/y.rs", "pub mod low; pub use crate::a::x::down::Down;"),
        ("a/y/low.rs", "pub struct Low;"),
    ];
    let said = "a/x/up.rs -> a/y/low.rs: part of a circle\na/y.rs -> a/x/down.rs: part of a circle";
    assert_eq!(judge(&files, &[]), said);
}

#[test]
fn a_module_and_its_children_are_a_circle_only_through_one_item() {
    let with = |parent: &str, child: &str| {
        let parent = format!("mod x; use x::{{made, Made}}; {parent}");
        let child = format!("pub fn made() {{}} pub struct Made; {child}");
        judge(&[("lib.rs", "mod a;"), ("a/mod.rs", &parent), ("a/x.rs", &child)], &[])
    };
    for (parent, child) in [
        ("pub struct Kind; pub fn front() { made() }", "use super::Kind;"),
        ("pub use x::Made as Shown;", "use super::Shown; fn f(x: crate::a::Shown) {}"),
        ("pub fn front() { made() }", "#[cfg(test)] mod tests { use super::super::front; }"),
    ] {
        assert_eq!(with(parent, child), "", "{parent} {child}");
    }
    for (parent, child) in [
        ("pub fn front() { made() }", "fn f() { super::front() }"),
        ("pub struct Kind; impl Kind { fn f() { made() } }", "fn f(x: super::Kind) {}"),
        ("pub fn one() { two() } fn two() { x::made() }", "use crate::a::one;"),
    ] {
        assert!(with(parent, child).contains("circle"), "{parent} {child}");
    }
}

#[test]
fn what_is_known_is_let_through_until_it_is_mended() {
    assert_eq!(judge(&CIRCLE, &[("a/x.rs", "a/y.rs")]), "");
    let mut mended = CIRCLE;
    mended[2].1 = "pub struct X;";
    let said = judge(&mended, &[("a/x.rs", "a/y.rs")]);
    assert!(said.starts_with("a/x.rs -> a/y.rs is fine now"), "{said}");
}
