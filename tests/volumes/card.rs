//! The model card: what it accepts and how it refuses.

use medcam::volumes::{Card, Input, PerChannel, Step, Voxels};
use ndarray::{Array4, ArrayD, IxDyn};

fn refusal(text: &str) -> String {
    text.parse::<Card>().unwrap_err().to_string()
}

#[test]
fn the_documented_example_is_a_card() {
    let page = include_str!("../../docs/model-card.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let text = example.split("```").next().unwrap();
        text.parse::<Card>().unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
}

#[test]
fn every_step_is_read() {
    let card: Card = r#"
        [[intensity]]
        clip_percentiles = [0.5, 99.5]
        [[intensity]]
        clip = [-1000, 1000]
        [[intensity]]
        scale = [0, 1]
        [[intensity]]
        z_score = "nonzero"
        [[intensity]]
        affine = { multiply = 0.226, add = [0.449, 1] }
    "#
    .parse()
    .unwrap();
    let affine =
        Step::Affine { multiply: PerChannel::One(0.226), add: PerChannel::Each(vec![0.449, 1.0]) };
    let expected = [
        Step::ClipPercentiles([0.5, 99.5]),
        Step::Clip([-1000.0, 1000.0]),
        Step::Scale([0.0, 1.0]),
        Step::ZScore(Voxels::Nonzero),
        affine,
    ];
    assert_eq!(card.intensity, expected);
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let cases: &[(&str, &[&str])] = &[
        ("clases = []", &["line 1", "unknown field `clases`", "`classes`"]),
        ("[input]\norientatoin = \"RAS\"", &["line 2", "orientatoin", "`orientation`"]),
        ("[input]\nsize = [1, 2, 3]\nspacing_mm = [1, 1, 1]", &["exclude each other", "line 1"]),
        ("[input]\norientation = \"RAX\"", &["line 2", "\"RAX\"", "48 codes"]),
        ("[input]\norientation = \"RRS\"", &["\"RRS\""]),
        ("[input]\norientation = \"RA\"", &["\"RA\""]),
        ("[input]\nsize = \"128\"", &["line 2", "invalid type", "sequence"]),
        ("[input]\nsize = [128]", &["`size`", "got 1"]),
        ("[input]\nsize = [0, 1, 1]", &["`size`", "outside"]),
        ("[input]\nspacing_mm = [1, -1, 1]", &["`spacing_mm`", "above 0"]),
        ("[input]\ninterpolation = \"cubic\"", &["line 2", "`cubic`", "`nearest`"]),
        ("[[intensity]]", &["line 1", "intensity"]),
        ("[[intensity]]\nclip = [0, 1]\nscale = [0, 1]", &["line 1", "intensity"]),
        ("[[intensity]]\nclib = [0, 1]", &["line 2", "`clib`", "`clip`"]),
        ("[[intensity]]\nclip = [1, 0]", &["line 1", "low < high"]),
        ("[[intensity]]\nclip = [0, 1]\n[[intensity]]\nclip = [1, 0]", &["line 3", "low < high"]),
        ("[[intensity]]\nclip_percentiles = [1, 101]", &["line 1", "within 0 and 100"]),
        ("[[intensity]]\nz_score = \"some\"", &["line 2", "`some`", "`nonzero`"]),
        ("[[intensity]]\naffine = { mul = 1 }", &["line 2", "mul", "multiply, add"]),
        ("[[intensity]]\naffine = { add = \"x\" }", &["line 2", "expected a number"]),
    ];
    for (text, parts) in cases {
        let message = refusal(text);
        for part in *parts {
            assert!(message.contains(part), "{text:?} gave {message}, without {part:?}");
        }
    }
}

#[test]
fn steps_run_in_order_and_nothing_else_happens_to_an_array() {
    let card: Card = "[[intensity]]\nscale = [0, 1]".parse().unwrap();
    let array = ArrayD::from_elem(IxDyn(&[2, 1, 4, 5]), 7.0);
    let prepared = card.prepare(&Input::Array(array.clone()), Some(2)).unwrap();
    assert_eq!(prepared.tensor, array);
    let error = card.prepare(&Input::Array(array), Some(3)).unwrap_err().to_string();
    assert!(error.contains("[2, 1, 4, 5]") && error.contains("(B, C, D, H, W)"), "{error}");
}

#[test]
fn values_that_are_not_finite_are_counted_or_zeroed() {
    let mut array = Array4::<f32>::ones((1, 1, 2, 3));
    array[[0, 0, 1, 0]] = f32::NAN;
    array[[0, 0, 1, 2]] = f32::INFINITY;
    let input = Input::Array(array.into_dyn());
    let error = Card::default().prepare(&input, None).unwrap_err();
    assert!(error.is_input());
    let message = error.to_string();
    assert!(
        message.contains("2 of 6") && message.contains("NaN at index [0, 0, 1, 0]"),
        "{message}"
    );
    let card: Card = "[input]\nnan = \"zero\"".parse().unwrap();
    let tensor = card.prepare(&input, None).unwrap().tensor;
    assert_eq!(tensor.iter().copied().collect::<Vec<_>>(), [1., 1., 1., 0., 1., 0.]);
}
