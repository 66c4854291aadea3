//! Finds and loads NVRTC, and compiles programs with it.
//!
//! `cudarc` is not used for it: `cudarc` takes the first `libnvrtc` that the
//! system's loader finds and panics where there is none.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

use super::program::HEADERS;
use super::{Program, Scalar, Unavailable};
use crate::error::{Error, Result};

type Handle = *mut std::ffi::c_void;
type Status = c_int;
type Strings = *const *const c_char;

const SUCCESS: Status = 0;

/// File names of the library; this crate is tested with the first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// The functions of NVRTC, as its header declares them.
pub(super) struct Nvrtc {
    create: unsafe extern "C" fn(
        *mut Handle,
        *const c_char,
        *const c_char,
        c_int,
        Strings,
        Strings,
    ) -> Status,
    compile: unsafe extern "C" fn(Handle, c_int, Strings) -> Status,
    destroy: unsafe extern "C" fn(*mut Handle) -> Status,
    log_bytes: unsafe extern "C" fn(Handle, *mut usize) -> Status,
    log: unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    cubin_bytes: unsafe extern "C" fn(Handle, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    status_name: unsafe extern "C" fn(Status) -> *const c_char,
    pub(super) version: (i32, i32),
}

/// NVRTC, loaded at the first call that finds it; a failure is not remembered.
pub(super) fn library() -> Result<&'static Nvrtc, Unavailable> {
    static LOADED: OnceLock<Nvrtc> = OnceLock::new();
    if let Some(nvrtc) = LOADED.get() {
        return Ok(nvrtc);
    }
    let nvrtc = find()?;
    Ok(LOADED.get_or_init(|| nvrtc))
}

/// Loads NVRTC from `MEDCAM_NVRTC` if set, and from nowhere else then; otherwise from beside libtorch, or by the
/// system's search path.
fn find() -> Result<Nvrtc, Unavailable> {
    let own = std::env::var_os("MEDCAM_NVRTC").filter(|value| !value.is_empty()).map(PathBuf::from);
    let advice = "install it (pip install nvidia-cuda-nvrtc) and name its folder in MEDCAM_NVRTC";
    if let Some(folder) = own {
        return load_from(&folder)
            .map_err(|why| Unavailable::NoNvrtc(format!("MEDCAM_NVRTC={why}; {advice}")));
    }
    let beside = option_env!("MEDCAM_BUILT_WITH_NVRTC").map(|folder| load_from(Path::new(folder)));
    if let Some(Ok(nvrtc)) = beside {
        return Ok(nvrtc);
    }
    let mut tried: Vec<_> = beside.into_iter().filter_map(Result::err).collect();
    for name in NAMES {
        match load(name.as_ref()) {
            Ok(nvrtc) => return Ok(nvrtc),
            Err(error) => tried.push(error),
        }
    }
    Err(Unavailable::NoNvrtc(format!("{}; {advice}", tried.join("; "))))
}

fn load_from(folder: &Path) -> Result<Nvrtc, String> {
    load_builtins(folder);
    let Some(path) = NAMES.map(|name| folder.join(name)).into_iter().find(|path| path.exists())
    else {
        return Err(format!("{} has no libnvrtc.so", folder.display()));
    };
    load(path.as_os_str())
}

/// Loads NVRTC's builtins by path. NVRTC opens them by name, without a search path of its own; the
/// loader then finds those that are loaded already.
fn load_builtins(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("libnvrtc-builtins.so") {
            // SAFETY: a library of data, without constructors that matter.
            if let Ok(builtins) = unsafe { Library::new(&path) } {
                std::mem::forget(builtins);
            }
        }
    }
}

fn load(name: &std::ffi::OsStr) -> Result<Nvrtc, String> {
    // SAFETY: the types are those that nvrtc.h declares, unchanged since CUDA 11.1; the library is
    // never unloaded, so the functions stay.
    unsafe {
        let library = Library::new(name).map_err(loader_words)?;
        let nvrtc = functions(&library).map_err(loader_words)?;
        std::mem::forget(library);
        Ok(nvrtc)
    }
}

/// The message of the system's loader: `libloading` keeps it as the cause of its error.
fn loader_words(error: libloading::Error) -> String {
    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// # Safety
///
/// `library` is NVRTC, and is never unloaded.
unsafe fn functions(library: &Library) -> Result<Nvrtc, libloading::Error> {
    // SAFETY: each name has the type that nvrtc.h gives it.
    unsafe {
        let version = library
            .get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status>(c"nvrtcVersion")?;
        let (mut major, mut minor) = (0, 0);
        version(&mut major, &mut minor);
        Ok(Nvrtc {
            create: *library.get(c"nvrtcCreateProgram")?,
            compile: *library.get(c"nvrtcCompileProgram")?,
            destroy: *library.get(c"nvrtcDestroyProgram")?,
            log_bytes: *library.get(c"nvrtcGetProgramLogSize")?,
            log: *library.get(c"nvrtcGetProgramLog")?,
            cubin_bytes: *library.get(c"nvrtcGetCUBINSize")?,
            cubin: *library.get(c"nvrtcGetCUBIN")?,
            status_name: *library.get(c"nvrtcGetErrorString")?,
            version: (major, minor),
        })
    }
}

/// A program compiled for one type and one architecture.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The machine code, as the driver loads it.
    pub cubin: Vec<u8>,
    /// What the compiler said; empty unless an option asks for more or there are warnings.
    pub log: String,
}

/// The options of a build, in order.
pub(super) fn options(program: &Program, scalar: Scalar, arch: &str) -> Vec<String> {
    let mut options = vec![
        "--std=c++17".to_owned(),
        format!("--gpu-architecture={arch}"),
        // Don't look for headers in the current folder: they are those of this crate.
        "--no-source-include".to_owned(),
        // Lets compute-sanitizer and profilers name lines; the machine code is the same.
        "--generate-line-info".to_owned(),
        format!("-DSCALAR={}", scalar.name()),
    ];
    options.extend(program.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    options
}

/// Compiles a program for one type and one architecture (`"sm_90"`), with `extra` options.
///
/// Needs NVRTC, and neither a device nor the driver. [`Gpu::kernel`](super::Gpu::kernel) calls it
/// where its cache has no such build.
///
/// # Errors
///
/// If NVRTC is missing ([`is_unavailable`](Error::is_unavailable)) or refuses the program: then the
/// error holds everything that the compiler said, with file names and lines.
///
/// # Example
///
/// ```
/// use medcam::device::{Program, Scalar, compile};
///
/// static BROKEN: Program = Program {
///     stem: "broken",
///     source: "extern \"C\" __global__ void broken_f32(float* out) { out[0] = nothing; }",
///     scalars: &[Scalar::F32],
///     defines: &[],
///     kernels: &[],
/// };
/// let error = compile(&BROKEN, Scalar::F32, "sm_90", &[]).unwrap_err();
/// assert!(error.is_unavailable() || error.to_string().contains("kernels/broken.cu(1)"));
/// ```
pub fn compile(program: &Program, scalar: Scalar, arch: &str, extra: &[&str]) -> Result<Compiled> {
    let nvrtc = library()?;
    let mut options = options(program, scalar, arch);
    options.extend(extra.iter().map(|&option| option.to_owned()));
    let name = format!("kernels/{}.cu", program.stem);
    nvrtc.compile(&name, program.source, &options).map_err(|failure| {
        let build = format!("{name}, built for {} and {arch}", scalar.name());
        Error::device(format!("{build}: NVRTC says {failure}"))
    })
}

impl Nvrtc {
    /// Compiles `source`; the error is the status and the log.
    fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Compiled, String> {
        let c_string = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (name, source) = (c_string(name)?, c_string(source)?);
        let header_names = HEADERS.map(|(name, _)| name);
        let header_texts = HEADERS.map(|(_, text)| text);
        let [names, texts] = [header_names, header_texts]
            .map(|strings| strings.into_iter().map(c_string).collect::<Result<Vec<_>, _>>());
        let options = options.iter().map(|option| c_string(option)).collect::<Result<Vec<_>, _>>();
        let (names, texts, options) = (names?, texts?, options?);
        let [name_pointers, text_pointers, option_pointers] = [&names, &texts, &options]
            .map(|strings| strings.iter().map(|string| string.as_ptr()).collect::<Vec<_>>());
        let count =
            |strings: &[CString]| c_int::try_from(strings.len()).map_err(|error| error.to_string());
        let (header_count, option_count) = (count(&texts)?, count(&options)?);

        let mut handle: Handle = std::ptr::null_mut();
        // SAFETY: all strings end with 0 and outlive the program, which is destroyed below.
        let created = unsafe {
            (self.create)(
                &mut handle,
                source.as_ptr(),
                name.as_ptr(),
                header_count,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        self.check(created)?;
        // SAFETY: `handle` is a program, and the options outlive the call.
        let status = unsafe { (self.compile)(handle, option_count, option_pointers.as_ptr()) };
        let log = self.bytes(handle, self.log_bytes, self.log).map(|log| {
            CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().into_owned()
        });
        let cubin = match self.check(status) {
            Ok(()) => self.bytes(handle, self.cubin_bytes, self.cubin),
            Err(status) => Err(status),
        };
        // SAFETY: `handle` is a program, and not used again.
        unsafe { (self.destroy)(&mut handle) };
        match (cubin, log) {
            (Ok(cubin), Ok(log)) => Ok(Compiled { cubin, log }),
            (Err(status), Ok(log)) => Err(format!("{status}\n{log}")),
            (_, Err(status)) => Err(status),
        }
    }

    /// Reads bytes of a program through a pair of functions, of which the first gives their number.
    fn bytes(
        &self,
        handle: Handle,
        size: unsafe extern "C" fn(Handle, *mut usize) -> Status,
        fill: unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, String> {
        let mut count = 0;
        // SAFETY: `handle` is a program, `count` takes the size.
        self.check(unsafe { size(handle, &mut count) })?;
        let mut bytes = vec![0_u8; count];
        // SAFETY: `bytes` is as long as the library asked for.
        self.check(unsafe { fill(handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }

    /// A status as an error with its name.
    fn check(&self, status: Status) -> Result<(), String> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: returns a string that lives as long as the library, for any number.
        let name = unsafe { (self.status_name)(status) };
        if name.is_null() {
            return Err(format!("status {status}"));
        }
        // SAFETY: it ends with 0, as the header promises.
        Err(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }
}
