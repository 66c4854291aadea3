//! What is missing on a machine is a value, and never a panic: no driver, one that does not start,
//! one that sees no device, no NVRTC. Each case is a process of its own, this test program again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::path::Path;
use std::process::Command;

use medcam::device::{Gpu, Program, Scalar, compile, probe};

static EMPTY: Program = Program {
    stem: "empty",
    source: "extern \"C\" __global__ void empty_f32() {}",
    scalars: &[Scalar::F32],
    defines: &[],
    kernels: &[],
};

/// What `probe` says here, in whatever surroundings this is run.
#[test]
fn probing_opening_and_compiling_agree() {
    let (probed, opened) = (probe(), Gpu::get(4096).map(|_| ()));
    let compiled = compile(&EMPTY, Scalar::F32, "sm_90", &[]).map(|_| ());
    println!("probe: {probed:?}\ncompile: {compiled:?}");
    let error = opened.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    match &probed {
        Ok(devices) => {
            assert!(devices.iter().enumerate().all(|(i, device)| device.ordinal == i));
            assert!(error.to_string().contains("device 4096 is asked for"), "{error}");
            assert!(compiled.is_ok());
        }
        Err(medcam::device::Unavailable::NoNvrtc(why)) => {
            assert!(compiled.as_ref().is_err_and(medcam::Error::is_unavailable));
            assert!(compiled.unwrap_err().to_string().contains(why));
        }
        Err(
            medcam::device::Unavailable::OldDriver(_)
            | medcam::device::Unavailable::UnknownArchitecture(_),
        ) => {
            // Device 4096 is not there; device 0 is, and both say why it is of no use.
            let first = Gpu::get(0).map(|_| ()).unwrap_err();
            assert!(first.is_unavailable(), "{first}");
            assert_eq!(first.to_string(), probed.unwrap_err().to_string());
            assert_eq!(Gpu::get(0).map(|_| ()).unwrap_err().to_string(), first.to_string());
        }
        Err(why) => assert_eq!(error.to_string(), why.to_string()),
    }
}

/// What the test above prints in a process with these variables.
fn run(variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "probing_opening_and_compiling_agree", "--nocapture"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// `LD_LIBRARY_PATH` with a folder in front.
fn in_front(folder: &Path) -> String {
    let path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    format!("{}:{path}", folder.display())
}

#[test]
fn a_driver_that_cannot_be_loaded_is_no_driver() {
    let folder = tempfile::tempdir().unwrap();
    // Stands in front of one that this machine may have under the same names.
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::fs::write(folder.path().join(name), "no library").unwrap();
    }
    if probe().is_ok() {
        println!("skipped: the loader goes on to the driver of this machine");
        return;
    }
    let text = run(&[("LD_LIBRARY_PATH", &in_front(folder.path()))]);
    assert!(text.contains("probe: Err(NoDriver(\"libcuda.so.1 does not load; install"), "{text}");
}

/// A folder with the driver of `tests/device/driver.c`.
fn stub_driver() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .arg(folder.path().join("libcuda.so"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/driver.c"))
        .status()
        .unwrap();
    assert!(built.success());
    folder
}

#[test]
fn a_driver_without_device_or_that_does_not_start_is_a_value() {
    let folder = stub_driver();
    let path = in_front(folder.path());
    let with = |init, devices, other| {
        run(&[("LD_LIBRARY_PATH", &path), ("STUB_INIT", init), ("STUB_DEVICES", devices), other])
    };
    let nothing = ("CUDA_VISIBLE_DEVICES", "");

    for (init, devices) in [("0", "0"), ("100", "0"), ("0", "-1")] {
        let text = with(init, devices, nothing);
        assert!(text.contains("probe: Err(NoDevice(\"the driver sees none"), "{text}");
    }
    let text = with("0", "0", ("CUDA_VISIBLE_DEVICES", "7"));
    assert!(text.contains("the driver sees none with CUDA_VISIBLE_DEVICES=7"), "{text}");
    let text = with("803", "0", nothing);
    assert!(text.contains("probe: Err(NoDriver(\"the driver does not start: CUDA_ERROR_SYSTEM"));

    let text = with("0", "2", nothing);
    assert!(text.contains("probe: Ok([GpuInfo { ordinal: 0, name: \"stub\""), "{text}");
    assert!(text.contains("ordinal: 1") && text.contains("compute_capability: (9, 9)"), "{text}");

    let empty = folder.path().to_str().unwrap();
    let text = with("0", "2", ("MEDCAM_NVRTC", empty));
    let expected = format!("probe: Err(NoNvrtc(\"MEDCAM_NVRTC={empty} has no libnvrtc.so; install");
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_driver_older_than_nvrtc_or_a_device_that_nvrtc_does_not_know_is_a_value() {
    let folder = stub_driver();
    let path = in_front(folder.path());
    let with = |version, arch| {
        let stub = [("STUB_DEVICES", "1"), ("STUB_VERSION", version), ("STUB_ARCH", arch)];
        run(&[&stub[..], &[("LD_LIBRARY_PATH", path.as_str())]].concat())
    };
    let text = with("11040", "80");
    assert!(text.contains("probe: Err(OldDriver(\""), "{text}");
    assert!(text.contains("and the driver of CUDA 11.4"), "{text}");
    assert!(text.contains("update the driver, or install NVRTC of CUDA 11"), "{text}");
    // No NVRTC compiles for a device of Fermi's time any more, nor yet for the last one.
    for arch in ["20", "999"] {
        let text = with("99000", arch);
        assert!(text.contains("probe: Err(UnknownArchitecture(\""), "{text}");
        assert!(text.contains(&format!("does not compile for sm_{arch}")), "{text}");
    }
    // Code for 8.0 runs on a device of 8.1, which is none that there is.
    assert!(with("99000", "81").contains("compute_capability: (8, 1)"));
}

#[test]
fn without_nvrtc_nothing_is_compiled_and_the_reason_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().to_str().unwrap();
    let text = run(&[("MEDCAM_NVRTC", empty)]);
    assert!(text.contains("compile: Err(Error { kind: Unavailable, message: \"no NVRTC"), "{text}");
    assert!(text.contains("has no libnvrtc.so"), "{text}");

    std::fs::write(folder.path().join("libnvrtc.so.13"), "no library").unwrap();
    let text = run(&[("MEDCAM_NVRTC", empty)]);
    assert!(text.contains("libnvrtc.so.13: file too short"), "{text}");
}

/// A folder with links to NVRTC and its builtins, under names that `rename` makes of theirs. `None` where
/// MEDCAM_NVRTC names no folder.
fn renamed_nvrtc(rename: impl Fn(&str) -> Option<String>) -> Option<tempfile::TempDir> {
    let Some(original) = std::env::var_os("MEDCAM_NVRTC") else {
        println!("skipped: MEDCAM_NVRTC is not set");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(original).unwrap() {
        let file = file.unwrap();
        if let Some(name) = rename(&file.file_name().to_string_lossy()) {
            std::os::unix::fs::symlink(file.path(), folder.path().join(name)).unwrap();
        }
    }
    Some(folder)
}

/// As in the libtorch that comes as an archive: a hash in the name of NVRTC, and none in that of its builtins.
fn with_hash(name: &str) -> Option<String> {
    let number =
        name.strip_prefix("libnvrtc.so.").map(|number| format!("libnvrtc-b51b459d.so.{number}"));
    number.or_else(|| name.starts_with("libnvrtc-builtins.so").then(|| name.to_owned()))
}

#[test]
fn nvrtc_with_a_hash_in_its_name_compiles() {
    let Some(folder) = renamed_nvrtc(with_hash) else { return };
    // A newer library that does not load is passed over.
    std::fs::write(folder.path().join("libnvrtc.so.99"), "no library").unwrap();
    let text = run(&[("MEDCAM_NVRTC", folder.path().to_str().unwrap())]);
    assert!(text.contains("compile: Ok(())"), "{text}");
}

#[test]
fn nvrtc_without_its_builtins_is_unavailable() {
    let alone = |name: &str| with_hash(name).filter(|name| !name.contains("builtins"));
    let Some(folder) = renamed_nvrtc(alone) else { return };
    let text = run(&[("MEDCAM_NVRTC", folder.path().to_str().unwrap())]);
    assert!(text.contains("compile: Err(Error { kind: Unavailable, "), "{text}");
    assert!(
        text.contains("does not find its libnvrtc-builtins.so, which belongs beside"),
        "{text}"
    );
}
