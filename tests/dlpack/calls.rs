//! Every call gives the bits of its op, whatever the shape, the layout and the type.

use half::{bf16, f16};
use medcam::dlpack::{Place, Sum, Tensor, TensorMut, Work, Workspace};
use medcam::element::{Element, MapElement};
use medcam::ops::fused::Summary;
use medcam::ops::summary::SampleSummary;
use medcam::ops::{
    self, Denominator, Elementwise, Interpolation, Maps, Method, Recipe, Resize, View,
};
use medcam::{Layout, Shape};
use proptest::prelude::*;

use crate::CPU;
use crate::common::*;
use crate::tensors::*;

const DENOMINATORS: [Denominator; 4] = [
    Denominator::Paper,
    Denominator::M3dCam,
    Denominator::PaperEpsilon,
    Denominator::M3dCamEpsilon,
];

const METHODS: [Method; 7] = [
    Method::GradCam,
    Method::GradCamPlusPlus(Denominator::Paper),
    Method::GradCamPlusPlus(Denominator::M3dCam),
    Method::GradCamPlusPlus(Denominator::PaperEpsilon),
    Method::GradCamPlusPlus(Denominator::M3dCamEpsilon),
    Method::HiResCam,
    Method::LayerCam,
];

/// A tensor to read.
fn input<'a, T>(name: &'static str, values: &'a [T], described: &'a mut Described) -> Tensor<'a> {
    described.tensor.data = values.as_ptr().cast_mut().cast();
    // SAFETY: described as these values, which stay.
    unsafe { Tensor::of(name, described.pointer()) }.unwrap()
}

/// A tensor to write to.
fn output<'a, T>(values: &'a mut [T], described: &'a mut Described) -> TensorMut<'a> {
    described.tensor.data = values.as_mut_ptr().cast();
    // SAFETY: described as these values, which are borrowed for writing.
    unsafe { TensorMut::of("out", described.pointer()) }.unwrap()
}

fn on_cpu<R>(call: impl FnOnce(&mut Work<'_>) -> medcam::Result<R>) -> R {
    try_on_cpu(call).unwrap()
}

fn try_on_cpu<R>(call: impl FnOnce(&mut Work<'_>) -> medcam::Result<R>) -> medcam::Result<R> {
    let mut workspace = Workspace::new(Place::Cpu).unwrap();
    // SAFETY: the CPU has no stream.
    call(&mut unsafe { workspace.on(std::ptr::null_mut()) }.unwrap())
}

fn layer<T: Typed>(shape: Shape, layout: Layout) -> Described {
    Described::layer::<T>(std::ptr::null_mut(), CPU, shape, layout)
}

fn maps<T: Typed>(batch: usize, grid: [usize; 3]) -> Described {
    Described::maps::<T>(std::ptr::null_mut(), CPU, batch, grid)
}

/// One drawn case.
#[derive(Debug, Clone, Copy)]
struct Case {
    shape: Shape,
    layout: Layout,
    to: [usize; 3],
    normalized: bool,
    seed: u64,
}

fn check_chains<T, O>(case: Case)
where
    T: Element + Typed,
    O: MapElement + Typed + Default + PartialEq,
{
    let Case { shape, layout, to, seed, .. } = case;
    let normalized = case.normalized || O::UNIT_RANGE;
    let a = values::<T>(shape.elements(), 1.0, seed);
    let g = values::<T>(shape.elements(), 1.0, !seed);
    let voxels = shape.batch * to.iter().product::<usize>();
    let guided = values::<f32>(voxels, 1.0, seed / 2);
    let view = |values| View::new(values, shape, layout).unwrap();
    let (mut of_a, mut of_g) = (layer::<T>(shape, layout), layer::<T>(shape, layout));
    let (mut of_guided, mut of_out) = (maps::<f32>(shape.batch, to), maps::<O>(shape.batch, to));
    let (mut out, mut guided_out) = (vec![O::default(); voxels], vec![O::default(); voxels]);
    for method in METHODS {
        let recipe = Recipe { method, to: Some(to), normalized };
        let (a_in, g_in) = (input("activation", &a, &mut of_a), input("gradient", &g, &mut of_g));
        let told = {
            let mut map = output(&mut out, &mut of_out);
            try_on_cpu(|work| work.cam(method, normalized, &a_in, &g_in, &mut map, true))
        };
        match ops::cam::<T, O>(&view(&a), &view(&g), &recipe) {
            Ok(Maps { values, ranges, weights_cancel, .. }) => {
                assert!(out == values, "{method:?} {case:?}");
                assert_eq!(told.unwrap(), Some(Summary { ranges, weights_cancel }));
            }
            // A map of Grad-CAM++ that f16 does not hold.
            Err(error) => assert_eq!(told.unwrap_err().to_string(), error.to_string()),
        }
        check_summarized::<T, O>(case, method, (&a_in, &g_in), None);
        let guide = input("guided", &guided, &mut of_guided);
        let told = {
            let mut map = output(&mut guided_out, &mut of_out);
            try_on_cpu(|work| {
                work.guided_cam(method, normalized, &a_in, &g_in, &guide, &mut map, false)
            })
        };
        match ops::guided_cam::<T, O>(&view(&a), &view(&g), &guided, &recipe) {
            Ok(expected) => {
                assert!(guided_out == expected.values, "guided {method:?} {case:?}");
                assert_eq!(told.unwrap(), None);
            }
            Err(error) => assert_eq!(told.unwrap_err().to_string(), error.to_string()),
        }
        check_summarized::<T, O>(case, method, (&a_in, &g_in), Some(&guide));
    }
}

/// With summaries that are read later, map and summary are those that a call tells at once.
fn check_summarized<T, O>(
    case: Case,
    method: Method,
    (a, g): (&Tensor, &Tensor),
    guided: Option<&Tensor>,
) where
    T: Element + Typed,
    O: MapElement + Typed + Default + PartialEq,
{
    let Case { shape: Shape { batch, .. }, to, normalized, .. } = case;
    let normalized = normalized || O::UNIT_RANGE;
    let voxels = batch * to.iter().product::<usize>();
    let (mut expected, mut found) = (vec![O::default(); voxels], vec![O::default(); voxels]);
    let mut words = vec![-1_i32; batch * SampleSummary::WORDS];
    let (mut of_out, mut of_map) = (maps::<O>(batch, to), maps::<O>(batch, to));
    let mut of_words = summaries(batch);
    let told = {
        let out = &mut output(&mut expected, &mut of_out);
        try_on_cpu(|work| match guided {
            Some(guided) => work.guided_cam(method, normalized, a, g, guided, out, true),
            None => work.cam(method, normalized, a, g, out, true),
        })
    };
    let reader = {
        let map = &mut output(&mut found, &mut of_map);
        let words = &mut output(&mut words, &mut of_words);
        try_on_cpu(|work| work.summarized_cam(method, normalized, a, g, guided, map, words))
    };
    match (told, reader) {
        (Ok(told), Ok(reader)) => {
            assert!(found == expected, "{method:?} {case:?}");
            assert_eq!(reader.read(&summaries_of(&words)).unwrap(), told.unwrap());
        }
        (told, reader) => {
            assert_eq!(told.unwrap_err().to_string(), reader.unwrap_err().to_string());
        }
    }
}

fn summaries(batch: usize) -> Described {
    let extents = [batch, SampleSummary::WORDS];
    Described::in_order::<i32>(std::ptr::null_mut(), CPU, &extents)
}

fn summaries_of(words: &[i32]) -> Vec<SampleSummary> {
    words.chunks(SampleSummary::WORDS).map(SampleSummary::of_words).collect()
}

#[test]
fn summaries_tell_of_gradients_of_zero() {
    // Of three samples the gradient of the second is zero, and the map of the third alone.
    let shape = Shape::new(3, 1, [1, 1, 2]).unwrap();
    let a = [1.0_f32, 2.0, 1.0, 2.0, 0.0, 0.0];
    let g = [1.0_f32, 1.0, 0.0, -0.0, 0.0, 1.0];
    let (mut of_a, mut of_g) =
        (layer::<f32>(shape, Layout::Contiguous), layer::<f32>(shape, Layout::Contiguous));
    let (a, g) = (input("activation", &a, &mut of_a), input("gradient", &g, &mut of_g));
    let (mut map, mut words) = ([0.0_f32; 6], [-1_i32; 24]);
    let (mut of_map, mut of_words) = (maps::<f32>(3, [1, 1, 2]), summaries(3));
    on_cpu(|work| {
        let map = &mut output(&mut map, &mut of_map);
        let words = &mut output(&mut words, &mut of_words);
        work.summarized_cam(Method::GradCam, true, &a, &g, None, map, words)
    });
    let told = summaries_of(&words);
    let flags: Vec<u32> = told.iter().map(|of| of.zero_gradient).collect();
    assert_eq!(flags, [0, 1, 0]);
    assert_eq!((told[0].minimum, told[0].maximum, told[2].maximum), (1.0, 2.0, 0.0));
    assert!(told.iter().all(|of| SampleSummary::of_words(&of.words()) == *of));
}

#[test]
fn room_for_summaries_that_does_not_fit() {
    let shape = Shape::new(1, 1, [1, 1, 2]).unwrap();
    let values = [1.0_f32, 2.0];
    let refused = |words: &mut Described| {
        let (mut of_a, mut of_g) =
            (layer::<f32>(shape, Layout::Contiguous), layer::<f32>(shape, Layout::Contiguous));
        let (a, g) =
            (input("activation", &values, &mut of_a), input("gradient", &values, &mut of_g));
        let (mut map, mut room) = ([0.0_f32; 2], [0_i32; 16]);
        let mut of_map = maps::<f32>(1, [1, 1, 2]);
        let map = &mut output(&mut map, &mut of_map);
        let words = &mut output(&mut room, words);
        let called =
            try_on_cpu(|work| work.summarized_cam(Method::GradCam, true, &a, &g, None, map, words));
        called.unwrap_err().to_string()
    };
    let said = refused(&mut summaries(2));
    assert!(said.starts_with("out: summaries are (B, 8), [1, 8] (shape [2, 8]"), "{said}");
    let data = std::ptr::null_mut();
    let said = refused(&mut Described::in_order::<f32>(data, CPU, &[1, 8]));
    assert!(said.starts_with("out: values of F32, and here they are I32"), "{said}");
    let mut strided = summaries(1);
    strided.strides = Some(vec![16, 2]);
    let said = refused(&mut strided);
    assert!(said.starts_with("out: its values have to follow each other in order"), "{said}");
}

fn check_single<T: Element + Typed + PartialEq>(case: Case) {
    let Case { shape, layout, to, normalized, seed } = case;
    let Shape { batch, channels, spatial } = shape;
    let a = values::<T>(shape.elements(), 1.0, seed);
    let g = values::<T>(shape.elements(), 1.0, !seed);
    let weights = values::<f32>(batch * channels, 1.0, seed / 3);
    let view = |values| View::new(values, shape, layout).unwrap();
    let (mut of_a, mut of_g) = (layer::<T>(shape, layout), layer::<T>(shape, layout));
    let (a_in, g_in) = (input("activation", &a, &mut of_a), input("gradient", &g, &mut of_g));
    let none = std::ptr::null_mut();

    let mut of_weights = Described::in_order::<f32>(none, CPU, &[batch, channels]);
    let mut found = vec![0.0_f32; batch * channels];
    on_cpu(|work| work.channel_weights(&g_in, &mut output(&mut found, &mut of_weights)));
    assert_eq!(bits(&found), bits(&ops::channel_weights(&view(&g)).unwrap()));
    for denominator in DENOMINATORS {
        let mut out = output(&mut found, &mut of_weights);
        on_cpu(|work| work.alpha_weights(&a_in, &g_in, denominator, &mut out));
        let expected = ops::alpha_weights(&view(&a), &view(&g), denominator).unwrap();
        assert_eq!(bits(&found), bits(&expected));
    }

    let mut of_map = maps::<f32>(batch, spatial);
    let mut map = vec![0.0_f32; batch * shape.voxels()];
    let mut sum = |weighted: bool, rectified: bool| {
        let weights = input("weights", &weights, &mut of_weights);
        let sum = match (weighted, rectified) {
            (true, true) => Sum::Rectified(&weights),
            (true, false) => Sum::Signed(&weights),
            (false, _) => Sum::Mean,
        };
        on_cpu(|work| work.sum(sum, &a_in, &mut output(&mut map, &mut of_map)));
        bits(&map)
    };
    assert_eq!(sum(true, true), bits(&ops::project(&weights, &view(&a)).unwrap()));
    assert_eq!(sum(true, false), bits(&ops::weighted_sum(&weights, &view(&a)).unwrap()));
    assert_eq!(sum(false, false), bits(&ops::channel_mean(&view(&a)).unwrap()));
    for method in [Elementwise::HiResCam, Elementwise::LayerCam] {
        let mut out = output(&mut map, &mut of_map);
        on_cpu(|work| work.elementwise(method, &a_in, &g_in, &mut out));
        assert_eq!(bits(&map), bits(&ops::elementwise(&view(&a), &view(&g), method).unwrap()));
    }

    let resize = Resize { batch, from: spatial, to };
    let mut of_large = maps::<f32>(batch, to);
    let mut large = vec![0.0_f32; batch * to.iter().product::<usize>()];
    for interpolation in [Interpolation::Linear, Interpolation::Nearest] {
        let small = input("map", &map, &mut of_map);
        let mut out = output(&mut large, &mut of_large);
        on_cpu(|work| work.resample(interpolation, normalized, &small, &mut out));
        let expected = if normalized {
            ops::resample::resample_normalized::<f32>(&map, resize, interpolation).unwrap().0
        } else {
            ops::resample(&map, resize, interpolation).unwrap()
        };
        assert_eq!(bits(&large), bits(&expected));
    }
    let guided = values::<f32>(large.len(), 1.0, seed / 5);
    {
        let (small, mut out) = (input("map", &map, &mut of_map), output(&mut large, &mut of_large));
        let mut of_guided = maps::<f32>(batch, to);
        let guided = input("guided", &guided, &mut of_guided);
        on_cpu(|work| work.guided_product(true, &small, &guided, &mut out));
    }
    let (expected, _) = ops::guided_product::<f32>(&map, &guided, resize).unwrap();
    assert_eq!(bits(&large), bits(&expected));
    let mask: Vec<u8> = guided.iter().map(|&value| u8::from(value > 0.0)).collect();
    let sums = {
        let mut of_mask = maps::<u8>(batch, to);
        let map = input("map", &large, &mut of_large);
        let mask = input("mask", &mask, &mut of_mask);
        on_cpu(|work| work.evaluation_sums(&map, &mask, Some(0.3)))
    };
    let expected = ops::evaluation_sums(&large, Some(&mask), batch, Some(0.3)).unwrap();
    assert_eq!(sums, expected);

    let mut normal = map.clone();
    on_cpu(|work| work.normalize(&mut output(&mut normal, &mut of_map)));
    ops::normalize(&mut map, batch).unwrap();
    assert_eq!(bits(&normal), bits(&map));

    let (mut of_out, mut passed) = (layer::<T>(shape, layout), a.clone());
    let mut out = output(&mut passed, &mut of_out);
    on_cpu(|work| work.guided_activation(&a_in, &g_in, &mut out));
    let mut expected = a.clone();
    ops::guided_activation(&a, &g, &mut expected).unwrap();
    assert!(passed == expected);
}

fn cases() -> impl Strategy<Value = Case> {
    let grid = |planes: &'static [usize]| {
        (prop::sample::select(planes), 1_usize..40, 1_usize..40).prop_map(|(d, h, w)| [d, h, w])
    };
    let shapes = (1_usize..4, 1_usize..70, prop_oneof![grid(&[1]), grid(&[2, 7, 13])]);
    let shapes =
        shapes.prop_map(|(batch, channels, spatial)| Shape::new(batch, channels, spatial).unwrap());
    (
        shapes,
        prop::sample::select(&LAYOUTS[..]),
        1_usize..30,
        1_usize..50,
        1_usize..50,
        any::<(bool, u64)>(),
    )
        .prop_map(|(shape, layout, d, h, w, (normalized, seed))| {
            let d = if shape.spatial[0] == 1 { 1 } else { d.max(2) };
            // Both layouts at once, and a call takes the first.
            let both = shape.channels == 1 || shape.voxels() == 1;
            let layout = if both { Layout::Contiguous } else { layout };
            Case { shape, layout, to: [d, h, w], normalized, seed }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chains_give_the_bits_of_the_ops(case in cases()) {
        check_chains::<f32, f32>(case);
        check_chains::<f16, u8>(case);
        check_chains::<bf16, f16>(case);
    }

    #[test]
    fn single_calls_give_the_bits_of_the_ops(case in cases()) {
        check_single::<f32>(case);
        check_single::<f16>(case);
        check_single::<bf16>(case);
    }
}
