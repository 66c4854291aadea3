//! Builds the driver for the host, and a library of each build of each program, with g++.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use medcam::device::{Program, Scalar};
use rayon::prelude::*;

/// The sanitizers with which the kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    Plain,
    /// AddressSanitizer and UndefinedBehaviorSanitizer.
    Address,
    /// ThreadSanitizer.
    Thread,
}

impl Flavour {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Address => "address",
            Self::Thread => "thread",
        }
    }

    fn kernel_options(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["-O2"],
            Self::Address => &[
                "-O1",
                "-g",
                "-fno-omit-frame-pointer",
                "-fsanitize=address,undefined,float-cast-overflow",
                "-fno-sanitize-recover=all",
            ],
            Self::Thread => &["-O1", "-g", "-fsanitize=thread"],
        }
    }

    fn driver_options(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Address => &["-DON_HOST_ADDRESS_SANITIZER"],
            Self::Thread => &["-DON_HOST_THREAD_SANITIZER"],
        }
    }

    /// The libraries that must be there before all others.
    pub fn preloaded(self) -> Vec<PathBuf> {
        let names: &[&str] = match self {
            Self::Plain => &[],
            Self::Address => &["libasan.so", "libubsan.so"],
            Self::Thread => &["libtsan.so"],
        };
        names.iter().map(|name| library_of_compiler(name)).collect()
    }
}

/// The programs of a test run, and the folder from which they include `lib/`.
pub struct Kernels {
    pub programs: Vec<&'static Program>,
    pub folder: PathBuf,
}

impl Kernels {
    /// Programs as they are.
    pub fn of(programs: Vec<&'static Program>) -> Self {
        Self { programs, folder: root().join("kernels") }
    }

    /// A copy of `kernels/` in which `from` in a file is `to`, once, and the programs made of it.
    pub fn mutated(programs: &[&'static Program], file: &str, from: &str, to: &str) -> Self {
        let folder = built().join("mutated").join(fingerprint(&(file, from, to)));
        let original = root().join("kernels");
        for path in files(&original) {
            let name = path.strip_prefix(&original).unwrap();
            let mut text = fs::read_to_string(&path).unwrap();
            if name == Path::new(file) {
                assert!(text.contains(from), "{file} has no {from:?} to mutate any more");
                text = text.replacen(from, to, 1);
            }
            write(&folder.join(name), &text);
        }
        let programs = programs.iter().map(|program| -> &'static Program {
            let path = folder.join(format!("{}.cu", program.stem));
            let source = fs::read_to_string(path).map_or(program.source, |text| &*text.leak());
            Box::leak(Box::new(Program { source, ..**program }))
        });
        Self { programs: programs.collect(), folder: folder.clone() }
    }
}

/// The libraries with which a process runs kernels on the host.
pub struct Built {
    /// The folder of `libcuda.so.1`.
    pub driver: PathBuf,
    pub libraries: Vec<PathBuf>,
}

/// Builds what is missing, with at most two compilers at a time.
pub fn build(flavour: Flavour, kernels: &Kernels) -> Built {
    // Tests that need the same come here at once: the first builds it.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let compilers = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    compilers.install(|| {
        let driver = build_driver(flavour);
        let builds: Vec<_> = kernels
            .programs
            .iter()
            .flat_map(|&program| program.scalars.iter().map(move |&scalar| (program, scalar)))
            .collect();
        let libraries = builds
            .par_iter()
            .map(|&(program, scalar)| build_library(flavour, &driver, kernels, program, scalar));
        Built { libraries: libraries.collect(), driver: driver.clone() }
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> PathBuf {
    root().join("tests/cuda_on_host")
}

/// The folder that keeps builds from run to run.
pub fn built() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda_on_host")
}

/// All files in a folder and below, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Writes by rename, so that nobody sees half a file.
fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let unfinished = unfinished(path);
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, path).unwrap();
}

fn unfinished(path: &Path) -> PathBuf {
    let thread = std::thread::current().id();
    let unique = fingerprint(&(std::process::id(), thread));
    path.with_extension(format!("{unique}.unfinished"))
}

fn fingerprint(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn texts(folder: &Path) -> Vec<String> {
    files(folder).iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The standard output of g++ with these arguments.
fn compiler(arguments: &[&str]) -> String {
    let output = Command::new("g++").args(arguments).output().unwrap_or_else(|error| {
        panic!("the kernels are built for the host with g++, which does not start: {error}")
    });
    assert!(output.status.success(), "g++ {arguments:?} fails: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn library_of_compiler(name: &str) -> PathBuf {
    let path = PathBuf::from(compiler(&[&format!("-print-file-name={name}")]));
    assert!(path.is_absolute(), "g++ comes without {name}: install its sanitizers");
    path
}

/// The files on which every library depends.
fn common_fingerprint() -> &'static str {
    static FINGERPRINT: OnceLock<String> = OnceLock::new();
    FINGERPRINT.get_or_init(|| {
        let folders = ["runtime", "device", "driver"].map(|folder| texts(&sources().join(folder)));
        fingerprint(&(compiler(&["--version"]), folders))
    })
}

/// Builds a shared library with g++ under a temporary name, and renames it when it is complete.
fn link(library: &Path, options: &[String], inputs: &[PathBuf]) {
    let unfinished = unfinished(library);
    let output = Command::new("g++")
        .args(["-std=c++17", "-shared", "-fPIC"])
        .args(options)
        .arg(format!("-I{}", sources().display()))
        .args(inputs)
        .arg("-o")
        .arg(&unfinished)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "g++ makes no {}:\n{errors}", library.display());
    fs::rename(unfinished, library).unwrap();
}

/// The folder of the driver of one flavour.
fn build_driver(flavour: Flavour) -> PathBuf {
    let mut options: Vec<_> =
        flavour.driver_options().iter().map(|&option| option.to_owned()).collect();
    options.extend(
        ["-O2", "-g", "-fno-semantic-interposition", "-Wl,-soname,libcuda.so.1"].map(str::to_owned),
    );
    let key = fingerprint(&(common_fingerprint(), &options));
    let folder = built().join(flavour.name()).join(key);
    let library = folder.join("libcuda.so.1");
    if !library.exists() {
        fs::create_dir_all(&folder).unwrap();
        let inputs = ["runtime", "driver"].map(|folder| files(&sources().join(folder))).concat();
        let is_source = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "cpp");
        let inputs: Vec<_> = inputs.into_iter().filter(is_source).collect();
        let objects: Vec<_> = inputs
            .par_iter()
            .map(|input| {
                let name = input.file_stem().unwrap().to_string_lossy();
                let object = folder.join(format!("{name}.o"));
                let options = [options.as_slice(), &["-c".to_owned()]].concat();
                link(&object, &options, std::slice::from_ref(input));
                object
            })
            .collect();
        link(&library, &options, &objects);
    }
    // The name that is asked for first; without it a real driver would be found.
    let short = folder.join("libcuda.so");
    if !short.exists() {
        std::os::unix::fs::symlink("libcuda.so.1", short).unwrap();
    }
    folder
}

/// The library of one build of a program.
fn build_library(
    flavour: Flavour,
    driver: &Path,
    kernels: &Kernels,
    program: &Program,
    scalar: Scalar,
) -> PathBuf {
    let headers = texts(&kernels.folder.join("lib"));
    let mut dynamic: Vec<_> = headers
        .iter()
        .map(String::as_str)
        .chain([program.source])
        .flat_map(dynamic_shared)
        .collect();
    dynamic.sort_unstable();
    dynamic.dedup();
    let mut options: Vec<_> = flavour
        .kernel_options()
        .iter()
        // As NVRTC sees the kernels: no contraction, vector loads from any memory. Nothing of a library
        // is shared with the others, which have the same names.
        .chain(&["-ffp-contract=off", "-fno-strict-aliasing", "-fno-gnu-unique"])
        .chain(&["-fno-extern-tls-init", "-w"])
        .map(|&option| option.to_owned())
        .collect();
    if flavour == Flavour::Address && dynamic.is_empty() {
        options.push("-DON_HOST_STATIC_SHARED".to_owned());
    }
    options.push(format!("-I{}", kernels.folder.display()));
    options.push(format!("-DSCALAR={}", scalar.name()));
    options.extend(program.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    let text = wrapped(program, scalar, &dynamic);
    let key = fingerprint(&(common_fingerprint(), &options, &text, headers));
    let stem = program.stem.replace('/', "_");
    let library = driver.join(format!("{stem}_{}_{key}.so", scalar.name()));
    if !library.exists() {
        let source = library.with_extension("cpp");
        write(&source, &text);
        link(&library, &options, &[source, driver.join("libcuda.so.1")]);
    }
    library
}

/// A program with its kernels listed for the driver.
fn wrapped(program: &Program, scalar: Scalar, dynamic: &[&str]) -> String {
    let Program { stem, source, kernels, .. } = program;
    let scalar = scalar.name();
    let storage: String =
        dynamic.iter().map(|name| format!("ON_HOST_DYNAMIC_SHARED({name})\n")).collect();
    let addresses: String =
        dynamic.iter().map(|name| format!("on_host_address_{name}, ")).collect();
    let entries: String = kernels
        .iter()
        .map(|kernel| format!("{}_{scalar}", kernel.entry))
        .map(|name| format!("    on_host::Entry<{name}>::named(\"{name}\"),\n"))
        .collect();
    format!(
        "#include \"device/cuda.h\"\n#include \"device/module.h\"\n\n{storage}\n\
         #line 1 \"kernels/{stem}.cu\"\n{source}\n\
         #line 1 \"kernels of {stem}\"\n\
         static constexpr on_host::KernelEntry kEntries[] = {{\n{entries}}};\n\
         static unsigned char* (*const kDynamicShared[])() = {{{addresses}nullptr}};\n\
         extern \"C\" const on_host::KernelModule on_host_module = {{\n    kEntries, {}, \
         kDynamicShared, {}, on_host::kThreadLocalShared, on_host::touch}};\n",
        kernels.len(),
        dynamic.len()
    )
}

/// The names of the arrays that a file declares as `extern __shared__ T name[]`.
fn dynamic_shared(text: &str) -> Vec<&str> {
    text.split("extern __shared__ ")
        .skip(1)
        .filter_map(|rest| rest.split_once("[]").map(|(declared, _)| declared))
        .filter_map(|declared| declared.rsplit([' ', '*']).next())
        .filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
        .collect()
}

#[test]
fn dynamic_shared_arrays_are_found() {
    let text = "extern __shared__ float a[];\n// extern __shared__ memory\n  extern __shared__ \
                unsigned char __align__(16) b_2[];\n__shared__ float c[4];";
    assert_eq!(dynamic_shared(text), ["a", "b_2"]);
}
