//! Several targets and layers from one forward.

use medcam::tch::Kind;
use medcam::{Fuse, LayerChoice, Options, Target};
use ndarray::{ArrayD, Axis, Zip};

use crate::common::{Case, Manifest, difference, model, tensor};
use crate::{TOLERANCE, injected};

fn with_case(name: &str, run: impl Fn(&Case)) {
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == name).unwrap();
    run(&case);
}

fn maps(case: &Case, options: Options) -> Vec<(String, ArrayD<f32>)> {
    let mut injected = injected(case.file, options);
    let _output = injected.forward(&tensor(&case.network.input)).unwrap();
    let named = |map: &medcam::AttentionMap| (map.target().to_owned(), map.to_array().unwrap());
    injected.attention_maps().iter().map(named).collect()
}

#[test]
fn several_classes_from_one_forward_equal_each_alone() {
    for name in ["plain2d", "unet2d", "plain3d"] {
        with_case(name, |case| {
            let targets = [Target::Class(2), Target::All, Target::Class(0)];
            let together = maps(case, Options::default().targets(targets.clone()));
            let labels: Vec<_> = together.iter().map(|(label, _)| label.as_str()).collect();
            assert_eq!(labels, ["class2", "all", "class0"]);
            for ((label, map), target) in together.iter().zip(targets) {
                let alone = &maps(case, Options::default().target(target))[0].1;
                let difference = difference(map, alone);
                assert!(difference <= 1e-6, "{name} {label}: {difference}");
            }
        });
    }
}

#[test]
fn each_is_every_class() {
    with_case("plain2d", |case| {
        let output = model(case.file).forward(&tensor(&case.network.input)).unwrap();
        let classes = usize::try_from(output.size()[1]).unwrap();
        let each = maps(case, Options::default().target(Target::Each));
        assert_eq!(each.len(), classes);
        let last = maps(case, Options::default().target(Target::Class(classes - 1)));
        assert!(difference(&each[classes - 1].1, &last[0].1) <= 1e-6);
    });
}

/// A network that predicts several components of a class has a map for each, and the maps differ.
#[test]
fn components_have_a_map_each() {
    with_case("unet2d", |case| {
        let input = tensor(&case.network.input);
        let output = model(case.file).forward(&input).unwrap();
        let class = 1;
        let predicted = output.argmax(1, false).eq(class).to_kind(Kind::Float);
        let predicted = medcam::to_array(&predicted).unwrap();
        let most = predicted.outer_iter().map(|sample| count(&sample.to_owned())).max().unwrap();
        assert!(most >= 2, "the network predicts {most} component(s): nothing is tested");
        let components = maps(case, Options::default().target(Target::Components(1)));
        assert_eq!(components.len(), most.min(64));
        assert_eq!(components[0].0, "component1");
        assert!(difference(&components[0].1, &components[1].1) > TOLERANCE);
    });
}

/// Counts the components of a 2D mask by flood fill.
fn count(mask: &ArrayD<f32>) -> usize {
    let mut open = mask.clone();
    let (height, width) = (mask.shape()[0], mask.shape()[1]);
    let mut found = 0;
    for start in 0..height * width {
        if open[[start / width, start % width]] == 0.0 {
            continue;
        }
        found += 1;
        let mut stack = vec![(start / width, start % width)];
        while let Some((y, x)) = stack.pop() {
            if std::mem::replace(&mut open[[y, x]], 0.0) == 0.0 {
                continue;
            }
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    stack.push((ny, nx));
                }
            }
        }
    }
    found
}

#[test]
fn fused_layers_are_the_mean_or_the_greatest_normalised() {
    with_case("plain3d", |case| {
        let names = LayerChoice::Names(vec!["block1".into(), "block2.1".into(), "pool".into()]);
        let layers = maps(case, Options::default().target(Target::Class(1)).layers(names.clone()));
        for (fuse, of) in [
            (Fuse::Mean, (|a, b| a + b) as fn(f32, f32) -> f32),
            (Fuse::Max, |a: f32, b: f32| a.max(b)),
        ] {
            let options =
                Options::default().target(Target::Class(1)).layers(names.clone()).fuse(fuse);
            let fused = &maps(case, options)[..];
            assert_eq!(fused.len(), 1);
            let mut expected = layers[0].1.clone();
            for (_, map) in &layers[1..] {
                Zip::from(&mut expected).and(map).for_each(|a, &b| *a = of(*a, b));
            }
            for mut sample in expected.axis_iter_mut(Axis(0)) {
                let low = sample.fold(f32::INFINITY, |a, &b| a.min(b));
                let high = sample.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                sample.mapv_inplace(|v| (v - low) / (high - low));
            }
            assert!(difference(&fused[0].1, &expected) <= 1e-6);
        }
    });
}
