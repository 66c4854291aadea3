//! The chains: the bits of their single launchers, the values of their CPU twins, no allocation.

use half::{bf16, f16};
use medcam::device::Stream;
use medcam::element::{Element, MapElement};
use medcam::ops::fused::cuda;
use medcam::ops::fused::{Summary, TOLERANCE, reference};
use medcam::ops::{self, Denominator, DeviceView, Maps, Method, Range, Recipe, View};
use medcam::{Layout, Result, Shape};

use crate::common::gpu;
use crate::on_the_cpu::{LAYOUTS, absolute, assert_close, values, wide};

const METHODS: [Method; 7] = [
    Method::GradCam,
    Method::GradCamPlusPlus(Denominator::Paper),
    Method::GradCamPlusPlus(Denominator::M3dCam),
    Method::GradCamPlusPlus(Denominator::PaperEpsilon),
    Method::GradCamPlusPlus(Denominator::M3dCamEpsilon),
    Method::HiResCam,
    Method::LayerCam,
];

/// The finished maps of a chain on the device, with their ranges and noise flags.
fn on_device<T: Element, O: MapElement + Default>(
    stream: &mut Stream,
    (activation, gradient): (&View<T>, &View<T>),
    guided: Option<&[f32]>,
    recipe: &Recipe,
) -> Result<(Vec<O>, Summary)> {
    let shape = activation.shape();
    let grid = recipe.to.unwrap_or(shape.spatial);
    let (a, g) = (stream.upload(activation.data())?, stream.upload(gradient.data())?);
    let a = DeviceView::new(a.slice(), shape, activation.layout())?;
    let g = DeviceView::new(g.slice(), gradient.shape(), gradient.layout())?;
    let mut map = stream.allocate::<O>(shape.batch * grid.iter().product::<usize>())?;
    let summary = if let Some(guided) = guided {
        let guided = stream.upload(guided)?;
        cuda::guided_cam(stream, &a, &g, guided.slice(), recipe, map.slice_mut())?.finish()?
    } else {
        cuda::cam(stream, &a, &g, recipe, map.slice_mut())?.finish()?
    };
    Ok((stream.download(map.slice())?, summary))
}

/// Every voxel of the normalised maps of all methods within `tolerance` of the CPU twin.
///
/// Both round in their own order, and normalisation divides the error by the width of the map: for
/// these values, whose maps are about as wide as they are large, 1e-4 is far above that and far
/// below any mistake.
fn check<T: Element>(stream: &mut Stream, shape: Shape, to: Option<[usize; 3]>, seed: u64) {
    // Activations that are not negative, as most are: others can bring Grad-CAM++ near a division
    // by 0, where rounding shows.
    let a = absolute(&values::<T>(shape.elements(), 1.0, seed));
    let g = values::<T>(shape.elements(), 1.0, seed.wrapping_add(1));
    let voxels: usize = to.unwrap_or(shape.spatial).iter().product();
    let guided = values::<f32>(shape.batch * voxels, 1.0, seed.wrapping_add(2));
    for method in METHODS {
        let recipe = Recipe { to, ..Recipe::new(method) };
        for layout in LAYOUTS {
            let both =
                (&View::new(&a, shape, layout).unwrap(), &View::new(&g, shape, layout).unwrap());
            let twin: Maps = ops::cam(both.0, both.1, &recipe).unwrap();
            let (map, summary) = on_device::<T, f32>(stream, both, None, &recipe).unwrap();
            assert_close(&map, &wide(&twin.values), |_| 1e-4);
            assert_eq!(summary.weights_cancel, twin.weights_cancel);
            for (range, twin) in summary.ranges.iter().zip(&twin.ranges) {
                near(range, twin);
            }
            let again = on_device::<T, f32>(stream, both, None, &recipe).unwrap();
            assert_eq!(again, (map.clone(), summary));

            let (bytes, _) = on_device::<T, u8>(stream, both, None, &recipe).unwrap();
            let (halves, _) = on_device::<T, f16>(stream, both, None, &recipe).unwrap();
            assert_eq!((bytes, halves), (narrowed::<u8>(&map), narrowed::<f16>(&map)));

            let twin: Maps = ops::guided_cam(both.0, both.1, &guided, &recipe).unwrap();
            let (map, _) = on_device::<T, f32>(stream, both, Some(&guided), &recipe).unwrap();
            assert_close(&map, &wide(&twin.values), |_| 1e-4);
        }
    }
}

fn near(range: &Range, twin: &Range) {
    let width = twin.maximum - twin.minimum;
    let apart = |a: f32, b: f32| (a - b).abs() > 1e-4 * width;
    assert!(
        !apart(range.minimum, twin.minimum) && !apart(range.maximum, twin.maximum),
        "{range:?} {twin:?}"
    );
}

fn narrowed<O: MapElement>(values: &[f32]) -> Vec<O> {
    let mut out = O::zeros(values.len());
    O::fill(&mut out, &mut Vec::new(), |i| values[i]);
    out
}

#[test]
fn small_chains_agree_with_their_cpu_twins() {
    let Some(mut stream) = gpu() else { return };
    let shape = Shape::new(2, 5, [3, 4, 5]).unwrap();
    check::<f32>(&mut stream, shape, Some([5, 6, 7]), 1);
}

#[test]
fn chains_agree_with_their_cpu_twins() {
    let Some(mut stream) = gpu() else { return };
    let shape = |batch, channels, spatial| Shape::new(batch, channels, spatial).unwrap();
    check::<f32>(&mut stream, shape(3, 64, [1, 7, 7]), Some([1, 28, 30]), 2);
    check::<f16>(&mut stream, shape(1, 3, [12, 13, 14]), Some([20, 13, 9]), 3);
    check::<bf16>(&mut stream, shape(2, 33, [5, 5, 41]), None, 4);
}

/// Grad-CAM, whose error is bounded for any values, is within it of the f64 reference.
#[test]
fn grad_cam_is_its_reference() {
    let Some(mut stream) = gpu() else { return };
    let shape = Shape::new(2, 64, [3, 11, 31]).unwrap();
    let (a, g) = (values::<f32>(shape.elements(), 1.0, 5), values::<f32>(shape.elements(), 1.0, 6));
    let (absolute_a, absolute_g) = (absolute(&a), absolute(&g));
    let plain = Recipe { to: Some([4, 20, 33]), normalized: false, ..Recipe::new(Method::GradCam) };
    for layout in LAYOUTS {
        let view = |data| View::new(data, shape, layout).unwrap();
        let scale =
            reference(&view(&absolute_a), &view(&absolute_g), &Recipe { to: None, ..plain });
        let scale = scale.into_iter().fold(0.0, f64::max);
        let both = (&view(&a), &view(&g));
        let (map, _) = on_device::<f32, f32>(&mut stream, both, None, &plain).unwrap();
        assert_close(&map, &reference(both.0, both.1, &plain), |_| TOLERANCE * scale);
    }
}

#[test]
fn not_finite_is_the_error_of_the_cpu_twin() {
    let Some(mut stream) = gpu() else { return };
    let shape = Shape::new(2, 3, [1, 2, 5]).unwrap();
    let ones = vec![1.0_f32; shape.elements()];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut spoilt = ones.clone();
        spoilt[30 + 10] = bad;
        for (a, g) in [(&spoilt, &ones), (&ones, &spoilt)] {
            let view = |data| View::new(data, shape, Layout::Contiguous).unwrap();
            let both = (&view(a), &view(g));
            for method in METHODS {
                let recipe = Recipe { to: Some([1, 3, 4]), ..Recipe::new(method) };
                let twin = ops::cam::<_, f32>(both.0, both.1, &recipe).unwrap_err();
                let error = on_device::<f32, f32>(&mut stream, both, None, &recipe).unwrap_err();
                assert_eq!(error.to_string(), twin.to_string());
            }
        }
    }
}

/// A zero or constant map becomes 0, and cancelling weights set the noise flag.
#[test]
fn flat_maps_are_0() {
    let Some(mut stream) = gpu() else { return };
    let shape = Shape::new(1, 2, [2, 2, 2]).unwrap();
    let alternating: Vec<f32> = (0..16).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let recipe = Recipe { to: Some([3, 3, 3]), ..Recipe::new(Method::GradCam) };
    for (gradient, cancel) in [(vec![0.0; 16], false), (vec![1.0; 16], false), (alternating, true)]
    {
        let ones = [1.0_f32; 16];
        let view = |data| View::new(data, shape, Layout::Contiguous).unwrap();
        let both = (&view(&ones), &view(&gradient));
        let (map, summary) = on_device::<f32, f32>(&mut stream, both, None, &recipe).unwrap();
        assert_eq!(map, [0.0; 27]);
        assert_eq!(summary.weights_cancel, [cancel]);
    }
}

/// Weights that only the coarse steps of bf16 keep from cancelling are noise in bf16, as on the CPU.
#[test]
fn small_noise_is_told_by_the_type_of_the_gradient() {
    fn cancel<T: Element>(stream: &mut Stream) -> Vec<bool> {
        let shape = Shape::new(1, 1, [1, 4, 4]).unwrap();
        // Their mean is 2^-7 / 16, 5e-4: above 1e-4, and below 4·2^-7 / sqrt(16).
        let mut gradient: Vec<_> =
            (0..16).map(|i| T::from_f32(if i % 2 == 0 { 1.0 } else { -1.0 })).collect();
        gradient[0] = T::from_f32(1.0 + 1.0 / 128.0);
        let ones = vec![T::from_f32(1.0); 16];
        let view = |data| View::new(data, shape, Layout::Contiguous).unwrap();
        let both = (&view(&ones), &view(&gradient));
        let recipe = Recipe::new(Method::GradCam);
        let twin: Maps = ops::cam(both.0, both.1, &recipe).unwrap();
        let (_, summary) = on_device::<T, f32>(stream, both, None, &recipe).unwrap();
        assert_eq!(summary.weights_cancel, twin.weights_cancel);
        summary.weights_cancel
    }
    let Some(mut stream) = gpu() else { return };
    assert_eq!(cancel::<f32>(&mut stream), [false]);
    assert_eq!(cancel::<bf16>(&mut stream), [true]);
}

#[test]
fn bad_shapes_and_devices_are_errors() {
    let Some(mut stream) = gpu() else { return };
    let shape = Shape::new(1, 2, [1, 2, 2]).unwrap();
    let other = Shape::new(1, 4, [1, 2, 1]).unwrap();
    let data = [1.0_f32; 8];
    let recipe = Recipe::new(Method::GradCam);
    let (a, g) = (
        View::new(&data, shape, Layout::Contiguous).unwrap(),
        View::new(&data, other, Layout::Contiguous).unwrap(),
    );
    let error = on_device::<f32, f32>(&mut stream, (&a, &g), None, &recipe).unwrap_err();
    assert!(error.to_string().starts_with("grad_cam: gradient: its shape"), "{error}");

    let buffer = stream.upload(&data).unwrap();
    let view = DeviceView::new(buffer.slice(), shape, Layout::Contiguous).unwrap();
    let mut short = stream.allocate::<f32>(3).unwrap();
    let error = cuda::cam(&mut stream, &view, &view, &recipe, short.slice_mut()).unwrap_err();
    assert!(error.is_input(), "{error}");
    let normalized_only = Recipe { normalized: false, ..recipe };
    let mut bytes = stream.allocate::<u8>(4).unwrap();
    let error =
        cuda::cam(&mut stream, &view, &view, &normalized_only, bytes.slice_mut()).unwrap_err();
    assert!(error.to_string().contains("u8 holds [0, 1] alone"), "{error}");
}

/// As in `tests/ops/fused.rs`.
#[test]
fn a_map_that_its_type_does_not_hold_is_an_error() {
    let Some(mut stream) = gpu() else { return };
    let shape = Shape::new(2, 1, [1, 1, 2]).unwrap();
    let view = |data| View::new(data, shape, Layout::Contiguous).unwrap();
    let both = (&view(&[1.0_f32, 2.0, 1e3, 2e3]), &view(&[64.0; 4]));
    let recipe = Recipe { normalized: false, ..Recipe::new(Method::GradCam) };
    for guided in [None, Some(&[1.0; 4][..])] {
        let error = on_device::<f32, f16>(&mut stream, both, guided, &recipe).unwrap_err();
        assert_eq!(
            error.to_string(),
            "grad_cam: the map of sample 1 goes from 64000 to 128000, and its type up to 65504; ask \
             for a normalised map, or for f32"
        );
    }
    let (map, _) = on_device::<f32, f32>(&mut stream, both, None, &recipe).unwrap();
    assert_eq!(map, [64.0, 128.0, 64e3, 128e3]);
}
