//! Whole networks on a CUDA device against the CPU: all methods, types and orders in memory. Where no device is,
//! they say so and pass, unless MEDCAM_REQUIRE_CUDA=1.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod common;

use common::{Case, Manifest, array, difference, folder};
use medcam::tch::{Kind, Tensor};
use medcam::{
    Attention, Backend, Compat, Device, Evidence, Fuse, Injected, LayerChoice, LayerMaps, Model,
    Needs, Options, Precision, Result, Target, inject, to_array, to_tensor,
};
use ndarray::ArrayD;

const GPU: Device = Device::Cuda(0);

/// Maps are in [0, 1]. Both devices compute in single precision and sum in orders of their own; layers whose
/// weights nearly cancel are not compared.
const TOLERANCE: f32 = 1e-3;

/// Of maps from the same tensors in half precision, of which libtorch's backward may give other last bits from
/// one run to the next.
const HALF_TOLERANCE: f32 = 1e-2;

/// Whether a device is there, and computes in single precision throughout.
fn gpu() -> bool {
    if let Err(why) = GPU.available() {
        assert!(std::env::var_os("MEDCAM_REQUIRE_CUDA").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return false;
    }
    let plain = std::env::var("NVIDIA_TF32_OVERRIDE").is_ok_and(|value| value == "0");
    assert!(plain, "run this with NVIDIA_TF32_OVERRIDE=0: TF32 rounds convolutions to 11 bits");
    true
}

fn target(case: &Case) -> Target {
    let class = case.network.label.as_u64();
    class.map_or(Target::Best, |class| Target::Class(usize::try_from(class).unwrap()))
}

fn injected(case: &Case, device: Device, options: &Options) -> Injected<Model> {
    let model = medcam::load(folder("MEDCAM_NETWORKS").join(case.file), device).unwrap();
    inject(model, options.clone()).unwrap()
}

fn input(case: &Case, device: Device) -> Tensor {
    to_tensor(&array(&case.network.input), device, Kind::Float).unwrap()
}

type Maps = Vec<(String, ArrayD<f32>)>;

/// The maps of a forward that are no noise, by layer and target, and the codes of all warnings.
fn maps(injected: &mut Injected<Model>, input: &Tensor) -> (Maps, Vec<String>) {
    let _output = injected.forward(input).unwrap();
    let warnings = injected.warnings();
    let is_noise = |layer: &str| {
        warnings.iter().any(|warning| warning.code == "WEIGHTS_CANCEL" && warning.layer == layer)
    };
    let maps = injected.attention_maps().iter().filter(|map| !is_noise(map.layer()));
    let maps =
        maps.map(|map| (format!("{}/{}", map.layer(), map.target()), map.to_array().unwrap()));
    let mut codes: Vec<_> =
        warnings.iter().map(|warning| format!("{} {}", warning.code, warning.layer)).collect();
    codes.sort();
    (maps.collect(), codes)
}

fn assert_alike(what: &str, found: &Maps, expected: &Maps, tolerance: f32) {
    let names = |maps: &Maps| maps.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        let off = difference(found, expected);
        assert!(off <= tolerance, "{what} {name}: off by {off}");
    }
}

/// Maps and warnings on the GPU are those of the CPU.
fn check(case: &Case, options: &Options) {
    let what = format!("{} {} {options:?}", case.network.name, case.kind);
    let on_cpu = maps(&mut injected(case, Device::Cpu, options), &input(case, Device::Cpu));
    let on_gpu = maps(&mut injected(case, GPU, options), &input(case, GPU));
    assert_alike(&what, &on_gpu.0, &on_cpu.0, TOLERANCE);
    assert_eq!(on_gpu.1, on_cpu.1, "{what}");
}

#[test]
fn gpu_all_methods_give_the_maps_of_the_cpu() {
    if !gpu() {
        return;
    }
    for case in Manifest::read().cases() {
        for backend in Backend::ALL {
            let options = Options::default().target(target(&case)).backend(backend);
            let is_guided = backend.needs().guided;
            if is_guided
                && injected(&case, Device::Cpu, &options)
                    .forward(&input(&case, Device::Cpu))
                    .is_err()
            {
                // It has nothing that can be guided.
                continue;
            }
            check(&case, &options);
        }
        let options = Options::default().target(target(&case));
        check(&case, &options.clone().backend(Backend::GRAD_CAM_PLUS_PLUS).compat(Compat::M3dCam));
        check(&case, &options.clone().target(Target::Best));
        check(&case, &options.clone().targets(vec![Target::Best, target(&case), Target::All]));
        check(&case, &options.layers(LayerChoice::Full));
    }
}

#[test]
fn gpu_fused_maps_are_those_of_the_cpu() {
    if !gpu() {
        return;
    }
    for case in Manifest::read().cases() {
        for fuse in [Fuse::Mean, Fuse::Max] {
            let options = Options::default().target(target(&case)).layers(LayerChoice::Full);
            check(&case, &options.fuse(fuse));
        }
    }
}

/// Grad-CAM in double precision from the layer's own tensors, by libtorch.
#[derive(Debug)]
struct InDouble;

impl Attention for InDouble {
    fn name(&self) -> &'static str {
        "in_double"
    }
    fn title(&self) -> &'static str {
        "Grad-CAM in double"
    }
    fn needs(&self) -> Needs {
        Needs { layer: true, guided: false }
    }
    fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps> {
        let [a, g] =
            [evidence.activation()?, evidence.gradient()?].map(|t| t.to_kind(Kind::Double));
        let axes: Vec<i64> = (2..a.dim() as i64).collect();
        let weighted = g.mean_dim(&axes[..], true, None) * a;
        let channels: &[i64] = &[1];
        evidence.finish(&weighted.sum_dim_intlist(channels, true, None).relu())
    }
}

static IN_DOUBLE: InDouble = InDouble;

#[test]
fn gpu_half_precision_is_libtorch_in_double_from_the_same_tensors() {
    if !gpu() {
        return;
    }
    for (precision, kind) in [(Precision::Half, Kind::Half), (Precision::BFloat16, Kind::BFloat16)]
    {
        for case in Manifest::read().cases() {
            let run = |backend| {
                let file = folder("MEDCAM_NETWORKS").join(case.file);
                let model = medcam::load(file, GPU).unwrap().in_precision(precision).unwrap();
                let options = Options::default().target(target(&case)).backend(backend);
                maps(&mut inject(model, options).unwrap(), &input(&case, GPU).to_kind(kind)).0
            };
            let expected = run(Backend::new(&IN_DOUBLE));
            // What is noise only Grad-CAM itself says.
            let found = run(Backend::GRAD_CAM);
            if found.len() == expected.len() {
                let what = format!("{} {} {precision:?}", case.network.name, case.kind);
                assert_alike(&what, &found, &expected, HALF_TOLERANCE);
            }
        }
    }
}

/// Channels last in memory, the same in the order of its axes.
fn channels_last(input: &Tensor) -> Tensor {
    let back: Vec<i64> = [0].into_iter().chain(2..input.dim() as i64).chain([1]).collect();
    let mut forth: Vec<i64> = vec![0, input.dim() as i64 - 1];
    forth.extend(1..input.dim() as i64 - 1);
    input.permute(&back).contiguous().permute(&forth)
}

#[test]
fn gpu_orders_in_memory_and_sizes_change_nothing() {
    if !gpu() {
        return;
    }
    for case in Manifest::read().cases() {
        let options = Options::default().target(target(&case));
        let mut one = injected(&case, GPU, &options);
        let input = input(&case, GPU);
        let what = format!("{} {}", case.network.name, case.kind);
        let expected = maps(&mut one, &input).0;
        assert_alike(&what, &maps(&mut one, &channels_last(&input)).0, &expected, TOLERANCE);
        // More samples and fewer: scratch grows, and is used again.
        let twice = Tensor::cat(&[&input, &input], 0);
        for _ in 0..2 {
            let _output = one.forward(&twice).unwrap();
            assert_alike(&what, &maps(&mut one, &input).0, &expected, TOLERANCE);
        }
    }
}

#[test]
fn gpu_maps_stay_there() {
    if !gpu() {
        return;
    }
    let manifest = Manifest::read();
    let case = manifest.cases().next().unwrap();
    let options = Options::default().target(target(&case));
    let mut one = injected(&case, GPU, &options);
    let (_output, map) = one.forward_with_attention(&input(&case, GPU)).unwrap();
    assert_eq!(map.device(), medcam::tch::Device::Cuda(0));
    let values = one.attention_maps()[0].to_array().unwrap();
    assert_eq!(to_array(&map).unwrap(), values);
}

#[test]
fn gpu_two_forwards_in_flight_do_not_mix() {
    if !gpu() {
        return;
    }
    let manifest = Manifest::read();
    let cases: Vec<_> = manifest.cases().take(2).collect();
    let options = |case: &Case| Options::default().target(target(case));
    let expected: Vec<Maps> = cases
        .iter()
        .map(|case| maps(&mut injected(case, GPU, &options(case)), &input(case, GPU)).0)
        .collect();
    std::thread::scope(|scope| {
        for (case, expected) in cases.iter().zip(&expected) {
            scope.spawn(move || {
                let mut one = injected(case, GPU, &options(case));
                for _ in 0..20 {
                    let found = maps(&mut one, &input(case, GPU)).0;
                    assert_alike(case.network.name.as_str(), &found, expected, TOLERANCE);
                }
            });
        }
    });
}

#[test]
fn gpu_input_that_is_not_finite_is_refused() {
    if !gpu() {
        return;
    }
    let manifest = Manifest::read();
    let case = manifest.cases().next().unwrap();
    let mut one = injected(&case, GPU, &Options::default().target(target(&case)));
    let bad = input(&case, GPU).fill_(f64::NAN);
    let error = one.forward(&bad).unwrap_err().to_string();
    assert!(error.starts_with("input: "), "{error}");
    assert!(one.forward(&input(&case, GPU)).is_ok());
}
