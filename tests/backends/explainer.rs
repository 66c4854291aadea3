//! The core alone: each call gives what it asks for, whatever was asked before, and no call leaves anything behind.

use medcam::tch::Tensor;
use medcam::{
    AttentionMap, Explainer, LayerChoice, MapSize, Model, Options, Request, Settings, Target,
    inject,
};
use ndarray::ArrayD;

use crate::common::{model, tensor};

const NETWORK: &str = "plain2d.traced.pt";

fn input() -> Tensor {
    tensor("plain2d.input.npy")
}

fn explainer() -> Explainer<Model> {
    let settings = Settings { layers: LayerChoice::Full, ..Settings::default() };
    Explainer::new(model(NETWORK), settings).unwrap()
}

fn arrays(maps: &[AttentionMap]) -> Vec<ArrayD<f32>> {
    maps.iter().map(|map| map.to_array().unwrap()).collect()
}

#[test]
fn a_call_does_not_know_of_those_before() {
    let input = input();
    let requests = [
        Request::default(),
        Request { targets: Some(vec![Target::Class(1), Target::Class(0)]), size: None },
        Request { targets: None, size: Some(MapSize::Layer) },
    ];
    let mut kept = explainer();
    let settings = kept.settings().clone();
    for request in requests.iter().chain(requests.iter().rev()) {
        let (again, fresh) =
            (kept.explain(&input, request).unwrap(), explainer().explain(&input, request).unwrap());
        assert_eq!(arrays(&again.maps), arrays(&fresh.maps), "{request:?}");
        assert_eq!(again.warnings, fresh.warnings);
        assert_eq!(again.output, fresh.output);
        assert_eq!(*kept.settings(), settings);
    }
}

#[test]
fn inject_gives_the_maps_and_the_output_of_the_core() {
    let input = input();
    let explanation = explainer().explain(&input, &Request::default()).unwrap();
    let mut injected =
        inject(model(NETWORK), Options::default().layers(LayerChoice::Full)).unwrap();
    let output = injected.forward(&input).unwrap();
    assert_eq!(output, explanation.output);
    assert_eq!(output, explainer().infer(&input).unwrap());
    assert_eq!(arrays(injected.attention_maps()), arrays(&explanation.maps));
    assert_eq!(injected.warnings(), explanation.warnings);
}

#[test]
fn explanations_may_be_made_in_a_worker_thread() {
    let (input, mut explainer) = (input(), explainer());
    let here = explainer.explain(&input, &Request::default()).unwrap();
    let there = std::thread::spawn(move || explainer.explain(&input, &Request::default()));
    assert_eq!(arrays(&there.join().unwrap().unwrap().maps), arrays(&here.maps));
}

#[test]
fn settings_are_plain_values() {
    let settings = Settings {
        targets: vec!["predicted:2".parse().unwrap(), Target::Classes(vec![1, 0])],
        layers: LayerChoice::Names(vec!["a".into(), "b#2".into()]),
        size: MapSize::Exact([1, 2, 3]),
        ..Settings::default()
    };
    assert_eq!(settings, settings.clone());
    assert_ne!(settings, Settings::default());
    let json = serde_json::to_value(&settings).unwrap();
    assert_eq!(json["targets"], serde_json::json!(["predicted:2", [1, 0]]));
    assert_eq!((&json["layers"], &json["compat"]), (&"a,b#2".into(), &"none".into()));
    assert_eq!(json["size"]["exact"], serde_json::json!([1, 2, 3]));
    // A function is equal to itself alone.
    let own = || Target::Function(std::sync::Arc::new(Tensor::shallow_clone));
    let function = own();
    assert_eq!(function, function.clone());
    assert_ne!(function, own());
}
