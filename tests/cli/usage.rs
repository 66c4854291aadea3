//! Arguments that are refused before anything is loaded or written, with exit code 2.

use super::run::{ProcessOutput, Workspace, network, program};

#[test]
fn options_that_make_no_sense() {
    let workspace = Workspace::new();
    let (model, input) = (network("plain2d.traced.pt"), [network("plain2d.input.npy")]);
    let mask = format!("--target-mask {}", input[0].display());
    let (all, predicted) = (format!("{mask} --label all"), format!("{mask} --label predicted:1"));
    for (options, word) in [
        ("--label worst", "expected best, all, each, N, predicted:N or components:N"),
        ("--label -1", "expected best, all, each, N, predicted:N or components:N"),
        ("--label predicted:", "expected best, all, each, N, predicted:N or components:N"),
        ("--label 18446744073709551616", "expected best"),
        (&all, "--target-mask goes with --label N or best"),
        (&predicted, "--target-mask goes with --label N or best"),
        ("--dtype f64", "expected f32 or u8"),
        ("--size 0,1,2", "expected input, layer or D,H,W"),
        ("--size 1,2", "expected input, layer or D,H,W"),
        ("--size 1,2,x", "expected input, layer or D,H,W"),
        ("--size -1,2,3", "expected input, layer or D,H,W"),
        ("--size 1,,2,3", "expected input, layer or D,H,W"),
        ("--threads 0", "1..=1024"),
        ("--threads -1", "1..=1024"),
        ("--threads 99999", "1..=1024"),
        ("--device tpu", "expected cpu, cuda or cuda:N"),
        ("--device cuda:x", "expected cpu, cuda or cuda:N"),
        ("--score sigmoid", "expected logits or output"),
        ("--compat monai", "expected none or m3dcam"),
        ("--backend gradcam", "expected one of gcam, gcampp, gbp, ggcam, hirescam, layercam"),
        ("--layer a,,b", "a name is empty"),
        ("--layer ,", "a name is empty"),
        ("--colour", "--colour"),
        ("--label 1,01", "--label: 01 is there twice"),
        ("--label best,best", "--label: best is there twice"),
        ("--backend gbp --layer features", "leave --layer out"),
        ("--backend gbp --layer full", "leave --layer out"),
        ("--guide all", "Grad-CAM guides nothing; leave --guide out"),
        ("--score logits --compat m3dcam", "leave --score out"),
    ] {
        workspace.map(&model, &input, options).failed(2, &[word]);
    }
    workspace.map_with(&model, &input, ["--layer", ""]).failed(2, &["a name is empty"]);
    workspace.map(&model, &[], "").failed(2, &["INPUT"]);
    ProcessOutput::of(program().arg("map").arg(&model).args(&input)).failed(2, &["--output"]);
    ProcessOutput::of(&mut program()).failed(2, &["Usage"]);
    ProcessOutput::of(program().arg("maps")).failed(2, &["maps"]);
}

#[test]
fn shapes_that_make_no_sense() {
    let model = network("plain2d.traced.pt");
    let list = |shape: &str| {
        ProcessOutput::of(program().arg("layers").arg(&model).args(["--shape", shape]))
    };
    for shape in ["a,b", "", "1,3,,4", "-1,3,4,4", "1x3x8x8"] {
        list(shape).failed(2, &["--shape"]);
    }
    list("1,3").failed(1, &["[1, 3]", "(B, C, H, W)"]);
    list("1,3,0,4").failed(1, &["[1, 3, 0, 4] is empty"]);
    list("1,1,8,8").failed(1, &["1 channel(s)", "takes 3"]);
    list("1,3,8,8,8").failed(1, &["5 axes", "takes 4"]);
    list("1,3,1,1").failed(1, &["[1, 3, 1, 1]", "too small"]);
    list("1,3,1000000000,1000000000").failed(1, &["--shape"]);
    list("18446744073709551615,3,9,9").failed(1, &["--shape"]);
    let both = ["--shape", "1,3,8,8", "--input", "a.png"];
    ProcessOutput::of(program().arg("layers").arg(&model).args(both))
        .failed(2, &["cannot be used with"]);
}

#[test]
fn inputs_that_would_write_the_same_files() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let (one, other) = (workspace.at("a/scan.npy"), workspace.at("b/scan.png"));
    workspace
        .map(&model, &[one, workspace.picture("p.png"), other], "")
        .failed(2, &["a/scan.npy", "b/scan.png", "different folders"]);
    let overlay = [workspace.picture("p.png"), workspace.picture("p_overlay.png")];
    workspace.map(&model, &overlay, "--picture").failed(2, &["p.png and ", "p_overlay.png"]);
    assert!(!workspace.at("maps").exists());
    workspace.map(&model, &overlay, "").succeeded();
}

#[test]
fn help_shows_examples() {
    for arguments in
        [&["--help"][..], &["map", "--help"], &["layers", "--help"], &["score", "--help"]]
    {
        let text = ProcessOutput::of(program().args(arguments)).succeeded().stdout;
        assert!(text.contains("Examples:\n  medcam "), "{text}");
    }
    let version = ProcessOutput::of(program().arg("--version")).succeeded().stdout;
    assert_eq!(version.trim(), concat!("medcam ", env!("CARGO_PKG_VERSION")));
}
