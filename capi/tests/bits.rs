//! The C functions give the ops of the Rust crate, bit for bit, over shapes, layouts and types.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::ffi::{c_int, c_void};
use std::ptr;

use common::libraries;
use common::random::{Random, Tensor, Value};
use half::{bf16, f16};
use libloading::Library;
use medcam_ops::Result;
use medcam_ops::dlpack::ffi::{DLDevice, DLDeviceType, DLTensor};
use medcam_ops::element::{Element, MapElement};
use medcam_ops::ops::{
    self, Denominator, Elementwise, Interpolation, Method, Recipe, Resize, View,
};

const CASES: u64 = 300;

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct MapInfo {
    minimum: f32,
    maximum: f32,
    weights_cancel: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Evaluation {
    sums: [f64; 4],
    counts: [u64; 4],
    threshold: f32,
}

/// The shared library and a workspace of it on the CPU.
struct Api {
    library: Library,
    workspace: *mut c_void,
}

/// Calls a function of the library: the types of what comes before the stream, then the values.
macro_rules! call {
    ($api:expr, $name:literal, ($($of:ty),*), $($value:expr),*) => {{
        type Function = unsafe extern "C" fn(*mut c_void, $($of,)* *mut c_void) -> c_int;
        // SAFETY: the types are those of the header; tensors and room for results live as long as
        // the call, and no output shares memory with anything.
        unsafe {
            let function = $api.library.get::<Function>(concat!("medcam_", $name)).unwrap();
            function($api.workspace, $($value,)* ptr::null_mut())
        }
    }};
}

type In = *const DLTensor;
type Out = *mut DLTensor;

impl Api {
    fn new() -> Self {
        type Create = unsafe extern "C" fn(DLDevice, *mut *mut c_void) -> c_int;
        let mut workspace = ptr::null_mut();
        // SAFETY: the library has no constructors, and the types are those of the header.
        let library = unsafe {
            let library = Library::new(&libraries().shared).unwrap();
            let cpu = DLDevice { device_type: DLDeviceType::CPU, device_id: 0 };
            let create = library.get::<Create>("medcam_workspace_create").unwrap();
            assert_eq!(create(cpu, &raw mut workspace), 0);
            library
        };
        Self { library, workspace }
    }
}

/// Holds what C wrote against what Rust returned; where one refuses, so does the other.
fn same<O: Value>(case: &str, status: c_int, written: &Tensor<O>, expected: Result<Vec<O>>) {
    match expected {
        Ok(expected) => {
            assert_eq!(status, 0, "{case}");
            assert!(
                written.values.iter().map(|v| v.bits()).eq(expected.iter().map(|v| v.bits())),
                "{case}"
            );
        }
        Err(error) => assert_eq!(status, 1, "{case}: {error}"),
    }
}

/// A random case of the chains.
fn chains<T: Element + Value, O: MapElement + Value>(api: &Api, random: &mut Random, case: &str) {
    let (shape, to) = (random.shape(), random.grid());
    let to = if shape.spatial[0] == 1 { [1, to[1], to[2]] } else { to };
    let layout = random.layout(shape);
    let mut a = random.tensor::<T>(shape, layout);
    let mut g = random.tensor::<T>(shape, layout);
    let (number, method) = [
        (0, Method::GradCam),
        (1, Method::GradCamPlusPlus(Denominator::Paper)),
        (2, Method::GradCamPlusPlus(Denominator::M3dCam)),
        (3, Method::HiResCam),
        (4, Method::LayerCam),
        (5, Method::GradCamPlusPlus(Denominator::PaperEpsilon)),
        (6, Method::GradCamPlusPlus(Denominator::M3dCamEpsilon)),
    ][random.below(7)];
    let normalized = O::UNIT_RANGE || random.below(2) == 0;
    let recipe = Recipe { method, to: Some(to), normalized };
    let case = format!("{case}: {shape} {layout:?} {recipe:?}");
    let expected = {
        let a = View::new(&a.values, shape, layout).unwrap();
        let g = View::new(&g.values, shape, layout).unwrap();
        ops::cam::<T, O>(&a, &g, &recipe)
    };
    let mut map = Tensor::<O>::zeros(shape.batch, to);
    let mut infos = vec![MapInfo::default(); shape.batch];
    let status = call!(
        api,
        "cam",
        (i32, c_int, In, In, Out, *mut MapInfo),
        number,
        c_int::from(normalized),
        &a.dl(),
        &g.dl(),
        &mut map.dl(),
        infos.as_mut_ptr()
    );
    if let Ok(maps) = &expected {
        for (info, (range, &cancel)) in
            infos.iter().zip(maps.ranges.iter().zip(&maps.weights_cancel))
        {
            let (minimum, maximum) = (range.minimum, range.maximum);
            let expected = MapInfo { minimum, maximum, weights_cancel: i32::from(cancel) };
            assert_eq!(*info, expected, "{case}");
        }
    }
    same(&case, status, &map, expected.map(|maps| maps.values));

    let mut guided = random.map(shape.batch, to);
    let expected = {
        let a = View::new(&a.values, shape, layout).unwrap();
        let g = View::new(&g.values, shape, layout).unwrap();
        ops::guided_cam::<T, O>(&a, &g, &guided.values, &recipe)
    };
    let status = call!(
        api,
        "guided_cam",
        (i32, c_int, In, In, In, Out, *mut MapInfo),
        number,
        c_int::from(normalized),
        &a.dl(),
        &g.dl(),
        &guided.dl(),
        &mut map.dl(),
        ptr::null_mut()
    );
    same(&case, status, &map, expected.map(|maps| maps.values));
}

/// A random case of the ops on activations and gradients.
fn weights<T: Element + Value>(api: &Api, random: &mut Random, case: &str) {
    let shape = random.shape();
    let layout = random.layout(shape);
    let mut a = random.tensor::<T>(shape, layout);
    let mut g = random.tensor::<T>(shape, layout);
    let case = format!("{case}: {shape} {layout:?}");
    let (a_values, g_values) = (a.values.clone(), g.values.clone());
    let a_view = View::new(&a_values, shape, layout).unwrap();
    let g_view = View::new(&g_values, shape, layout).unwrap();

    let mut w = Tensor::<f32>::pairs(shape.batch, shape.channels);
    let status = call!(api, "channel_weights", (In, Out), &g.dl(), &mut w.dl());
    same(&case, status, &w, ops::channel_weights(&g_view));
    for (number, denominator) in [
        (0, Denominator::Paper),
        (1, Denominator::M3dCam),
        (2, Denominator::PaperEpsilon),
        (3, Denominator::M3dCamEpsilon),
    ] {
        let status =
            call!(api, "alpha_weights", (i32, In, In, Out), number, &a.dl(), &g.dl(), &mut w.dl());
        same(&case, status, &w, ops::alpha_weights(&a_view, &g_view, denominator));
    }

    let mut map = Tensor::<f32>::zeros(shape.batch, shape.spatial);
    let status = call!(api, "project", (c_int, In, In, Out), 1, &w.dl(), &a.dl(), &mut map.dl());
    same(&case, status, &map, ops::project(&w.values, &a_view));
    let status = call!(api, "project", (c_int, In, In, Out), 0, &w.dl(), &a.dl(), &mut map.dl());
    same(&case, status, &map, ops::weighted_sum(&w.values, &a_view));
    let status = call!(api, "channel_mean", (In, Out), &a.dl(), &mut map.dl());
    same(&case, status, &map, ops::channel_mean(&a_view));
    for (number, method) in [(3, Elementwise::HiResCam), (4, Elementwise::LayerCam)] {
        let status =
            call!(api, "elementwise", (i32, In, In, Out), number, &a.dl(), &g.dl(), &mut map.dl());
        same(&case, status, &map, ops::elementwise(&a_view, &g_view, method));
    }

    let mut output = g.clone();
    let status = call!(api, "guided_activation", (In, In, Out), &a.dl(), &g.dl(), &mut output.dl());
    let mut expected = g_values.clone();
    let told = ops::guided_activation(&a_values, &g_values, &mut expected);
    same(&case, status, &output, told.map(|()| expected));
}

/// A random case of the ops on maps.
fn maps<O: MapElement + Value>(api: &Api, random: &mut Random, case: &str) {
    let (batch, from, to) = (1 + random.below(3), random.grid(), random.grid());
    let mut map = random.map(batch, from);
    let (number, interpolation) =
        [(0, Interpolation::Linear), (1, Interpolation::Nearest)][random.below(2)];
    let normalized = O::UNIT_RANGE || random.below(2) == 0;
    let resize = Resize { batch, from, to };
    let case = format!("{case}: {resize:?} {interpolation:?} {normalized}");

    let mut out = Tensor::<O>::zeros(batch, to);
    let status = call!(
        api,
        "resample",
        (i32, c_int, In, Out),
        number,
        c_int::from(normalized),
        &map.dl(),
        &mut out.dl()
    );
    let ranges = normalized
        .then(|| ops::resample::extremes(&map.values, resize, interpolation))
        .transpose()
        .unwrap();
    let mut expected = Tensor::<O>::zeros(batch, to).values;
    let told = ops::resample::resample_into(
        &map.values,
        resize,
        interpolation,
        ranges.as_deref(),
        &mut expected,
    );
    same(&case, status, &out, told.map(|()| expected));

    let mut guided = random.map(batch, to);
    let status = call!(
        api,
        "guided_product",
        (c_int, In, In, Out),
        c_int::from(normalized),
        &map.dl(),
        &guided.dl(),
        &mut out.dl()
    );
    let ranges = ops::guided_product::extremes(&map.values, &guided.values, resize).unwrap();
    let mut expected = Tensor::<O>::zeros(batch, to).values;
    let told = ops::guided_product::guided_product_into(
        &map.values,
        &guided.values,
        resize,
        normalized.then_some(&ranges[..]),
        &mut expected,
    );
    same(&case, status, &out, told.map(|()| expected));

    let mut expected = map.values.clone();
    ops::normalize(&mut expected, batch).unwrap();
    let status = call!(api, "normalize", (Out), &mut map.dl());
    same(&case, status, &map, Ok(expected));

    let mut mask = Tensor::<u8>::zeros(batch, from);
    mask.values.iter_mut().for_each(|value| *value = u8::from(random.below(3) == 0));
    let given = [None, Some(random.value().abs())][random.below(2)];
    let threshold = given.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut found = vec![Evaluation::default(); batch];
    let status = call!(
        api,
        "evaluate",
        (In, In, *const f32, *mut Evaluation),
        &map.dl(),
        &mask.dl(),
        threshold,
        found.as_mut_ptr()
    );
    assert_eq!(status, 0, "{case}");
    let sums = ops::evaluation_sums(&map.values, Some(&mask.values), batch, given).unwrap();
    for (found, sums) in found.iter().zip(sums) {
        let threshold = given.unwrap_or_else(|| sums.otsu());
        let (all, above) = (sums.above(0.0).unwrap(), sums.above(threshold).unwrap());
        assert_eq!(found.threshold.to_bits(), threshold.to_bits(), "{case}");
        assert_eq!(found.sums, [all.sum, all.sum_in_mask, above.sum, above.sum_in_mask], "{case}");
        assert_eq!(found.counts, [all.count, all.in_mask, above.count, above.in_mask], "{case}");
    }
}

#[test]
fn c_gives_the_bits_of_rust() {
    let api = Api::new();
    for seed in 0..CASES {
        let random = &mut Random::new(seed);
        let case = &format!("seed {seed}");
        match seed % 9 {
            0 => chains::<f32, f32>(&api, random, case),
            1 => chains::<f32, f16>(&api, random, case),
            2 => chains::<f32, u8>(&api, random, case),
            3 => chains::<f16, f32>(&api, random, case),
            4 => chains::<f16, f16>(&api, random, case),
            5 => chains::<f16, u8>(&api, random, case),
            6 => chains::<bf16, f32>(&api, random, case),
            7 => chains::<bf16, f16>(&api, random, case),
            _ => chains::<bf16, u8>(&api, random, case),
        }
        match seed % 3 {
            0 => (weights::<f32>(&api, random, case), maps::<f32>(&api, random, case)),
            1 => (weights::<f16>(&api, random, case), maps::<f16>(&api, random, case)),
            _ => (weights::<bf16>(&api, random, case), maps::<u8>(&api, random, case)),
        };
    }
}
