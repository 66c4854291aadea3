//! The device layer over a driver that is too old or loads no kernels: `on_host/refusals.rs` runs this with the driver
//! of `tests/cuda_on_host`, which pretends so. Without `MEDCAM_ON_HOST_REFUSAL` there is nothing to do.

use medcam::device::{Gpu, Launch, Scalar, Stream, Unavailable, probe};

use crate::device::PROGRAM;

#[test]
fn refused_case() {
    let Ok(case) = std::env::var("MEDCAM_ON_HOST_REFUSAL") else { return };
    match case.as_str() {
        "loads" => loads(),
        "refuses" => refuses(),
        "is_old" => is_old(),
        "fails" => fails(),
        other => panic!("no case {other}"),
    }
}

fn loads() {
    let stream = Stream::new(Gpu::get(0).unwrap()).unwrap();
    let mut values = stream.allocate::<f32>(3).unwrap();
    let kernel = stream.gpu().kernel(&PROGRAM, Scalar::F32, "fill").unwrap();
    let launch = Launch { grid: [1, 1, 1], block_threads: 64, shared_bytes: 0 };
    // SAFETY: `fill(float*, long long, float)`; 3 values are there.
    unsafe { stream.launch(&kernel, launch, &[&values.slice_mut(), &3_i64, &7.0_f32]) }.unwrap();
    assert_eq!(stream.download(values.slice()).unwrap(), [7.0; 3]);
}

/// The first refusal is the last: other kernels and whoever opens the device are told the same.
fn refuses() {
    let gpu = Gpu::get(0).unwrap();
    let error = |scalar| gpu.kernel(&PROGRAM, scalar, "fill").unwrap_err();
    let first = error(Scalar::F32);
    assert!(first.is_unavailable(), "{first}");
    let others = [error(Scalar::F32), error(Scalar::F16), Gpu::get(0).unwrap_err()];
    for other in others {
        assert!(other.is_unavailable(), "{other}");
        assert_eq!(other.to_string(), first.to_string());
    }
    println!("{first}");
}

fn is_old() {
    let error = Gpu::get(0).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let why = probe().unwrap_err();
    assert!(matches!(why, Unavailable::OldDriver(_)), "{why}");
    assert_eq!(error.to_string(), why.to_string());
    assert_eq!(Gpu::get(0).unwrap_err().to_string(), why.to_string());
    println!("{error}");
}

/// Too little memory, say, is no reason to give the device up.
fn fails() {
    let gpu = Gpu::get(0).unwrap();
    let error = gpu.kernel(&PROGRAM, Scalar::F32, "fill").unwrap_err();
    assert!(error.is_device() && !error.is_unavailable(), "{error}");
    Gpu::get(0).unwrap();
    println!("{error}");
}
