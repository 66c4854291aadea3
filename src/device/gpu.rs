//! One device.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::{DriverError, result, sys};

use super::choice::Wanted;
use super::nvrtc::Compiler;
use super::probe::{attribute, compute_capability, device, device_count, driver_version};
use super::{Unavailable, driver_error};
use crate::error::Result;

/// One CUDA device.
///
/// It uses the device's primary context, which is libtorch's own, so that both see the same memory
/// and streams.
///
/// # Example
///
/// ```
/// use medcam::device::Gpu;
///
/// match Gpu::get(0) {
///     Ok(gpu) => println!("{}: sm_{}{}", gpu.name(), gpu.arch().0, gpu.arch().1),
///     Err(error) => assert!(error.is_unavailable(), "{error}"),
/// }
/// ```
pub struct Gpu {
    ordinal: usize,
    name: String,
    arch: (i32, i32),
    multiprocessors: u32,
    limits: Limits,
    context: sys::CUcontext,
    compiler: Compiler,
    /// Why the driver loads no kernels, once it has refused one.
    refused: OnceLock<Unavailable>,
}

// SAFETY: we only pass the context handle to the driver, which takes it from any thread.
unsafe impl Send for Gpu {}
// SAFETY: as above; what changes in it is behind a lock.
unsafe impl Sync for Gpu {}

/// What became of a device, by its number, where that is settled.
type Opened = (usize, Result<&'static Gpu, Unavailable>);

/// The limits of a launch.
pub(super) struct Limits {
    pub threads: u32,
    pub grid: [u32; 3],
    /// Shared memory of a block, static and dynamic.
    pub shared_bytes: u32,
    /// The same for kernels that opt in to more.
    pub shared_opt_in_bytes: u32,
}

impl Gpu {
    /// The device `ordinal`, from 0, as the driver numbers those that the process may see.
    ///
    /// The first call for a device creates its context, where libtorch has not; later ones return the
    /// same. That a device cannot be used is remembered too, unless something is merely missing.
    ///
    /// # Errors
    ///
    /// If the driver, NVRTC or the device is missing, if no NVRTC is there that suits the driver and the device, or
    /// if the driver refused a kernel earlier: [`is_unavailable`](crate::Error::is_unavailable), and the message
    /// says which and what to do.
    pub fn get(ordinal: usize) -> Result<&'static Self> {
        static GPUS: Mutex<Vec<Opened>> = Mutex::new(Vec::new());
        let mut gpus = lock(&GPUS);
        let known = gpus.iter().find(|(known, _)| *known == ordinal);
        if let Some((_, opened)) = known {
            let gpu = opened.clone()?;
            return gpu.usable().map(|()| gpu);
        }
        let count = device_count()?;
        if ordinal >= count {
            let why = format!("device {ordinal} is asked for, and there are {count}, from 0");
            return Err(Unavailable::NoDevice(why).into());
        }
        let failed = || driver_error(format!("opening device {ordinal}"));
        let arch = device(ordinal).and_then(compute_capability).map_err(failed())?;
        let compiler = match Compiler::choose(Wanted { arch, driver: driver_version() }) {
            Ok(compiler) => compiler,
            Err(why) => {
                if why.is_lasting() {
                    gpus.push((ordinal, Err(why.clone())));
                }
                return Err(why.into());
            }
        };
        let gpu = Self::new(ordinal, compiler).map_err(failed())?;
        let gpu: &'static Self = Box::leak(Box::new(gpu));
        gpus.push((ordinal, Ok(gpu)));
        Ok(gpu)
    }

    fn new(ordinal: usize, compiler: Compiler) -> Result<Self, DriverError> {
        use sys::CUdevice_attribute as Attribute;
        let device = device(ordinal)?;
        let ask = |name| attribute(device, name);
        Ok(Self {
            ordinal,
            name: result::device::get_name(device)?,
            arch: compute_capability(device)?,
            multiprocessors: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            limits: Limits {
                threads: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
                grid: [
                    ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                    ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                    ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
                ],
                shared_bytes: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)?,
                shared_opt_in_bytes: ask(
                    Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                )?,
            },
            // SAFETY: `device` is one that the driver gave. The context is never released, as the
            // device lives as long as the process.
            context: unsafe { result::primary_ctx::retain(device) }?,
            compiler,
            refused: OnceLock::new(),
        })
    }

    /// Its number, from 0.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// The name under which NVIDIA sells it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many multiprocessors it has.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Its compute capability: `(9, 0)` is `sm_90`.
    pub fn arch(&self) -> (i32, i32) {
        self.arch
    }

    /// How kernels are compiled for it.
    pub(super) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// An error if the driver has refused a kernel.
    pub(super) fn usable(&self) -> Result<()> {
        self.refused.get().map_or(Ok(()), |why| Err(why.clone().into()))
    }

    /// Remembers that the driver refuses kernels, so that none is compiled in vain again.
    pub(super) fn refuse(&self, why: String) -> Unavailable {
        self.refused.get_or_init(|| Unavailable::Refused(why)).clone()
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Makes the device's context current in this thread until the returned value is dropped.
    pub(super) fn bind(&self) -> Result<Bound> {
        let bind = || {
            let before = result::ctx::get_current()?.unwrap_or(std::ptr::null_mut());
            if before == self.context {
                return Ok(Bound(None));
            }
            // SAFETY: a context that is never released.
            unsafe { result::ctx::set_current(self.context) }?;
            Ok(Bound(Some(before)))
        };
        bind().map_err(driver_error(format_args!("using device {}", self.ordinal)))
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu {} ({}, sm_{}{})", self.ordinal, self.name, self.arch.0, self.arch.1)
    }
}

/// Restores the thread's former context when dropped: libtorch reads its current device from it.
pub(super) struct Bound(Option<sys::CUcontext>);

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // SAFETY: it was this thread's context a moment ago, or none was.
            let _ = unsafe { result::ctx::set_current(before) };
        }
    }
}

/// Locks, poisoned or not: no panic leaves the values behind our mutexes half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
