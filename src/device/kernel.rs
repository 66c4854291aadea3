//! Kernels, how they are launched, and what they are given.

use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::Mutex;

use cudarc::driver::{DriverError, result, sys};

use super::{Gpu, Plain, Slice, SliceMut, driver_error};
use crate::error::{Error, Result};

/// A kernel of a [`Program`](super::Program), loaded on one device; copies are free.
#[derive(Clone, Copy)]
pub struct Kernel(&'static Loaded);

/// A loaded kernel and its limits. It lives as long as the process, as its device does.
struct Loaded {
    name: String,
    gpu: &'static Gpu,
    function: sys::CUfunction,
    /// The bytes of each parameter; `None` where the driver is too old to say.
    parameter_bytes: Option<Vec<usize>>,
    most_threads: u32,
    static_shared_bytes: u32,
    /// The dynamic shared memory that the driver has been asked to allow.
    allowed_shared_bytes: Mutex<u32>,
}

// SAFETY: we only pass the function handle to the driver, which takes it from any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above; the one thing that changes is behind a mutex.
unsafe impl Sync for Loaded {}

impl Kernel {
    /// The kernel `name` of a loaded module.
    ///
    /// # Safety
    ///
    /// The module is one of the bound context, that of `gpu`, and is never unloaded.
    pub(super) unsafe fn new(
        gpu: &'static Gpu,
        module: sys::CUmodule,
        name: String,
    ) -> Result<Self, DriverError> {
        use sys::CUfunction_attribute_enum::{
            CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK as MOST_THREADS,
            CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES as STATIC_SHARED_BYTES,
        };
        let c_name = CString::new(name.as_str())
            .map_err(|_| DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE))?;
        // SAFETY: the caller vouches for the module.
        let function = unsafe { result::module::get_function(module, c_name) }?;
        let attribute = |attribute| {
            // SAFETY: a function of a loaded module.
            let value = unsafe { result::function::get_function_attribute(function, attribute) }?;
            Ok::<_, DriverError>(u32::try_from(value).unwrap_or(0))
        };
        let most_threads = attribute(MOST_THREADS)?;
        let static_shared_bytes = attribute(STATIC_SHARED_BYTES)?;
        let allowed = gpu.limits().shared_bytes.saturating_sub(static_shared_bytes);
        Ok(Self(Box::leak(Box::new(Loaded {
            name,
            gpu,
            function,
            // SAFETY: a function of a loaded module.
            parameter_bytes: unsafe { parameter_bytes(function) },
            most_threads,
            static_shared_bytes,
            allowed_shared_bytes: Mutex::new(allowed),
        }))))
    }

    /// The name of its entry point: `"project_f16"`.
    pub fn name(&self) -> &'static str {
        &self.0.name
    }

    /// The most threads that a block of it can have, by its registers.
    pub fn most_threads(&self) -> u32 {
        match self.0.most_threads {
            0 => self.gpu().limits().threads,
            threads => threads,
        }
    }

    pub(super) fn gpu(&self) -> &'static Gpu {
        self.0.gpu
    }

    pub(super) fn function(&self) -> sys::CUfunction {
        self.0.function
    }

    /// Refuses a launch that does not fit the limits of the device or the kernel's parameters.
    pub(super) fn check(&self, launch: Launch, arguments: &[&dyn Argument]) -> Result<()> {
        let wrong = |what: String| Err(Error::input(self.name(), what));
        let limits = self.gpu().limits();
        let Launch { grid, block_threads, shared_bytes } = launch;
        if block_threads == 0 || block_threads > self.most_threads() {
            let most = self.most_threads();
            return wrong(format!("block_threads: {block_threads}, and it can have 1 to {most}"));
        }
        for (axis, (blocks, most)) in grid.into_iter().zip(limits.grid).enumerate() {
            if blocks == 0 || blocks > most {
                return wrong(format!(
                    "grid[{axis}]: {blocks} blocks, and it can have 1 to {most}"
                ));
            }
        }
        let most = limits.shared_opt_in_bytes.saturating_sub(self.0.static_shared_bytes);
        if shared_bytes > most {
            return wrong(format!(
                "shared_bytes: {shared_bytes}, and {} has {most} for it",
                self.gpu().name()
            ));
        }
        for (position, argument) in arguments.iter().enumerate() {
            if let Some(ordinal) = argument.ordinal().filter(|&own| own != self.gpu().ordinal()) {
                let own = self.gpu().ordinal();
                return wrong(format!(
                    "argument {position}: memory of device {ordinal}, and it runs on device {own}"
                ));
            }
        }
        if let Some(expected) = &self.0.parameter_bytes {
            let given = arguments.iter().map(|argument| argument.bytes());
            if !given.clone().eq(expected.iter().copied()) {
                let given: Vec<_> = given.collect();
                return wrong(format!("arguments of {given:?} bytes, and it takes {expected:?}"));
            }
        }
        Ok(())
    }

    /// Asks the driver to allow that much dynamic shared memory. The context must be current.
    pub(super) fn allow_shared_bytes(&self, bytes: u32) -> Result<()> {
        let allowed = self.0.allowed_shared_bytes.lock();
        let mut allowed = allowed.unwrap_or_else(std::sync::PoisonError::into_inner);
        if bytes > *allowed {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC;
            // SAFETY: a function of a loaded module; `check` held the size against the device.
            unsafe {
                sys::cuFuncSetAttribute(self.0.function, DYNAMIC, bytes.cast_signed()).result()
            }
            .map_err(driver_error(format!("{}: {bytes} bytes of shared memory", self.name())))?;
            *allowed = bytes;
        }
        Ok(())
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel {} on device {}", self.name(), self.gpu().ordinal())
    }
}

/// The bytes of each parameter, from drivers of CUDA 12.4 and newer.
///
/// # Safety
///
/// `function` is one of a loaded module.
unsafe fn parameter_bytes(function: sys::CUfunction) -> Option<Vec<usize>> {
    type Info =
        unsafe extern "C" fn(sys::CUfunction, usize, *mut usize, *mut usize) -> sys::CUresult;
    type Count = unsafe extern "C" fn(sys::CUfunction, *mut usize) -> sys::CUresult;
    // SAFETY: the driver is loaded, as there is a function; the types are those of cuda.h.
    let (info, count) = unsafe {
        let driver = sys::culib();
        (
            driver.get::<Info>(c"cuFuncGetParamInfo").ok()?,
            driver.get::<Count>(c"cuFuncGetParamCount"),
        )
    };
    let known = count.ok().and_then(|count| {
        let mut number = 0;
        // SAFETY: a function of a loaded module.
        unsafe { count(function, &mut number) }.result().ok().map(|()| number)
    });
    let bytes = |index| {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: a function of a loaded module; an index behind the last is an error.
        unsafe { info(function, index, &mut offset, &mut bytes) }.result().ok().map(|()| bytes)
    };
    sizes(known, bytes)
}

/// The bytes of each of `known` parameters. Drivers before CUDA 13.2 do not tell how many there are: then all are asked
/// for until one is not there, which tools such as compute-sanitizer report as an error of the driver.
fn sizes(known: Option<usize>, bytes: impl FnMut(usize) -> Option<usize>) -> Option<Vec<usize>> {
    match known {
        Some(known) => (0..known).map(bytes).collect(),
        None => Some((0..).map_while(bytes).collect()),
    }
}

/// How many threads run a kernel, and with how much shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y and z, at least 1 each.
    pub grid: [u32; 3],
    /// Threads of a block, along x.
    pub block_threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// A value that a kernel takes: a number, device memory (as its address), or a struct.
///
/// # Safety
///
/// [`value`](Self::value) points at [`bytes`](Self::bytes) bytes, the value as the kernel declares
/// it: for a struct, `#[repr(C)]` with the fields of the one in the kernel.
///
/// # Example
///
/// ```
/// use medcam::device::Argument;
///
/// /// As `struct Extent` in the kernel.
/// #[repr(C)]
/// struct Extent {
///     depth: i64,
///     height: i64,
///     width: i64,
/// }
/// // SAFETY: the same fields in the same order, without padding.
/// unsafe impl Argument for Extent {}
/// assert_eq!(Extent { depth: 1, height: 2, width: 3 }.bytes(), 24);
/// ```
pub unsafe trait Argument {
    /// Where the value lies in host memory.
    fn value(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }

    /// How long the value is.
    fn bytes(&self) -> usize {
        size_of_val(self)
    }

    /// The device of the memory that the value points to, if it is an address.
    fn ordinal(&self) -> Option<usize> {
        None
    }
}

macro_rules! argument {
    ($($type:ty),*) => {
        $(
            // SAFETY: the same number on both sides, by value.
            unsafe impl Argument for $type {}
        )*
    };
}
argument!(f32, f64, i32, u32, i64, u64);

// SAFETY: an address is what a pointer parameter holds; the slice borrows the memory, so it is not
// freed.
unsafe impl<T: Plain> Argument for Slice<'_, T> {
    fn value(&self) -> *const c_void {
        self.address().cast()
    }

    fn bytes(&self) -> usize {
        size_of::<u64>()
    }

    fn ordinal(&self) -> Option<usize> {
        Some(Slice::ordinal(self))
    }
}

/// The address of the slice, or null where there is none.
// SAFETY: as for `Slice`; null is the address of no memory, for which the kernel must look.
unsafe impl<T: Plain> Argument for Option<Slice<'_, T>> {
    fn value(&self) -> *const c_void {
        static NULL: u64 = 0;
        self.as_ref().map_or(&raw const NULL, Slice::address).cast()
    }

    fn bytes(&self) -> usize {
        size_of::<u64>()
    }

    fn ordinal(&self) -> Option<usize> {
        self.as_ref().map(Slice::ordinal)
    }
}

// SAFETY: as for `Slice`.
unsafe impl<T: Plain> Argument for SliceMut<'_, T> {
    fn value(&self) -> *const c_void {
        self.address().cast()
    }

    fn bytes(&self) -> usize {
        size_of::<u64>()
    }

    fn ordinal(&self) -> Option<usize> {
        Some(SliceMut::ordinal(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_parameter_is_asked_for_that_a_newer_driver_says_is_not_there() {
        let of = [8, 8, 4];
        let known = |index: usize| Some(of[index]);
        assert_eq!(sizes(Some(3), known).unwrap(), of);
        assert_eq!(sizes(None, |index| of.get(index).copied()).unwrap(), of);
        assert_eq!(sizes(Some(0), known).unwrap(), [0; 0]);
        assert_eq!(sizes(Some(4), |index| of.get(index).copied()), None);
    }
}
