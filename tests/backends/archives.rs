//! What remains of forwards, also of failed ones: archives, names, scores.

use std::path::Path;

use medcam::evaluation::{Masks, Metric, Scoring, Threshold};
use medcam::tch::Tensor;
use medcam::{Call, Injected, Model, Options, Target, inject};
use ndarray::{ArrayD, Axis};
use ndarray_npy::NpzReader;

use crate::common::{model, tensor};

const NETWORK: &str = "plain2d.traced.pt";

fn injected(options: Options) -> Injected<Model> {
    crate::injected(NETWORK, options.target(Target::Class(1)))
}

fn input() -> Tensor {
    tensor("plain2d.input.npy")
}

fn entries(archive: &Path) -> Vec<String> {
    let file = std::fs::File::open(archive).unwrap();
    let mut names = NpzReader::new(file).unwrap().names().unwrap();
    names.sort();
    names
}

fn files(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let names = std::fs::read_dir(folder).unwrap().map(name);
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn scoring() -> Scoring {
    Scoring::new(vec![Metric::Iou], Threshold::Otsu).masks(Masks::Binary)
}

#[test]
fn a_call_has_a_name_or_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.npz");
    let options = Options::default().save_archive(&file).save_maps(folder.path());
    let mut injected = injected(options.evaluate(scoring()));
    let mask = ArrayD::ones(vec![3, 1, 33, 47]);
    let call = Call::default().mask(&mask);
    let mut run = |call: &Call| injected.forward_with(&input(), call).map(|_| ());
    run(&call.clone().name("scan-1")).unwrap();
    run(&Call::default()).unwrap_err();
    // Numbered as the third call: the failed one counts.
    run(&call).unwrap();
    let error = run(&call.clone().name("scan-1")).unwrap_err().to_string();
    assert!(error.contains("'scan-1/features/class1' already"), "{error}");
    run(&call.clone().name("scan-1").target(Target::Class(2))).unwrap();
    for name in ["", ".", "..", "a/b", "a\\b", "a\0"] {
        let error = run(&call.clone().name(name)).unwrap_err().to_string();
        assert!(error.contains("name: ") && error.contains("part of a path"), "{error}");
    }
    let names: Vec<_> =
        injected.evaluator().unwrap().scores().iter().map(|score| score.name.clone()).collect();
    let expected = ["scan-1", "000002", "scan-1"].map(|n| [0, 1, 2].map(|b| format!("{n}_{b}")));
    assert_eq!(names, expected.concat());
    injected.dump().unwrap();
    let expected = ["000002/features/class1", "scan-1/features/class1", "scan-1/features/class2"];
    assert_eq!(entries(&file), expected);
    assert_eq!(files(&folder.path().join("features")), ["000002.npy", "scan-1.npy"]);
}

#[test]
fn an_archive_without_maps_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.npz");
    std::fs::write(&file, "older").unwrap();
    let options = || Options::default().save_archive(&file);
    let mut failing = injected(options());
    failing.forward(&(input() * f64::NAN)).unwrap_err();
    assert!(failing.dump().unwrap().is_empty());
    // A dropped archive replaces nothing either.
    let mut dropped = injected(options());
    let _output = dropped.forward(&input()).unwrap();
    assert_eq!(files(folder.path()).len(), 2);
    drop(dropped);
    assert_eq!(files(folder.path()), ["maps.npz"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "older");
}

#[test]
fn two_that_write_one_archive_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maps.npz");
    let [mut one, mut other] = [(); 2].map(|()| injected(Options::default().save_archive(&file)));
    let run = |injected: &mut Injected<Model>, name: &str| {
        let _output = injected.forward_with(&input(), &Call::default().name(name)).unwrap();
    };
    run(&mut one, "a");
    run(&mut other, "b");
    run(&mut one, "c");
    one.dump().unwrap();
    assert_eq!(entries(&file), ["a/features/class1", "c/features/class1"]);
    other.dump().unwrap();
    assert_eq!(entries(&file), ["b/features/class1"]);
    assert_eq!(files(folder.path()), ["maps.npz"]);
}

#[test]
fn a_failed_forward_has_no_scores() {
    let folder = tempfile::tempdir().unwrap();
    let maps = folder.path().join("maps");
    let mut injected = injected(Options::default().evaluate(scoring()).save_maps(&maps));
    let good = ArrayD::ones(vec![3, 1, 33, 47]);
    let mut bad = good.clone();
    bad.index_axis_mut(Axis(0), 1).fill(0.5);
    let mut run = |mask, failing: bool| {
        let result = injected.forward_with(&input(), &Call::default().mask(mask));
        assert_eq!(result.is_err(), failing);
        (injected.scores().len(), injected.evaluator().unwrap().scores().len())
    };
    assert_eq!(run(&good, false), (3, 3));
    // Even the first sample, whose mask is valid, keeps no score.
    assert_eq!(run(&bad, true), (0, 3));
    assert_eq!(run(&good, false), (3, 6));
    std::fs::remove_dir_all(&maps).unwrap();
    std::fs::write(&maps, "a file").unwrap();
    assert_eq!(run(&good, true), (0, 6));
}

#[test]
fn an_archive_needs_a_name() {
    for path in ["", "/", ".", ".."] {
        let options = Options::default().save_archive(path);
        let error = inject(model(NETWORK), options).map(|_| ()).unwrap_err();
        assert!(error.is_usage(), "{error}");
        assert!(error.to_string().contains("is no name for a file"), "{error}");
    }
}

#[test]
fn no_map_is_returned_while_maps_are_off() {
    let mut injected = injected(Options::default().enabled(false));
    let error = injected.forward_with_attention(&input()).unwrap_err().to_string();
    assert!(error.contains("switched off"), "{error}");
}

#[test]
fn the_image_of_a_call_is_that_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut injected = injected(Options::default().save_maps(folder.path()));
    let prepared = |shape: &[usize]| {
        let image = medcam::volumes::Input::Array(ArrayD::zeros(shape));
        medcam::volumes::Card::default().prepare(&image, Some(2)).unwrap()
    };
    let own = prepared(&[3, 3, 33, 47]);
    let _output = injected.forward_with(&input(), &Call::default().image(&own)).unwrap();
    assert_eq!(files(&folder.path().join("features")), ["000000.npy"]);
    let other = prepared(&[1, 3, 33, 47]);
    let error = injected.forward_with(&input(), &Call::default().image(&other)).unwrap_err();
    assert!(error.is_input(), "{error}");
    assert!(error.to_string().contains("[3, 3, 33, 47], but the image was prepared to"), "{error}");
}
