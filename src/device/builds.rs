//! The kernels that are loaded on each device.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use cudarc::driver::result;

use super::cache::Cache;
use super::gpu::lock;
use super::{Gpu, Kernel, Program, Scalar, driver_error};
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
        let (major, minor) = self.arch();
        let arch = format!("sm_{major}{minor}");
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
}
