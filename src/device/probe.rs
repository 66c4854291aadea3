//! Finds the driver, NVRTC and the devices.

use cudarc::driver::{result, sys};

use super::choice::{Version, Wanted};
use super::nvrtc::Compiler;
use super::{Unavailable, driver_words};

/// A CUDA device, as [`probe()`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Index of the device, from 0, among those visible to the process.
    pub ordinal: usize,
    /// Product name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability: `(9, 0)` is `sm_90`.
    pub compute_capability: (i32, i32),
    /// Total memory, used or not.
    pub memory_bytes: usize,
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
}

/// The devices that kernels can run on, at least one. A device for which no NVRTC compiles is left out.
///
/// Queries the driver at each call (a few microseconds once the libraries are loaded); allocates nothing
/// on the devices.
///
/// # Errors
///
/// [`Unavailable`] says what is missing. A missing library never panics.
///
/// # Example
///
/// ```
/// match medcam::device::probe() {
///     Ok(devices) => assert_eq!(devices[0].ordinal, 0),
///     Err(why) => println!("the CPU, then: {why}"),
/// }
/// ```
pub fn probe() -> Result<Vec<GpuInfo>, Unavailable> {
    let count = device_count()?;
    let driver = driver_version();
    let (mut usable, mut why) = (Vec::new(), None);
    for ordinal in 0..count {
        let info = info(ordinal)?;
        match Compiler::choose(Wanted { arch: info.compute_capability, driver }) {
            Ok(_) => usable.push(info),
            Err(unavailable) => why = why.or(Some(unavailable)),
        }
    }
    match why {
        Some(why) if usable.is_empty() => Err(why),
        _ => Ok(usable),
    }
}

/// The newest version of CUDA that the driver is for; `None` if it does not say. The driver must be there.
pub(super) fn driver_version() -> Option<Version> {
    type Ask = unsafe extern "C" fn(*mut std::ffi::c_int) -> sys::CUresult;
    let mut version = 0;
    // SAFETY: the caller has found the driver; the type is that of cuda.h.
    let asked = unsafe { sys::culib().get::<Ask>(c"cuDriverGetVersion").ok()?(&mut version) };
    // 12040 is 12.4.
    asked.result().ok().filter(|()| version > 0).map(|()| (version / 1000, version % 1000 / 10))
}

/// How many devices the driver sees, at least one.
pub(super) fn device_count() -> Result<usize, Unavailable> {
    start_driver()?;
    let count =
        result::device::get_count().map_err(|error| Unavailable::NoDevice(driver_words(error)))?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Unavailable::NoDevice(no_device())),
    }
}

fn no_device() -> String {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(visible) => format!("the driver sees none with CUDA_VISIBLE_DEVICES={visible}"),
        Err(_) => "the driver sees none".to_owned(),
    }
}

fn start_driver() -> Result<(), Unavailable> {
    // SAFETY: loading libcuda runs its constructors, as any program that links it does. cudarc
    // panics where the library is missing, so nothing else of the driver is touched before this.
    if !unsafe { sys::is_culib_present() } {
        let why = "libcuda.so.1 does not load; install NVIDIA's driver, or its container toolkit";
        return Err(Unavailable::NoDriver(why.to_owned()));
    }
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => Unavailable::NoDevice(no_device()),
        _ => Unavailable::NoDriver(format!("the driver does not start: {}", driver_words(error))),
    })
}

fn info(ordinal: usize) -> Result<GpuInfo, Unavailable> {
    let ask = || {
        let device = device(ordinal)?;
        // SAFETY: `device` is one that the driver gave.
        let memory_bytes = unsafe { result::device::total_mem(device) }?;
        Ok(GpuInfo {
            ordinal,
            name: result::device::get_name(device)?,
            compute_capability: compute_capability(device)?,
            memory_bytes,
            multiprocessors: attribute(
                device,
                sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            )?,
        })
    };
    ask().map_err(|error: result::DriverError| {
        Unavailable::NoDevice(format!("device {ordinal}: {}", driver_words(error)))
    })
}

pub(super) fn device(ordinal: usize) -> Result<sys::CUdevice, result::DriverError> {
    // No machine has 2^31 devices; the driver refuses the number.
    result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))
}

pub(super) fn compute_capability(device: sys::CUdevice) -> Result<(i32, i32), result::DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: `device` is one that the driver gave.
    unsafe {
        Ok((
            result::device::get_attribute(device, MAJOR)?,
            result::device::get_attribute(device, MINOR)?,
        ))
    }
}

/// A limit or count of a device; none is negative.
pub(super) fn attribute(
    device: sys::CUdevice,
    attribute: sys::CUdevice_attribute,
) -> Result<u32, result::DriverError> {
    // SAFETY: `device` is one that the driver gave.
    let value = unsafe { result::device::get_attribute(device, attribute) }?;
    Ok(u32::try_from(value).unwrap_or(0))
}
