//! One stem for one thing: an op's folder, kernel, tests and bench.

use std::collections::BTreeSet;

use super::tree::Files;
use super::words::tokens;

/// Whether a program's source declares `mod name;`, without which its file would not run.
fn declares(text: &str, name: &str) -> bool {
    let items = syn::parse_file(text).unwrap().items;
    let is_it = |item: &syn::ItemMod| item.ident == name && item.content.is_none();
    items.iter().any(|item| matches!(item, syn::Item::Mod(item) if is_it(item)))
}

/// What is missing. `no_kernel`: ops that launch other ops' kernels; `reductions`: folders of
/// `src/ops` that ops share.
pub fn missing(files: &Files, no_kernel: &[&str], reductions: &[&str]) -> Vec<String> {
    let mut missing = Vec::new();
    let mut need = |file: String| {
        if !files.contains_key(&file) {
            missing.push(file);
        }
    };
    let within = |folder: &str, ending: &str| -> BTreeSet<String> {
        let names = files.keys().filter_map(|file| file.strip_prefix(folder)?.strip_suffix(ending));
        names.filter(|name| !name.contains('/')).map(str::to_owned).collect()
    };
    let mut ops = within("src/ops/", "/mod.rs");
    for stem in reductions {
        ops.remove(*stem);
        need(format!("kernels/lib/{stem}.cuh"));
        need(format!("src/ops/{stem}/mod.rs"));
    }
    for op in &ops {
        need(format!("src/ops/{op}/cpu.rs"));
        need(format!("src/ops/{op}/cuda.rs"));
        for program in ["tests/ops", "tests/cuda", "benches/ops"] {
            need(format!("{program}/{op}.rs"));
        }
    }
    for op in &ops {
        for program in ["tests/ops.rs", "tests/cuda.rs", "benches/ops.rs"] {
            if !files.get(program).is_some_and(|text| declares(text, op)) {
                missing.push(format!("mod {op}; in {program}"));
            }
        }
    }
    let text = |file: &str| files.get(file).map_or("", String::as_str);
    for op in &ops {
        if !text("benches/ops.rs").contains(&format!("{op}::cases")) {
            missing.push(format!("{op}::cases in benches/ops.rs"));
        }
    }
    let mut kernels = within("kernels/", ".cu");
    for kernel in &kernels {
        if !text("kernels/README.md").contains(&format!("| `{kernel}`")) {
            missing.push(format!("a row `{kernel}` in kernels/README.md"));
        }
        if !text("tests/cuda/devices.rs").contains(&format!("(\"{kernel}\", &[")) {
            missing.push(format!("a row \"{kernel}\" in tests/cuda/devices.rs"));
        }
    }
    for kernel in &kernels {
        let launcher = format!("src/ops/{kernel}/cuda.rs");
        let source = format!("/kernels/{kernel}.cu\"");
        let includes =
            |text: &String| tokens(text).iter().any(|token| token.to_string().ends_with(&source));
        if !files.get(&launcher).is_some_and(includes) {
            missing.push(format!("kernels/{kernel}.cu in {launcher}"));
        }
    }
    kernels.extend(no_kernel.iter().map(|op| (*op).to_owned()));
    for stem in ops.symmetric_difference(&kernels) {
        missing.push(format!("kernels/{stem}.cu, or src/ops/{stem}"));
    }
    missing
}
