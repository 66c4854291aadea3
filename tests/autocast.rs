//! Autocast that the calling thread has switched on: libtorch applies its casts to the tapped graph
//! as to the model's own. (Autocast within a scripted forward: `tests/wild/cases.py`.)
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Manifest, difference, model, tensor};
use medcam::tch::Tensor;
use medcam::{Options, inject, to_array};

// SAFETY: libtorch's function of this mangled name takes a device type of one byte and a bool, and
// sets a variable of the calling thread.
unsafe extern "C" {
    #[link_name = "_ZN2at8autocast20set_autocast_enabledEN3c1010DeviceTypeEb"]
    safe fn set_autocast_enabled(device_type: i8, enabled: bool);
}

/// `c10::DeviceType::CPU`.
const CPU: i8 = 0;

fn under_autocast<T>(call: impl FnOnce() -> T) -> T {
    set_autocast_enabled(CPU, true);
    let result = call();
    set_autocast_enabled(CPU, false);
    result
}

#[test]
fn outputs_are_the_models_own_under_autocast_and_after_it() {
    let manifest = Manifest::read();
    for case in manifest.cases().filter(|case| case.network.task == "classification") {
        let input: Tensor = tensor(&case.network.input);
        let (plain, mut injected) =
            (model(case.file), inject(model(case.file), Options::default()).unwrap());
        let bits = |output: &Tensor| to_array(output).unwrap();
        let maps =
            |injected: &medcam::Injected<_>| injected.attention_maps()[0].to_array().unwrap();

        let before = bits(&injected.forward(&input).unwrap());
        let map = maps(&injected);
        let own = under_autocast(|| bits(&plain.forward(&input).unwrap()));
        let under = under_autocast(|| bits(&injected.forward(&input).unwrap()));
        assert_eq!(under, own, "{} {}", case.network.name, case.kind);
        assert_ne!(under, before, "{} {}: autocast was off", case.network.name, case.kind);
        let off = difference(&maps(&injected), &map);
        assert!(off < 0.1, "{} {}: a map off by {off}", case.network.name, case.kind);

        assert_eq!(bits(&injected.forward(&input).unwrap()), before);
        assert_eq!(maps(&injected), map);
    }
}
