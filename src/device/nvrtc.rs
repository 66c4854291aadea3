//! Finds and loads NVRTC, and compiles programs with it.
//!
//! `cudarc` is not used for it: `cudarc` takes the first `libnvrtc` that the
//! system's loader finds and panics where there is none.

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::Library;

use super::choice::{Candidate, Version, Wanted, arch_name, choose};
use super::places::{Place, builtins_in, places};
use super::program::HEADERS;
use super::{Program, Scalar, Unavailable};
use crate::error::{Error, Result};

type Handle = *mut std::ffi::c_void;
type Status = c_int;
type Strings = *const *const c_char;

const SUCCESS: Status = 0;
/// An option that NVRTC does not know.
const INVALID_OPTION: Status = 5;
/// NVRTC has no builtins, which are a library of their own.
const NO_BUILTINS: Status = 7;

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
    candidate: Candidate,
}

impl AsRef<Candidate> for Nvrtc {
    fn as_ref(&self) -> &Candidate {
        &self.candidate
    }
}

/// How to compile for a device.
#[derive(Clone, Copy)]
pub(super) struct Compiler {
    nvrtc: &'static Nvrtc,
    /// The compute capability to compile for: that of the device, or one that the device runs as well.
    arch: Version,
}

impl Compiler {
    /// The NVRTC for a device and its driver. The choice is remembered, and a failure is not.
    pub(super) fn choose(wanted: Wanted) -> Result<Self, Unavailable> {
        static CHOSEN: Mutex<Vec<(Wanted, Compiler)>> = Mutex::new(Vec::new());
        let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, compiler)) = chosen.iter().find(|(known, _)| *known == wanted) {
            return Ok(*compiler);
        }
        let (nvrtc, arch) = choose(candidates(), wanted)?;
        let compiler = Self { nvrtc, arch };
        chosen.push((wanted, compiler));
        Ok(compiler)
    }

    /// As NVRTC writes the compute capability: `"sm_90"`.
    pub(super) fn arch(&self) -> String {
        arch_name(self.arch)
    }

    /// The version of CUDA that NVRTC belongs to.
    pub(super) fn version(&self) -> Version {
        self.nvrtc.candidate.version
    }

    /// Where NVRTC was found.
    pub(super) fn library(&self) -> &str {
        &self.nvrtc.candidate.name
    }

    /// The machine code of a program for one type.
    pub(super) fn compile(&self, program: &Program, scalar: Scalar) -> Result<Vec<u8>> {
        Ok(compile_with(self.nvrtc, program, scalar, &self.arch(), &[])?.cubin)
    }
}

/// All NVRTCs that there are, each loaded when it is asked for.
fn candidates() -> impl Iterator<Item = Result<&'static Nvrtc, String>> {
    let own = std::env::var_os("MEDCAM_NVRTC").filter(|value| !value.is_empty()).map(PathBuf::from);
    let (places, missing) = match places(own.as_deref()) {
        Ok(places) => (places, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let loaded = places.into_iter().filter_map(|place| match place {
        Place::File(path) => Some(load(path.as_os_str(), path.parent())),
        // Most of the names that the loader is asked for are on no machine: that is not worth a word.
        Place::Loader(name) => load(OsStr::new(&name), None).ok().map(Ok),
    });
    let is_own = own.is_some();
    let place = move |why| if is_own { format!("MEDCAM_NVRTC={why}") } else { why };
    loaded.chain(missing.map(Err)).map(move |found| found.map_err(place))
}

/// Loads NVRTC by path or name; each once, for as long as the process lives.
fn load(name: &OsStr, folder: Option<&Path>) -> Result<&'static Nvrtc, String> {
    static LOADED: Mutex<Vec<&'static Nvrtc>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let text = name.to_string_lossy();
    if let Some(nvrtc) = loaded.iter().find(|nvrtc| nvrtc.candidate.name == text) {
        return Ok(nvrtc);
    }
    // SAFETY: the types are those that nvrtc.h declares, unchanged since CUDA 11.2; the library is
    // never unloaded, so the functions stay.
    let nvrtc = unsafe {
        let library = Library::new(name).map_err(loader_words)?;
        let nvrtc = functions(&library, text.into_owned()).map_err(loader_words)?;
        std::mem::forget(library);
        nvrtc
    };
    if let Some(folder) = folder {
        load_builtins(folder, nvrtc.candidate.version);
    }
    let nvrtc: &'static Nvrtc = Box::leak(Box::new(nvrtc));
    loaded.push(nvrtc);
    Ok(nvrtc)
}

/// Loads NVRTC's builtins by path. NVRTC opens them by name, without a search path of its own; the
/// loader then finds those that are loaded already.
fn load_builtins(folder: &Path, version: Version) {
    for path in builtins_in(folder, version) {
        // SAFETY: a library of data, without constructors that matter.
        if let Ok(builtins) = unsafe { Library::new(path) } {
            std::mem::forget(builtins);
        }
    }
}

/// The message of the system's loader: `libloading` keeps it as the cause of its error.
fn loader_words(error: libloading::Error) -> String {
    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// # Safety
///
/// `library` is NVRTC, and is never unloaded.
unsafe fn functions(library: &Library, name: String) -> Result<Nvrtc, libloading::Error> {
    type OneNumber = unsafe extern "C" fn(*mut c_int) -> Status;
    type TwoNumbers = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status;
    // SAFETY: each name has the type that nvrtc.h gives it; `numbers` is as long as the library asked for.
    unsafe {
        let version = library.get::<TwoNumbers>(c"nvrtcVersion")?;
        let arch_count = library.get::<OneNumber>(c"nvrtcGetNumSupportedArchs")?;
        let archs = library.get::<OneNumber>(c"nvrtcGetSupportedArchs")?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        version(&mut major, &mut minor);
        arch_count(&mut count);
        let mut numbers = vec![0; usize::try_from(count).unwrap_or(0)];
        archs(numbers.as_mut_ptr());
        // 90 is 9.0, and 120 is 12.0.
        let archs = numbers.into_iter().map(|number| (number / 10, number % 10)).collect();
        Ok(Nvrtc {
            create: *library.get(c"nvrtcCreateProgram")?,
            compile: *library.get(c"nvrtcCompileProgram")?,
            destroy: *library.get(c"nvrtcDestroyProgram")?,
            log_bytes: *library.get(c"nvrtcGetProgramLogSize")?,
            log: *library.get(c"nvrtcGetProgramLog")?,
            cubin_bytes: *library.get(c"nvrtcGetCUBINSize")?,
            cubin: *library.get(c"nvrtcGetCUBIN")?,
            status_name: *library.get(c"nvrtcGetErrorString")?,
            candidate: Candidate { name, version: (major, minor), archs },
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
/// Needs NVRTC, and neither a device nor the driver: it takes the first NVRTC that knows the architecture.
/// [`Gpu::kernel`](super::Gpu::kernel) compiles in the same way where its cache has no such build, with the NVRTC
/// that suits its device and driver.
///
/// # Errors
///
/// If NVRTC is missing or does not know the architecture ([`is_unavailable`](Error::is_unavailable)); if it refuses
/// the program: then the error holds everything that the compiler said, with file names and lines.
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
    let number = arch.rsplit('_').next().unwrap_or_default();
    // `sm_90a` is for the same devices as `sm_90`.
    let Ok(number) = number.trim_end_matches(['a', 'f']).parse::<i32>() else {
        return Err(Error::input(
            "compile",
            format!("arch: {arch:?} is no architecture like sm_90"),
        ));
    };
    let wanted = Wanted { arch: (number / 10, number % 10), driver: None };
    compile_with(Compiler::choose(wanted)?.nvrtc, program, scalar, arch, extra)
}

fn compile_with(
    nvrtc: &Nvrtc,
    program: &Program,
    scalar: Scalar,
    arch: &str,
    extra: &[&str],
) -> Result<Compiled> {
    let mut options = options(program, scalar, arch);
    options.extend(extra.iter().map(|&option| option.to_owned()));
    let name = format!("kernels/{}.cu", program.stem);
    nvrtc.compile(&name, program.source, &options).map_err(|Failure { status, words }| {
        let library = &nvrtc.candidate.name;
        let what = format!("{name}, built for {} and {arch}: NVRTC says {words}", scalar.name());
        match status {
            NO_BUILTINS => Unavailable::NoNvrtc(format!(
                "{library} does not find its libnvrtc-builtins.so, which belongs beside it: {what}"
            ))
            .into(),
            // Our own options are known to NVRTC of CUDA 12 and later.
            INVALID_OPTION if extra.is_empty() => {
                Unavailable::NoNvrtc(format!("{library} does not know an option: {what}")).into()
            }
            _ => Error::device(what),
        }
    })
}

/// Why NVRTC made no machine code: its status, and its name with the log.
struct Failure {
    status: Status,
    words: String,
}

impl From<String> for Failure {
    fn from(words: String) -> Self {
        Self { status: SUCCESS, words }
    }
}

impl Nvrtc {
    /// Compiles `source`; the error is the status and the log.
    fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Compiled, Failure> {
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
            (Err(name), Ok(log)) => Err(Failure { status, words: format!("{name}\n{log}") }),
            (_, Err(words)) => Err(Failure { status, words }),
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
