//! The package gives the bits of the ops, over drawn shapes, layouts and types.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use medcam::element::{Element, MapElement};
use medcam::ops::{self, Denominator, Interpolation, Maps, Method, Recipe, Resize, View};
use medcam::{Layout, Shape};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::common::{shapes, values};
use crate::packages::{REPOSITORY, output_of, with_torch};

const METHODS: [(&str, &str, Method); 7] = [
    ("gradcam", "paper", Method::GradCam),
    ("gradcam++", "paper", Method::GradCamPlusPlus(Denominator::Paper)),
    ("gradcam++", "m3dcam", Method::GradCamPlusPlus(Denominator::M3dCam)),
    ("gradcam++", "paper+1e-6", Method::GradCamPlusPlus(Denominator::PaperEpsilon)),
    ("gradcam++", "m3dcam+1e-7", Method::GradCamPlusPlus(Denominator::M3dCamEpsilon)),
    ("hirescam", "paper", Method::HiResCam),
    ("layercam", "paper", Method::LayerCam),
];

trait Bytes: Sized {
    /// Values as the bytes that they are in memory.
    fn bytes(values: &[Self]) -> Vec<u8>;
}

impl Bytes for f32 {
    fn bytes(values: &[Self]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }
}

impl Bytes for f16 {
    fn bytes(values: &[Self]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }
}

impl Bytes for bf16 {
    fn bytes(values: &[Self]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }
}

impl Bytes for u8 {
    fn bytes(values: &[Self]) -> Vec<u8> {
        values.to_vec()
    }
}

struct Case {
    shape: Shape,
    layout: Layout,
    to: [usize; 3],
    seed: u64,
}

/// Writes the inputs of a case and what the ops make of them.
fn write<T, O>(folder: &Path, case: &Case, (dtype, out_dtype): (&str, &str)) -> serde_json::Value
where
    T: Element + Bytes,
    O: MapElement + Bytes,
{
    let Case { shape, layout, to, seed } = *case;
    fs::create_dir(folder).unwrap();
    let save = |name: &str, content: Vec<u8>| fs::write(folder.join(name), content).unwrap();
    let a = values::<T>(shape.elements(), 1.0, seed);
    let g = values::<T>(shape.elements(), 1.0, !seed);
    let guided = values::<f32>(shape.batch * to.iter().product::<usize>(), 1.0, seed / 3);
    save("activation", T::bytes(&a));
    save("gradient", T::bytes(&g));
    save("guided", f32::bytes(&guided));
    let activation = View::new(&a, shape, layout).unwrap();
    let gradient = View::new(&g, shape, layout).unwrap();
    for (i, (_, _, method)) in METHODS.into_iter().enumerate() {
        let recipe = Recipe { method, to: Some(to), normalized: true };
        let maps: Maps<O> = ops::cam(&activation, &gradient, &recipe).unwrap();
        save(&format!("cam{i}"), O::bytes(&maps.values));
        let maps: Maps<O> = ops::guided_cam(&activation, &gradient, &guided, &recipe).unwrap();
        save(&format!("guided_cam{i}"), O::bytes(&maps.values));
    }
    let weights = ops::channel_weights(&gradient).unwrap();
    save("channel_weights", f32::bytes(&weights));
    let mean = ops::channel_mean(&activation).unwrap();
    save("channel_mean", f32::bytes(&mean));
    save("weighted_sum", f32::bytes(&ops::weighted_sum(&weights, &activation).unwrap()));
    let resize = Resize { batch: shape.batch, from: shape.spatial, to };
    save("nearest", f32::bytes(&ops::resample(&mean, resize, Interpolation::Nearest).unwrap()));
    let mut normalized = mean;
    ops::normalize(&mut normalized, shape.batch).unwrap();
    save("normalized", f32::bytes(&normalized));
    json!({
        "folder": folder, "shape": [shape.batch, shape.channels], "grid": shape.spatial, "to": to,
        "channels_last": layout == Layout::ChannelsLast, "dtype": dtype, "out_dtype": out_dtype,
    })
}

#[test]
fn are_those_of_the_ops() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::new(Config::default());
    let drawn = (shapes(), 1_usize..12, 1_usize..30, 1_usize..30, proptest::bool::ANY);
    let mut cases = Vec::new();
    for i in 0..24 {
        let (shape, d, h, w, last) = drawn.new_tree(&mut runner).unwrap().current();
        let to = [if shape.spatial[0] == 1 { 1 } else { d }, h, w];
        // Memory of one channel or voxel is in both layouts, and is taken as the first.
        let last = last && shape.channels > 1 && shape.voxels() > 1;
        let layout = if last { Layout::ChannelsLast } else { Layout::Contiguous };
        let case = Case { shape, layout, to, seed: i };
        let place = folder.path().join(i.to_string());
        cases.push(match i % 3 {
            0 => write::<f32, f32>(&place, &case, ("float32", "float32")),
            1 => write::<f16, u8>(&place, &case, ("float16", "uint8")),
            _ => write::<bf16, f16>(&place, &case, ("bfloat16", "float16")),
        });
    }
    let methods: Vec<_> = METHODS.iter().map(|(method, below, _)| [method, below]).collect();
    let list = folder.path().join("cases.json");
    fs::write(&list, json!({ "cases": cases, "methods": methods }).to_string()).unwrap();
    let said = output_of(
        with_torch().arg("tests/python/compare_bits.py").arg(list).current_dir(REPOSITORY),
    );
    assert_eq!(said.trim(), "24 cases, 456 results, all of the same bits");
}
