//! One device, and the kernels loaded on it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{DriverError, result, sys};

use super::cache::Cache;
use super::probe::{attribute, compute_capability, device, device_count};
use super::{Kernel, Program, Scalar, Unavailable, driver_error, nvrtc};
use crate::error::{Error, Result};

/// A build of a program: its address, as programs are statics, and the type.
type Build = (usize, Scalar);
/// The kernels of a build, in the order of [`Program::kernels`]; `None` until they are loaded.
type Cell = Arc<Mutex<Option<Vec<Kernel>>>>;

/// One CUDA device, with its kernels.
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
    builds: Mutex<HashMap<Build, Cell>>,
}

// SAFETY: we only pass the context handle to the driver, which takes it from any thread.
unsafe impl Send for Gpu {}
// SAFETY: as above; what changes is behind a mutex.
unsafe impl Sync for Gpu {}

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
    /// same.
    ///
    /// # Errors
    ///
    /// If the driver, NVRTC or the device is missing: [`is_unavailable`](Error::is_unavailable), and
    /// the message says which and what to do.
    pub fn get(ordinal: usize) -> Result<&'static Self> {
        static GPUS: Mutex<Vec<&'static Gpu>> = Mutex::new(Vec::new());
        let mut gpus = lock(&GPUS);
        if let Some(gpu) = gpus.iter().find(|gpu| gpu.ordinal == ordinal) {
            return Ok(gpu);
        }
        let count = device_count()?;
        if ordinal >= count {
            let why = format!("device {ordinal} is asked for, and there are {count}, from 0");
            return Err(Unavailable::NoDevice(why).into());
        }
        nvrtc::library()?;
        let gpu = Self::new(ordinal).map_err(driver_error(format!("opening device {ordinal}")))?;
        let gpu: &'static Self = Box::leak(Box::new(gpu));
        gpus.push(gpu);
        Ok(gpu)
    }

    fn new(ordinal: usize) -> Result<Self, DriverError> {
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
            builds: Mutex::default(),
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

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The kernel `entry` of a program, built for `scalar`.
    ///
    /// The first call for a program and type compiles it, or takes it from disk where an earlier
    /// process compiled the same; threads that ask meanwhile wait for that. A failure is not
    /// remembered.
    ///
    /// # Errors
    ///
    /// If the program has no such entry or is not for that type; if it does not compile, with
    /// everything that the compiler said; if the driver does not load it.
    pub fn kernel(
        &'static self,
        program: &'static Program,
        scalar: Scalar,
        entry: &str,
    ) -> Result<Kernel> {
        let stem = program.stem;
        let Some(position) = program.kernels.iter().position(|kernel| kernel.entry == entry) else {
            let entries: Vec<_> = program.kernels.iter().map(|kernel| kernel.entry).collect();
            return Err(Error::input(stem, format!("entry: {entry} is not one of {entries:?}")));
        };
        if !program.scalars.contains(&scalar) {
            let (name, built) = (scalar.name(), program.scalars);
            return Err(Error::input(stem, format!("scalar: {name} is not one of {built:?}")));
        }
        let build = (std::ptr::from_ref(program) as usize, scalar);
        // Lock this build's cell alone, so that other programs can compile meanwhile.
        let cell = Arc::clone(lock(&self.builds).entry(build).or_default());
        let mut cell = lock(&cell);
        let kernels = match &mut *cell {
            Some(kernels) => kernels,
            empty => empty.insert(self.load(program, scalar)?),
        };
        Ok(kernels[position])
    }

    fn load(&'static self, program: &Program, scalar: Scalar) -> Result<Vec<Kernel>> {
        let arch = format!("sm_{}{}", self.arch.0, self.arch.1);
        let cubin = Cache::new(|name| std::env::var_os(name)).cubin(program, scalar, &arch)?;
        let _bound = self.bind()?;
        // SAFETY: machine code that NVRTC made for this device, which tells its own length. The
        // module is never unloaded.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
            .map_err(driver_error(format!("loading kernels/{}.cu for {arch}", program.stem)))?;
        let names = program.kernels.iter().map(|k| format!("{}_{}", k.entry, scalar.name()));
        // SAFETY: the module is one of the bound context.
        names.map(|name| unsafe { Kernel::new(self, module, name) }).collect()
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
