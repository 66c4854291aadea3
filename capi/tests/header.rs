//! `include/medcam.h` is what cbindgen makes of the source, and compiles as strict C and C++.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use std::path::Path;
use std::{env, fs};

use common::{Language, compile, folder, is_there};

/// Set to anything, it has the header written anew.
const WRITE: &str = "MEDCAM_WRITE_HEADER";

/// The header, with this package's version.
fn generated() -> String {
    let capi = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(capi.join("cbindgen.toml")).unwrap();
    let number = |digits: &str| digits.parse::<u32>().unwrap();
    let major = number(env!("CARGO_PKG_VERSION_MAJOR"));
    let minor = number(env!("CARGO_PKG_VERSION_MINOR"));
    let patch = env!("CARGO_PKG_VERSION_PATCH");
    let abi = 1000 * major + if major == 0 { minor } else { 0 };
    config.after_includes = Some(format!(
        "\n// The version of this header.\n\
         #define MEDCAM_VERSION_MAJOR {major}\n\
         #define MEDCAM_VERSION_MINOR {minor}\n\
         #define MEDCAM_VERSION_PATCH {patch}\n\n\
         // What medcam_abi_version() of a library that fits returns.\n\
         #define MEDCAM_ABI_VERSION {abi}\n"
    ));
    let bindings = cbindgen::Builder::new().with_crate(capi).with_config(config).generate();
    let mut header = Vec::new();
    bindings.unwrap().write(&mut header);
    // The sections of rustdoc, in the words of C.
    String::from_utf8(header)
        .unwrap()
        .replace("//\n// # Safety\n//\n// As for all calls.\n", "")
        .replace("# Safety\n//\n// As for all calls. ", "# Safety\n//\n// ")
        .replace("# Safety\n//\n// ", "Required, or behaviour is undefined:\n// ")
}

#[test]
fn the_header_is_that_of_the_source() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/medcam.h");
    let generated = generated();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if committed == generated {
        return;
    }
    let mut lines = committed.lines().zip(generated.lines()).enumerate();
    let differs = lines.find(|(_, (committed, generated))| committed != generated);
    panic!(
        "capi/include/medcam.h is not what the source says, from {differs:?} on. Write it anew:\n  \
         {WRITE}=1 cargo test -p medcam-capi --test header"
    );
}

#[test]
fn it_compiles_as_strict_c_and_cpp() {
    let source = "#include \"medcam.h\"\n\
                  int main(void) { return MEDCAM_OK + MEDCAM_VERSION_MAJOR * 0; }\n";
    let folder = folder("header");
    for (language, standard) in [(Language::C, "-std=c99"), (Language::Cpp, "-std=c++11")] {
        if !is_there(&language.compiler()) {
            continue;
        }
        let file = folder.join(format!("strict.{}", language.extension()));
        fs::write(&file, source).unwrap();
        let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include");
        compile(language, &[standard, include, "-fsyntax-only"], &[&file]);
    }
}
