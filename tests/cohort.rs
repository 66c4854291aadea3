//! Cohorts through the library: what comes out is what the explainer gives for each image alone.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;
#[path = "cohort/journal.rs"]
mod journal;
#[path = "cohort/sources.rs"]
mod sources;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use medcam::cohort::{Cancel, Case, Cohort, Explained, Folder, Threads};
use medcam::volumes::{self, Card, MapType};
use medcam::{Device, Explainer, LayerChoice, MapSize, Request, Settings, Target, to_tensor};
use ndarray::ArrayD;
use proptest::prelude::*;

use common::folder as setup_folder;

fn network(file: &str) -> PathBuf {
    setup_folder("MEDCAM_NETWORKS").join(file)
}

fn settings() -> Settings {
    let layers = LayerChoice::Full;
    Settings { layers, targets: vec![Target::Best, Target::Class(0)], ..Settings::default() }
}

fn explainer() -> Explainer<medcam::Model> {
    let model = medcam::load(network("plain2d.traced.pt"), Device::Cpu).unwrap();
    Explainer::new(model, settings()).unwrap()
}

/// Images of different sizes; the third has a NaN and the sixth too many channels.
fn images(folder: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|i| {
            let shape = vec![1, if i == 5 { 4 } else { 3 }, 24 + i % 3, 31];
            let mut values = ArrayD::from_shape_fn(shape, |at| {
                ((at[1] * 5 + at[2] * (i + 3) + at[3] * 7) % 23) as f32 / 23.0
            });
            if i == 2 {
                values[[0, 0, 1, 1]] = f32::NAN;
            }
            let path = folder.join(format!("x{i:02}.npy"));
            volumes::write_npy(&path, &values, MapType::F32).unwrap();
            path
        })
        .collect()
}

type Maps = Vec<(String, String, ArrayD<f32>)>;

fn maps(explanation: &medcam::Explanation) -> Maps {
    let of_map = |map: &medcam::AttentionMap| {
        (map.layer().to_owned(), map.target().to_owned(), map.to_array().unwrap())
    };
    explanation.maps.iter().map(of_map).collect()
}

/// The maps of each image alone.
fn one_by_one(images: &[PathBuf]) -> Vec<Result<Maps, String>> {
    let mut explainer = explainer();
    let mut explain = |path: &PathBuf| {
        let prepared = Card::default().prepare(&volumes::read(path)?, Some(2))?;
        let batch = to_tensor(&prepared.tensor, Device::Cpu, tch::Kind::Float)?;
        let size = Some(MapSize::Exact(prepared.grid.map_size()));
        Ok(maps(&explainer.explain(&batch, &Request { size, ..Request::default() })?))
    };
    let text = |error: medcam::Error| error.to_string();
    images.iter().map(|path| explain(path).map_err(text)).collect()
}

fn number(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn maps_are_those_of_each_image_alone(
        models in 1_usize..3,
        (readers, writers, in_flight) in (1_usize..3, 1_usize..4, 1_usize..7),
        in_order: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path(), 9);
        let expected = one_by_one(&images);
        let threads = Threads {
            readers: number(readers),
            writers: number(writers),
            in_flight: number(in_flight),
        };
        let explainers = (0..models).map(|_| explainer()).collect();
        let mut cohort =
            Cohort::new(explainers, None).unwrap().threads(threads).in_order(in_order);
        let cases: Vec<_> = images.iter().map(|i| Case::new(volumes::stem_of(i), i)).collect();
        let keep = |explained: Explained<'_>| Ok(maps(&explained.explanation));
        let mut came = Vec::new();
        cohort.run(cases, &keep, &Cancel::default(), |finished| {
            let index = finished.index;
            assert_eq!(finished.case.image, images[index]);
            match (&finished.kept, &expected[index]) {
                (Ok(maps), Ok(alone)) => assert_eq!(maps, alone),
                // The pipeline adds the name of the file, and what to do about it.
                (Err(error), Err(alone)) => assert!(error.to_string().contains(alone.as_str()), "{error}"),
                other => panic!("{index}: {other:?}"),
            }
            came.push(index);
            Ok(())
        }).unwrap();
        prop_assert_eq!(expected.iter().filter(|maps| maps.is_err()).count(), 2);
        if !in_order {
            came.sort_unstable();
        }
        prop_assert_eq!(came, (0..9).collect::<Vec<_>>());
    }
}

#[test]
fn a_folder_has_the_files_of_each_case() {
    let folder = tempfile::tempdir().unwrap();
    let images = images(folder.path(), 2);
    let output = folder.path().join("maps");
    let sink = Folder::new(&output, &settings()).output(true).keep_maps(true);
    let mut cohort = Cohort::new(vec![explainer()], None).unwrap();
    // A name and targets of its own.
    let first = Case::new("one", &images[0]).targets([Target::Class(1)]);
    let cases = [first, Case::new("two", &images[1])];
    let mut kept = Vec::new();
    cohort
        .run(cases, &sink, &Cancel::default(), |finished| {
            kept.push(finished.kept.unwrap());
            Ok(())
        })
        .unwrap();
    assert_eq!(kept[0].done.explained.len(), 1);
    assert_eq!(kept[1].done.explained.len(), 2);
    for layer in &kept[0].layers {
        let maps: Vec<_> = kept[0].maps.iter().filter(|map| map.layer() == layer).collect();
        let written = volumes::read_npy(output.join(layer).join("one.npy")).unwrap();
        assert_eq!(written, maps[0].to_array().unwrap());
        assert!(output.join(layer).join("two_best.npy").exists());
        assert!(output.join(layer).join("two_class0.npy").exists());
    }
    assert!(output.join("one_output.npy").exists() && output.join("two_output.npy").exists());
}

#[test]
fn ids_stay_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let images = images(folder.path(), 1);
    let sink = Folder::new(folder.path().join("maps"), &settings());
    let mut cohort = Cohort::new(vec![explainer()], None).unwrap();
    for id in ["../out", "a/b", "", ".."] {
        cohort
            .run([Case::new(id, &images[0])], &sink, &Cancel::default(), |finished| {
                assert!(finished.kept.unwrap_err().to_string().contains("part of a path"));
                Ok(())
            })
            .unwrap();
    }
    assert!(!folder.path().join("out").exists());
}
