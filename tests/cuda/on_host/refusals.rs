//! A driver that is too old, or that does not load what NVRTC made or what was kept on disk: `refused.rs` over the
//! driver on the host, which pretends so.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::build::{Flavour, Kernels};
use super::{Outcome, Run};

const REFUSED: &str = "on-host: an image is refused";

/// What the cases are run on.
fn kernels() -> Kernels {
    Kernels::of(vec![&crate::device::PROGRAM])
}

/// The output of a case with these variables, which must pass.
fn run(case: &str, cache: &Path, variables: &[(&str, &str)]) -> String {
    let cache = cache.to_str().unwrap();
    let own = [("MEDCAM_ON_HOST_REFUSAL", case), ("MEDCAM_CACHE_DIR", cache)];
    let variables = [&own[..], variables].concat();
    let tests = ["--exact", "refused::refused_case", "--nocapture"];
    let run =
        Run { flavour: Flavour::Plain, order: "forward", tests: &tests, variables: &variables };
    let Outcome { passed, text } = run.of(&kernels());
    assert!(passed && text.contains("1 passed"), "{case}:\n{text}");
    text
}

fn entries(cache: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_driver_that_refuses_kernels_makes_the_device_unavailable() {
    let cache = tempfile::tempdir().unwrap();
    let no_binary = [("MEDCAM_ON_HOST_LOAD", "209")];
    let text = run("refuses", cache.path(), &no_binary);
    assert_eq!(text.matches(REFUSED).count(), 1, "{text}");
    let words = "the CUDA driver does not load kernels: CUDA_ERROR_NO_BINARY_FOR_GPU";
    assert!(text.contains(words), "{text}");
    assert!(text.contains("made for device 0 (CUDA on the host, sm_75), with a driver"), "{text}");
    assert!(text.contains("update the driver, or name the folder of another NVRTC"), "{text}");
    // What is kept is not trusted: it is compiled anew, once.
    let text = run("refuses", cache.path(), &no_binary);
    assert_eq!(text.matches(REFUSED).count(), 2, "{text}");
    // A driver that loads the code no sooner than it is asked for a kernel.
    let late = [("MEDCAM_ON_HOST_LOAD_LATE", "200")];
    let text = run("refuses", cache.path(), &late);
    assert_eq!(text.matches(REFUSED).count(), 2, "{text}");
    assert!(text.contains("CUDA_ERROR_INVALID_IMAGE"), "{text}");
    let text = run("fails", cache.path(), &[("MEDCAM_ON_HOST_LOAD", "2")]);
    assert_eq!(text.matches(REFUSED).count(), 1, "{text}");
    assert!(text.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{text}");
}

#[test]
fn a_driver_older_than_nvrtc_makes_the_device_unavailable() {
    let cache = tempfile::tempdir().unwrap();
    let text = run("is_old", cache.path(), &[("MEDCAM_ON_HOST_DRIVER_VERSION", "11080")]);
    assert!(text.contains("the CUDA driver is older than NVRTC: "), "{text}");
    assert!(text.contains("and the driver of CUDA 11.8"), "{text}");
}

#[test]
fn a_kept_kernel_that_the_device_does_not_load_is_compiled_anew() {
    let cache = tempfile::tempdir().unwrap();
    let text = run("loads", cache.path(), &[]);
    assert!(!text.contains("on-host: "), "{text}");
    let [entry] = &entries(cache.path())[..] else { panic!("one build") };
    let whole = fs::read(entry).unwrap();
    // As an entry is written, so that its digest is right.
    let format = &whole[..=whole.iter().position(|&byte| byte == b'\n').unwrap()];
    let damaged = b"no machine code";
    fs::write(entry, [format, &Sha256::digest(damaged)[..], damaged].concat()).unwrap();
    let text = run("loads", cache.path(), &[]);
    assert_eq!(text.matches("on-host: an image without kernels").count(), 1, "{text}");
    assert_eq!(fs::read(entry).unwrap(), whole);
}
