//! All attention methods and the options of `inject`, on real TorchScript networks: properties that
//! hold whatever the numbers are. The numbers are in `parity.rs`, `guided.rs` and `m3dcam.rs`.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;
mod backends {
    mod archives;
    mod calls;
    mod explainer;
    mod several;
    mod warnings;
}

use std::sync::Mutex;

use common::{Manifest, difference, model, tensor};
use medcam::tch::{Kind, Tensor};
use medcam::{
    Attention, AttentionMap, Backend, Device, Evidence, Guide, Injected, LayerChoice, LayerMaps,
    Model, Needs, Options, Result, Target, inject, to_array,
};
use ndarray::{ArrayD, Axis};

/// Maps are in [0, 1]. Convolutions of another batch size sum in another order, and products of
/// maps and differences with cancellation amplify the rounding.
const TOLERANCE: f32 = 1e-4;

/// Grad-CAM++'s denominator may pass through 0 where activations are negative, which amplifies the
/// network's rounding: see `alpha_weights::bound`.
fn tolerance(backend: Backend) -> f32 {
    if backend == Backend::GRAD_CAM_PLUS_PLUS { 5e-3 } else { TOLERANCE }
}

fn injected(file: &str, options: Options) -> Injected<Model> {
    inject(model(file), options.guide(Guide::All)).unwrap()
}

fn maps_of(injected: &Injected<Model>) -> Vec<(String, ArrayD<f32>)> {
    let named = |map: &AttentionMap| (map.layer().to_owned(), map.to_array().unwrap());
    injected.attention_maps().iter().map(named).collect()
}

/// The greatest difference between the maps of two forwards, over the layers whose map single
/// precision determines.
fn worst(a: &[(String, ArrayD<f32>)], b: &[(String, ArrayD<f32>)], unstable: &[String]) -> f32 {
    assert_eq!(a.len(), b.len());
    let stable = a.iter().zip(b).filter(|((name, _), _)| !unstable.contains(name));
    stable
        .map(|((name, a), (other, b))| {
            assert_eq!(name, other);
            difference(a, b)
        })
        .fold(0.0, f32::max)
}

#[test]
fn a_batch_gives_what_its_samples_give_for_every_backend() {
    for case in Manifest::read().cases().filter(|case| case.kind == "traced") {
        let input = tensor(&case.network.input);
        for backend in Backend::ALL {
            let mut injected =
                injected(case.file, Options::default().backend(backend).target(Target::Class(0)));
            let _output = injected.forward(&input).unwrap();
            let batch = maps_of(&injected);
            for sample in 0..3_usize {
                let single = input.narrow(0, i64::try_from(sample).unwrap(), 1);
                let _output = injected.forward(&single).unwrap();
                let of_batch: Vec<_> = batch
                    .iter()
                    .map(|(name, map)| {
                        let slice = (sample..=sample).into();
                        (name.clone(), map.slice_axis(Axis(0), slice).to_owned())
                    })
                    .collect();
                let worst = worst(&maps_of(&injected), &of_batch, &case.layers.unstable);
                assert!(
                    worst <= tolerance(backend),
                    "{} {backend:?} {sample}: {worst}",
                    case.network.name
                );
            }
        }
    }
}

#[test]
fn in_place_and_out_of_place_twins_agree_for_every_backend() {
    let mut twins = 0;
    for case in Manifest::read().cases() {
        let Some(twin) = case.twin else { continue };
        let input = tensor(&case.network.input);
        for backend in Backend::ALL {
            let maps = |file| {
                let options = Options::default().backend(backend).target(Target::Class(0));
                let mut injected = injected(file, options);
                let _output = injected.forward(&input).unwrap();
                maps_of(&injected)
            };
            let worst = worst(&maps(case.file), &maps(twin), &case.layers.unstable);
            assert!(worst <= tolerance(backend), "{} {backend:?}: {worst}", case.network.name);
        }
        twins += 1;
    }
    assert!(twins >= 8, "{twins}");
}

#[test]
fn the_output_is_the_models_own_bit_for_bit_for_every_backend() {
    for case in Manifest::read().cases() {
        let input = tensor(&case.network.input);
        let own = to_array(&model(case.file).forward(&input).unwrap()).unwrap();
        for backend in Backend::ALL {
            let mut injected = injected(case.file, Options::default().backend(backend));
            let output = injected.forward(&input).unwrap();
            assert!(!output.requires_grad());
            let bits = |array: &ArrayD<f32>| array.mapv(f32::to_bits);
            let what = format!("{} {} {backend:?}", case.network.name, case.kind);
            assert_eq!(bits(&own), bits(&to_array(&output).unwrap()), "{what}");
        }
    }
}

/// Guided Grad-CAM equals Grad-CAM's map times the guided gradient, each from a run of its own.
#[test]
fn guided_grad_cam_is_the_product_of_the_two() {
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == "resnet18").unwrap();
    let input = tensor(&case.network.input);
    let run = |backend| {
        let mut injected =
            injected(case.file, Options::default().backend(backend).target(Target::Class(3)));
        let _output = injected.forward(&input).unwrap();
        injected.attention_maps()[0].clone()
    };
    let [cam, guided, product] =
        [Backend::GRAD_CAM, Backend::GUIDED_BACKPROPAGATION, Backend::GUIDED_GRAD_CAM].map(run);
    for b in 0..3 {
        let raw = |map: &AttentionMap| {
            let range = map.ranges()[b];
            let of_sample = map.values().unwrap().index_axis(Axis(0), b).to_owned();
            of_sample.mapv(|v| v * (range.maximum - range.minimum) + range.minimum)
        };
        let (expected, range) = (raw(&cam) * raw(&guided), product.ranges()[b]);
        let span = range.maximum - range.minimum;
        let error = (&raw(&product) - &expected).mapv(f32::abs).fold(0.0, |a, b| b.max(a));
        assert!(error <= 1e-4 * span, "{error} of {span}");
    }
}

#[test]
fn a_method_of_ones_own_is_injected() {
    #[derive(Debug)]
    struct Mean;
    impl Attention for Mean {
        fn name(&self) -> &'static str {
            "mean"
        }
        fn title(&self) -> &'static str {
            "Mean activation"
        }
        fn needs(&self) -> Needs {
            Needs { layer: true, guided: false }
        }
        fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps> {
            let channels: &[i64] = &[1];
            let mean = evidence.activation()?.mean_dim(channels, true, None);
            *SEEN.lock().unwrap() = Some(to_array(&mean)?);
            evidence.finish(&mean)
        }
    }
    static SEEN: Mutex<Option<ArrayD<f32>>> = Mutex::new(None);
    static MEAN: Mean = Mean;
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == "plain3d").unwrap();
    let mut injected = injected(case.file, Options::default().backend(Backend::new(&MEAN)));
    let _output = injected.forward(&tensor(&case.network.input)).unwrap();
    let map = &injected.attention_maps()[0];
    let mean = SEEN.lock().unwrap().take().unwrap();
    let mean = medcam::to_tensor(&mean, Device::Cpu, Kind::Double).unwrap();
    let mean = mean.upsample_trilinear3d([18, 20, 22], false, None, None, None);
    let of_samples: Vec<Tensor> =
        (0..3).map(|b| mean.get(b)).map(|x| (&x - x.min()) / (x.max() - x.min())).collect();
    let expected = to_array(&Tensor::stack(&of_samples, 0)).unwrap();
    assert_eq!(map.to_array().unwrap().shape(), expected.shape());
    assert!(difference(&map.to_array().unwrap(), &expected) <= 1e-6);
}

/// Layers share one backward, yet each map is that of its own run.
#[test]
fn full_gives_the_maps_that_each_layer_gives_alone() {
    for name in ["plain3d", "unet2d", "shared2d"] {
        let manifest = Manifest::read();
        let case = manifest.cases().find(|case| case.network.name == name).unwrap();
        let input = tensor(&case.network.input);
        for backend in Backend::ALL.into_iter().filter(|backend| backend.needs().layer) {
            let options = || Options::default().backend(backend).target(Target::Class(0));
            let mut full = injected(case.file, options().layers(LayerChoice::Full));
            let _output = full.forward(&input).unwrap();
            for map in full.attention_maps() {
                if case.layers.unstable.contains(&map.layer().to_owned()) {
                    continue;
                }
                let choice = LayerChoice::Names(vec![map.layer().to_owned()]);
                let mut alone = injected(case.file, options().layers(choice));
                let _output = alone.forward(&input).unwrap();
                let difference = difference(
                    &map.to_array().unwrap(),
                    &alone.attention_maps()[0].to_array().unwrap(),
                );
                assert!(
                    difference <= TOLERANCE,
                    "{name} {backend:?} {}: {difference}",
                    map.layer()
                );
            }
        }
    }
}
