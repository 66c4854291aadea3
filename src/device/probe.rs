//! Finds the driver, NVRTC and the devices.

use cudarc::driver::{result, sys};

use super::{Unavailable, driver_words, nvrtc};

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

/// The devices that kernels can run on, at least one.
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
    nvrtc::library()?;
    (0..count).map(info).collect()
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
