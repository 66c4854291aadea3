//! The kernels that are loaded on each device.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use cudarc::driver::{DriverError, result, sys};

use super::cache::Cache;
use super::choice::arch_name;
use super::gpu::lock;
use super::probe::driver_version;
use super::{Gpu, Kernel, Program, Scalar, driver_error, driver_words};
use crate::error::{Error, Result};

/// A build of a program: the device, the program by its address (programs are statics), and the type.
type Build = (usize, usize, Scalar);
/// The kernels of a build, in the order of [`Program::kernels`]; `None` until they are loaded.
type Cell = Arc<Mutex<Option<Vec<Kernel>>>>;

/// All builds of this process. None is ever unloaded: devices live as long as the process.
static BUILDS: LazyLock<Mutex<HashMap<Build, Cell>>> = LazyLock::new(Mutex::default);

impl Gpu {
    /// The kernel `entry` of a program, built for `scalar`.
    ///
    /// The first call for a program and type compiles it, or takes it from disk where an earlier
    /// process compiled the same; threads that ask meanwhile wait for that. That a program does not compile is not
    /// remembered; that the driver does not load what NVRTC made is, and no kernel is loaded on the device from
    /// then on.
    ///
    /// # Errors
    ///
    /// If the program has no such entry or is not for that type; if it does not compile, with
    /// everything that the compiler said; [`is_unavailable`](Error::is_unavailable) if the driver refuses to load it.
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
        self.usable()?;
        let build = (self.ordinal(), std::ptr::from_ref(program) as usize, scalar);
        // Lock this build's cell alone, so that other programs can compile meanwhile.
        let cell = Arc::clone(lock(&BUILDS).entry(build).or_default());
        let mut cell = lock(&cell);
        let kernels = match &mut *cell {
            Some(kernels) => kernels,
            empty => empty.insert(self.load(program, scalar)?),
        };
        Ok(kernels[position])
    }

    fn load(&'static self, program: &Program, scalar: Scalar) -> Result<Vec<Kernel>> {
        let (cache, compiler) = (Cache::new(|name| std::env::var_os(name)), self.compiler());
        let kept = cache.kept(program, scalar, compiler);
        let is_kept = kept.is_some();
        let cubin = kept.map_or_else(|| cache.build(program, scalar, compiler), Ok)?;
        let _bound = self.bind()?;
        let load = |cubin: &[u8]| -> Result<Vec<Kernel>, (DriverError, String)> {
            let stem = program.stem;
            let failed = |what: String| move |error| (error, format!("loading {what}"));
            // SAFETY: machine code that NVRTC made for this device, which tells its own length. The
            // module is never unloaded.
            let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }
                .map_err(failed(format!("kernels/{stem}.cu for {}", compiler.arch())))?;
            let names = program.kernels.iter().map(|k| format!("{}_{}", k.entry, scalar.name()));
            // The driver may put off the loading of machine code until it is asked for a kernel.
            let kernel = |name: String| {
                // SAFETY: the module is one of the bound context.
                unsafe { Kernel::new(self, module, name.clone()) }
                    .map_err(failed(format!("{name} of kernels/{stem}.cu")))
            };
            names.map(kernel).collect()
        };
        let mut loaded = load(&cubin);
        if is_kept && loaded.as_ref().is_err_and(|(error, _)| is_refusal(*error)) {
            // What is kept may have been damaged before it was written.
            loaded = load(&cache.build(program, scalar, compiler)?);
        }
        loaded.map_err(|(error, what)| {
            if is_refusal(error) {
                self.refuse(refusal(self, error)).into()
            } else {
                driver_error(what)(error)
            }
        })
    }
}

/// Whether the driver says that machine code is not for it or for the device.
fn is_refusal(error: DriverError) -> bool {
    use sys::CUresult::{
        CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_PTX, CUDA_ERROR_INVALID_SOURCE,
        CUDA_ERROR_JIT_COMPILATION_DISABLED, CUDA_ERROR_JIT_COMPILER_NOT_FOUND,
        CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
    };
    matches!(
        error.0,
        CUDA_ERROR_INVALID_IMAGE
            | CUDA_ERROR_INVALID_PTX
            | CUDA_ERROR_INVALID_SOURCE
            | CUDA_ERROR_JIT_COMPILATION_DISABLED
            | CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUDA_ERROR_NOT_SUPPORTED
            | CUDA_ERROR_UNSUPPORTED_PTX_VERSION
    )
}

/// What the driver refused, and what to do.
fn refusal(gpu: &Gpu, error: DriverError) -> String {
    let compiler = gpu.compiler();
    let of = |version: Option<(i32, i32)>| {
        version.map_or("an unknown version".to_owned(), |(major, minor)| format!("{major}.{minor}"))
    };
    format!(
        "{} for code of {} that {} (CUDA {}) made for device {} ({}, {}), with a driver of CUDA {}; \
         update the driver, or name the folder of another NVRTC in MEDCAM_NVRTC",
        driver_words(error),
        compiler.arch(),
        compiler.library(),
        of(Some(compiler.version())),
        gpu.ordinal(),
        gpu.name(),
        arch_name(gpu.arch()),
        of(driver_version()),
    )
}
