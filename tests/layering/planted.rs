//! Words, includes, stems and lengths: what each rule must catch.

use super::planted_arrows::crate_of;
use super::tree::Files;
use super::{includes, stems, too_long, words};

#[test]
fn words_out_of_place_are_seen() {
    let table: [words::Words<'_>; 1] = [(&["unsafe", "tch"], &["torch", "ops/*/cuda.rs"])];
    let misplaced = |file: &str, text: &str| {
        let torch = ("torch/mod.rs", "use tch::Tensor;");
        let launcher = ("ops/one/cuda.rs", "unsafe fn f() {}");
        words::misplaced(&crate_of(&[torch, launcher, (file, text)]), &table)
    };
    for text in [
        "// unsafe tch",
        "/// tch::Tensor, unsafe",
        "fn f() -> &'static str { \"unsafe\" }",
        "#![forbid(unsafe_code)]",
        "fn f() { x.tch_; }",
    ] {
        assert!(misplaced("ops/one/cpu.rs", text).is_empty(), "{text}");
    }
    for text in [
        "fn f() { unsafe { g() } }",
        "call!(unsafe { x });",
        "use tch as t;",
        "unsafe impl X for Y {}",
    ] {
        assert_eq!(misplaced("ops/one/cpu.rs", text).len(), 1, "{text}");
        assert_eq!(misplaced("torches.rs", text).len(), 1, "{text}");
    }
    let idle = words::misplaced(&crate_of(&[("torch/mod.rs", "use tch::X;")]), &table);
    assert_eq!(idle, ["ops/*/cuda.rs needs none of [\"unsafe\", \"tch\"]"]);
}

const SHIM: [(&str, &str); 4] = [
    ("src/torch/shim/shim.h", "void run();"),
    ("src/torch/shim/run.cpp", "#include \"shim.h\"\n  # include \"graph.h\" // why"),
    ("src/torch/shim/graph.h", "#pragma once\n#include <vector>"),
    ("src/torch/shim/graph.cpp", "#include \"graph.h\""),
];

#[test]
fn circles_of_includes_are_seen() {
    let judge =
        |more: &[(&str, &str)]| includes::judge(&crate_of(&[&SHIM, more].concat())).join("\n");
    assert_eq!(judge(&[]), "");
    let files = [
        ("kernels/lib/a.cuh", "#include \"lib/b.cuh\""),
        ("kernels/lib/b.cuh", "#include \"a.cuh\""),
    ];
    assert!(judge(&files).contains("a circle"));
    let own_source = ("src/torch/shim/graph.h", "#include \"graph.cpp\"");
    assert!(judge(&[own_source]).contains("a circle"));
    // The header of one includes the other's, whose source includes the first one's.
    let of_stems = [
        ("src/torch/shim/a.h", "#include \"graph.h\""),
        ("src/torch/shim/graph.cpp", "#include \"graph.h\"\n#include \"a.h\""),
    ];
    assert!(judge(&of_stems).contains("a circle"));
    assert!(judge(&[("kernels/a.cu", "#include \"lib/lost.cuh\"")]).contains("no file"));
}

#[test]
fn a_header_without_its_source_is_seen() {
    let wrong = |more: (&str, &str), alone: &[&str]| {
        includes::without_twin(&crate_of(&[&SHIM[..], &[more]].concat()), alone)
    };
    let more = ("src/torch/shim/tape.cpp", "#include \"shim.h\"");
    assert!(wrong(more, &["shim.h"]).is_empty());
    assert_eq!(wrong(("src/torch/shim/tape.h", ""), &["shim.h"]).len(), 1);
    assert_eq!(wrong(("src/torch/shim/tape.cpp", ""), &["shim.h"]).len(), 1);
    assert_eq!(wrong(more, &[]).len(), 1, "shim.h is alone");
    assert_eq!(wrong(more, &["shim.h", "graph.h"]).len(), 1, "graph.h is not alone");
    assert_eq!(wrong(more, &["shim.h", "lost.h"]).len(), 1);
}

const OP: [(&str, &str); 15] = [
    (
        "benches/ops.rs",
        "#[path = \"ops/one.rs\"] mod one; mod two; const C: &[C] = &[one::cases, two::cases];",
    ),
    ("benches/ops/one.rs", ""),
    ("benches/ops/two.rs", ""),
    ("kernels/README.md", "| `one` | `one` | a thread | read |"),
    ("kernels/one.cu", ""),
    ("src/ops/one/cpu.rs", ""),
    ("src/ops/one/cuda.rs", "static P: &str = include_str!(\"../../../kernels/one.cu\");"),
    ("src/ops/one/mod.rs", ""),
    ("tests/cuda.rs", "mod one; mod two;"),
    ("tests/cuda/devices.rs", "(\"one\", &[\"map\"]),"),
    ("tests/cuda/one.rs", ""),
    ("tests/cuda/two.rs", ""),
    ("tests/ops.rs", "mod one; mod two;"),
    ("tests/ops/one.rs", ""),
    ("tests/ops/two.rs", ""),
];

/// An op that has no kernel.
const TWO: [(&str, &str); 3] =
    [("src/ops/two/cpu.rs", ""), ("src/ops/two/cuda.rs", ""), ("src/ops/two/mod.rs", "")];

#[test]
fn a_missing_stem_is_seen() {
    let all = crate_of(&[&OP[..], &TWO].concat());
    let missing = |files: &Files| stems::missing(files, &["two"], &[]);
    assert!(missing(&all).is_empty(), "{:?}", missing(&all));
    for file in all.keys() {
        let mut fewer = all.clone();
        fewer.remove(file);
        assert!(!missing(&fewer).is_empty(), "{file}");
    }
    for (file, text) in [
        ("benches/ops.rs", "mod two; /* mod one; */ const C: &[C] = &[one::cases, two::cases];"),
        ("benches/ops.rs", "mod one; mod two; const C: &[C] = &[two::cases];"),
        ("tests/ops.rs", "mod one { } mod two;"),
        ("src/ops/one/cuda.rs", "// include_str!(\"../../../kernels/one.cu\")"),
        ("kernels/README.md", "`one`, which has no row"),
        ("tests/cuda/devices.rs", "\"one\" => launch(),"),
        ("kernels/three.cu", ""),
        ("kernels/two.cu", ""),
        ("src/ops/three/mod.rs", ""),
    ] {
        let mut other = all.clone();
        other.insert(file.to_owned(), text.to_owned());
        assert!(!missing(&other).is_empty(), "{file}: {text}");
    }
}

#[test]
fn a_shared_reduction_needs_its_folder_and_its_header() {
    let mut files = crate_of(&OP);
    files.insert("src/ops/sums/mod.rs".to_owned(), String::new());
    let missing = |files: &Files| stems::missing(files, &[], &["sums"]);
    assert_eq!(missing(&files), ["kernels/lib/sums.cuh"]);
    files.insert("kernels/lib/sums.cuh".to_owned(), String::new());
    assert!(missing(&files).is_empty(), "{:?}", missing(&files));
    files.remove("src/ops/sums/mod.rs");
    assert_eq!(missing(&files), ["src/ops/sums/mod.rs"]);
}

#[test]
fn a_file_that_is_too_long_is_seen() {
    let fine = "\n".repeat(400);
    assert!(too_long(&crate_of(&[("src/a.rs", &fine)])).is_empty());
    assert_eq!(too_long(&crate_of(&[("src/a.rs", &(fine + "x"))])), ["src/a.rs: 401 lines"]);
}
