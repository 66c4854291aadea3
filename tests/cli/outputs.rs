//! Models that return several tensors.

use super::run::{ProcessOutput, Workspace, network, program};
use crate::common::{Several, array, difference};

#[test]
fn the_output_to_be_explained_is_chosen_by_number_or_name() {
    let several = Several::read();
    let input = [network(&several.input)];
    for (file, choice, head) in [
        ("several.TupleOf.traced.pt", "", "main"),
        ("several.TupleOf.traced.pt", "--explain-output 1", "coarse"),
        ("several.ListOf.scripted.pt", "--explain-output 2", "image"),
        ("several.DictOf.traced.pt", "--explain-output aux", "coarse"),
        ("several.DictOf.scripted.pt", "", "main"),
    ] {
        let workspace = Workspace::new();
        let options = format!("--label 1 --layer stem --save-output {choice}");
        workspace.map(&network(file), &input, &options).succeeded();
        let expected = &several.heads[&format!("{head}.logits")];
        let map = workspace.npy("stem/several.input.npy");
        assert!(difference(&map, &array(&expected.maps["stem"])) <= 1e-5, "{file} {choice}");
        let output = workspace.npy("several.input_output.npy");
        assert!(difference(&output, &array(&expected.output)) <= 1e-5, "{file} {choice}");
        let asked = choice.split(' ').nth(1).map_or(serde_json::Value::Null, Into::into);
        assert_eq!(workspace.report()["options"]["model"]["explain_output"], asked);
    }
}

#[test]
fn what_is_no_output_is_refused() {
    let workspace = Workspace::new();
    let (model, input) = (network("several.DictOf.traced.pt"), [network("several.input.npy")]);
    let words = ["several.DictOf.traced.pt", "output 'auxiliary'", "1 'aux' [1, 3, 13, 16]"];
    workspace.map(&model, &input, "--explain-output auxiliary").failed(1, &words);
    workspace.map_with(&model, &input, ["--explain-output", ""]).failed(2, &["output ''"]);
    // A layer that only another output needs.
    workspace
        .map(&model, &input, "--layer coarse")
        .failed(1, &["layer 'coarse'", "--explain-output"]);

    let layers = |options: &[&str]| {
        let mut command = program();
        command.arg("layers").arg(&model).args(["--shape", "1,3,25,31"]).args(options);
        ProcessOutput::of(&mut command)
    };
    assert!(layers(&[]).succeeded().stdout.contains("Segmentation, output [1, 3, 25, 31]"));
    let image = layers(&["--explain-output", "image"]).succeeded();
    assert!(image.stdout.contains("Classification, output [1, 4]"), "{}", image.stdout);
    layers(&["--explain-output", "7"]).failed(1, &["output 7", "0 'out' [1, 3, 25, 31]"]);
}
