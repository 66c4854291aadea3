//! The tests of whole networks once more, with their maps made by the kernels for a GPU: the driver of
//! `tests/cuda_on_host` runs them on the processor, and libtorch's tensors on the CPU stand for those on its
//! device. What libtorch does there it does on the CPU as ever.
#![cfg(all(feature = "torch", feature = "files"))]
#![cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::Command;

// Shared with `tests/cuda`, which needs all of it.
#[allow(dead_code, reason = "sanitizers and libtorch do not go together")]
#[path = "cuda/on_host/build.rs"]
mod build;

mod common;

use build::{Flavour, Kernels, build, built};
use common::{Manifest, model, tensor};
use medcam::{Backend, Guide, Options, Target, inject, to_array};

/// The programs.
const PROGRAMS: &[&str] =
    &["parity", "backends", "guided", "m3dcam", "network", "outputs", "layers", "device_maps"];

/// Whether this is a process with the driver on the host.
fn is_on_host() -> bool {
    std::env::var_os("MEDCAM_ON_HOST").is_some()
}

#[test]
fn maps_of_whole_networks_made_by_the_kernels() {
    if is_on_host() {
        return;
    }
    let files = build(Flavour::Plain, &Kernels::of(medcam::ops::programs().to_vec()));
    let kernels: Vec<_> = files.libraries.iter().map(|path| path.display().to_string()).collect();
    let mut path = vec![files.driver];
    path.extend(std::env::split_paths(&std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default()));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--locked", "--all-features", "--no-fail-fast"]);
    for program in PROGRAMS {
        command.args(["--test", program]);
    }
    let output = command
        .env("LD_LIBRARY_PATH", std::env::join_paths(path).unwrap())
        .env("MEDCAM_ON_HOST", "1")
        .env("MEDCAM_ON_HOST_KERNELS", kernels.join(":"))
        .env("MEDCAM_ON_HOST_ORDER", "forward")
        .env("MEDCAM_CACHE_DIR", built().join("cache"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// In the other process: the maps are those of the kernels, and stay in the memory in which these made them.
#[test]
fn in_the_other_process_maps_stay_where_they_were_made() {
    if !is_on_host() {
        return;
    }
    let manifest = Manifest::read();
    for backend in Backend::ALL {
        for case in manifest.cases().filter(|case| case.network.name == "unet3d") {
            let options = Options::default().backend(backend).target(Target::Class(0));
            let options = options.guide(Guide::All);
            let mut injected = inject(model(case.file), options.clone()).unwrap();
            let (_output, given) =
                injected.forward_with_attention(&tensor(&case.network.input)).unwrap();
            let map = &injected.attention_maps()[0];
            let [first, second] = [map.tensor().unwrap(), map.tensor().unwrap()];
            assert_eq!(
                first.data_ptr(),
                second.data_ptr(),
                "{backend}: a map of the host is copied"
            );
            assert_eq!(given.data_ptr(), first.data_ptr(), "{backend}");
            assert_eq!(to_array(&first).unwrap(), map.to_array().unwrap(), "{backend}");
        }
    }
}
