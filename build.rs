//! Compiles the TorchScript shim, binds its header with bindgen, makes the programs of this package
//! find libtorch where it was built against, and NVRTC beside it.

#![allow(clippy::expect_used, reason = "a build script fails by panicking")]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    torch::build();
    #[cfg(feature = "cuda")]
    nvrtc::build();
}

#[cfg(feature = "cuda")]
mod nvrtc {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Tells the crate where NVRTC lies beside libtorch: a wheel of torch comes with NVIDIA's.
    pub fn build() {
        println!("cargo:rerun-if-env-changed=LIBTORCH");
        let lib = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from);
        let named = || Some(PathBuf::from(env::var_os("LIBTORCH")?).join("lib"));
        if let Some(folder) = lib.or_else(named).as_deref().and_then(beside) {
            println!("cargo:rustc-env=MEDCAM_BUILT_WITH_NVRTC={}", folder.display());
        }
    }

    /// The folder of NVRTC among the packages `nvidia/*/lib` next to `torch/lib`.
    fn beside(lib: &Path) -> Option<PathBuf> {
        let packages = fs::read_dir(lib.parent()?.with_file_name("nvidia")).ok()?;
        let mut folders: Vec<_> =
            packages.flatten().map(|package| package.path().join("lib")).collect();
        folders.sort();
        folders.into_iter().find(|folder| {
            let files = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut names = files.map(|file| file.file_name());
            names.any(|name| name.to_string_lossy().starts_with("libnvrtc.so"))
        })
    }
}

#[cfg(feature = "torch")]
mod torch {
    use std::env;
    use std::path::{Path, PathBuf};

    const SHIM: &str = "src/torch/shim";
    const SOURCES: [&str; 22] = [
        "analysis",
        "backward",
        "boundary",
        "channels",
        "device",
        "foreign",
        "forgetting",
        "graph",
        "guided",
        "input",
        "meta",
        "module",
        "narrowing",
        "newer",
        "operators",
        "origins",
        "outputs",
        "shapes",
        "tape",
        "taps",
        "training",
        "values",
    ];

    pub fn build() {
        println!("cargo:rerun-if-changed={SHIM}");
        // torch-sys found libtorch and says where (`links = "tch"`).
        let lib = PathBuf::from(
            env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names libtorch's lib folder"),
        );
        let include = env::var_os("LIBTORCH_INCLUDE")
            .map(PathBuf::from)
            .or_else(|| lib.parent().map(PathBuf::from))
            .expect("libtorch's lib folder has a parent")
            .join("include");
        println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");

        let version = std::fs::read_to_string(lib.with_file_name("build-version"))
            .or_else(|_| std::fs::read_to_string(lib.with_file_name("version.py")))
            .unwrap_or_default();
        let version = version
            .lines()
            .find_map(|line| line.strip_prefix("__version__ = "))
            .unwrap_or(version.lines().next().unwrap_or_default());
        println!("cargo:rustc-env=MEDCAM_LIBTORCH={}", version.trim().trim_matches('\''));

        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let mut shim = cc::Build::new();
        shim.cpp(true)
            .std("c++17")
            // The shim's own code is a sliver beside the tensor operations that it calls.
            .opt_level(1)
            // At this level GCC warns in libtorch's reference counts, falsely.
            .flag_if_supported("-Wno-stringop-overflow")
            .flag("-isystem")
            .flag(&include)
            .flag("-isystem")
            .flag(include.join("torch/csrc/api/include"));
        let precompiled = precompile(&shim, &out);
        shim.flag("-include")
            .flag(precompiled)
            .files(SOURCES.map(|stem| format!("{SHIM}/{stem}.cpp")))
            .compile("medcam_shim");
        // Half a gigabyte that nothing reads any more.
        let _ = std::fs::remove_file(out.join("libtorch.h.gch"));
        // The shim calls libtorch by itself, whatever torch-sys needs of it.
        for library in ["torch", "torch_cpu", "c10"] {
            println!("cargo:rustc-link-lib={library}");
        }
        // Programs run without LD_LIBRARY_PATH; as RUNPATH it still yields to one that is set. Those
        // that are made for another machine are told another folder.
        println!("cargo:rerun-if-env-changed=MEDCAM_RUNPATH");
        let runpath = env::var("MEDCAM_RUNPATH").unwrap_or_else(|_| lib.display().to_string());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{runpath}");

        bindgen::Builder::default()
            .header(format!("{SHIM}/shim.h"))
            // libclang from PyPI comes without stddef.h and its like; those of the C++ compiler do.
            .clang_arg(format!("-I{}", compiler_headers()))
            .allowlist_item("mc_.*")
            .generate()
            .expect("bindgen reads shim.h")
            .write_to_file(out.join("shim.rs"))
            .expect("OUT_DIR is writable");
    }

    /// Compiles libtorch's headers once for all sources, most of whose compile time they are. Returns the header
    /// to include first: a compiler that does not find its precompiled form reads the header itself.
    fn precompile(shim: &cc::Build, out: &Path) -> PathBuf {
        let header = out.join("libtorch.h");
        std::fs::copy(format!("{SHIM}/libtorch.h"), &header).expect("OUT_DIR is writable");
        let status = shim
            .get_compiler()
            .to_command()
            .args(["-x", "c++-header"])
            .arg(&header)
            .arg("-o")
            .arg(out.join("libtorch.h.gch"))
            .status()
            .expect("the C++ compiler runs");
        assert!(status.success(), "{SHIM}/libtorch.h does not compile");
        header
    }

    fn compiler_headers() -> String {
        let compiler = cc::Build::new().cpp(true).get_compiler();
        let output = compiler
            .to_command()
            .arg("-print-file-name=include")
            .output()
            .expect("the C++ compiler runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
