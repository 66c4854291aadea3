//! Which library this is, and whether it can use a GPU.

use std::ffi::c_char;

use medcam_ops::device::{Unavailable, probe};

use crate::status::{Failure, guarded, medcam_status};

/// The version of this library, such as "0.1.0". It stays as long as the library is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn medcam_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The ABI of this library. A program that was compiled with another `MEDCAM_ABI_VERSION` cannot
/// use it.
///
/// The dynamic linker holds this too, by the name of the library (its soname): call this where the
/// library is loaded with `dlopen`.
#[unsafe(no_mangle)]
pub extern "C" fn medcam_abi_version() -> u32 {
    const fn number(digits: &str) -> u32 {
        match u32::from_str_radix(digits, 10) {
            Ok(number) => number,
            Err(_) => unreachable!(),
        }
    }
    const MAJOR: u32 = number(env!("CARGO_PKG_VERSION_MAJOR"));
    const MINOR: u32 = number(env!("CARGO_PKG_VERSION_MINOR"));
    1000 * MAJOR + if MAJOR == 0 { MINOR } else { 0 }
}

/// Whether workspaces can be made for CUDA device `ordinal`: `MEDCAM_OK`, or `MEDCAM_UNAVAILABLE`
/// and in `medcam_last_error()` what is missing: the driver, NVRTC (which compiles the kernels) or
/// the device.
///
/// Makes no context and takes no memory of the device.
#[unsafe(no_mangle)]
pub extern "C" fn medcam_cuda_status(ordinal: i32) -> medcam_status {
    guarded(|| {
        let devices = probe().map_err(medcam_ops::Error::from)?;
        let there = devices.iter().any(|device| usize::try_from(ordinal) == Ok(device.ordinal));
        if there {
            return Ok(());
        }
        let why = format!("device {ordinal} is asked for, and there are {}, from 0", devices.len());
        Err(Failure::from(medcam_ops::Error::from(Unavailable::NoDevice(why))))
    })
}
