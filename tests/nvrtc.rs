//! Every program of `kernels/` compiles for every architecture and stays within its budget of
//! registers and shared memory, without spills. Takes NVRTC, and neither a device nor a driver.
//!
//! `MEDCAM_REGISTERS=1 cargo test --no-default-features --features cuda --test nvrtc -- --nocapture`
//! prints the table of `kernels/README.md`.
// These tests take a minute and do not depend on libtorch: the small build alone runs them.
#![cfg(not(feature = "torch"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use medcam::device::{KernelBudget, Program, Scalar, compile};
use medcam::ops::programs;

const ARCHS: [&str; 5] = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"];

/// Options that print each kernel's resources, and make spills an error.
const STRICT: [&str; 3] =
    ["--ptxas-options=-v", "--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror"];

/// A kernel's resources, as the compiler reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Use {
    registers: u32,
    shared_bytes: u32,
    /// Bytes of local memory that a thread takes: arrays that are not in registers, and calls.
    stack_bytes: u32,
    spilled_bytes: u32,
}

/// Each entry point's resources in a log of `ptxas -v`.
fn uses(log: &str) -> BTreeMap<String, Use> {
    let mut uses = BTreeMap::<String, Use>::new();
    let mut entry = String::new();
    for line in log.lines() {
        let number = |unit: &str| -> u32 {
            let before = line.split(unit).next().filter(|before| before.len() < line.len());
            let digits = before.and_then(|before| before.rsplit([' ', '.']).next());
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            entry = name.split('\'').next().unwrap().to_owned();
            uses.insert(entry.clone(), Use::default());
        } else if let Some(found) = uses.get_mut(&entry) {
            // Functions that are not inlined have lines of their own, and count for their entry.
            found.registers = found.registers.max(number(" registers"));
            found.shared_bytes = found.shared_bytes.max(number(" bytes smem"));
            found.stack_bytes = found.stack_bytes.max(number(" bytes stack frame"));
            found.spilled_bytes = found.spilled_bytes.max(number(" bytes spill stores"));
        }
    }
    uses
}

/// The resources of one build's kernels, or an error message.
fn build(program: &Program, scalar: Scalar, arch: &str) -> Result<BTreeMap<String, Use>, String> {
    let built = compile(program, scalar, arch, &STRICT).map_err(|error| error.to_string())?;
    let uses = uses(&built.log);
    let place = format!("kernels/{}.cu for {} and {arch}", program.stem, scalar.name());
    let mut wrong = Vec::new();
    let expected: BTreeMap<_, _> = program
        .kernels
        .iter()
        .map(|budget| (format!("{}_{}", budget.entry, scalar.name()), budget))
        .collect();
    for name in uses.keys().filter(|name| !expected.contains_key(*name)) {
        wrong.push(format!("{place}: {name} is not among its `kernels`"));
    }
    for (name, budget) in expected {
        let Some(found) = uses.get(&name) else {
            wrong.push(format!("{place}: has no entry point {name}"));
            continue;
        };
        let within = found.registers <= budget.registers
            && found.shared_bytes <= budget.shared_bytes
            && found.stack_bytes == 0
            && found.spilled_bytes == 0;
        if !within {
            wrong.push(format!("{place}: {name} takes {found:?}, and may take {budget:?}"));
        }
    }
    if wrong.is_empty() { Ok(uses) } else { Err(wrong.join("\n")) }
}

#[test]
fn every_file_of_kernels_is_a_program() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let files: BTreeSet<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let stems: BTreeSet<_> = programs().iter().map(|program| program.stem.to_owned()).collect();
    assert_eq!(files, stems);
}

#[test]
fn every_program_compiles_everywhere_within_its_budget() {
    let mut builds = Vec::new();
    for &program in programs() {
        for &scalar in program.scalars {
            builds.extend(ARCHS.map(|arch| (program, scalar, arch)));
        }
    }
    // One after the other: NVRTC lets no two threads compile at once.
    let results: Vec<_> = builds.iter().map(|&(p, scalar, arch)| build(p, scalar, arch)).collect();
    let wrong: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.iter().map(|w| format!("{w}\n")).collect::<String>());
    if std::env::var_os("MEDCAM_REGISTERS").is_some() {
        print_table(&builds, &results);
    }
}

/// A row per entry point: registers on each architecture, and the most static shared memory.
fn print_table(
    builds: &[(&Program, Scalar, &str)],
    results: &[Result<BTreeMap<String, Use>, String>],
) {
    let mut rows = BTreeMap::<(&str, &str), (Vec<u32>, u32)>::new();
    for (&(program, ..), uses) in builds.iter().zip(results) {
        for (name, found) in uses.iter().flatten() {
            let row = rows.entry((program.stem, name)).or_default();
            row.0.push(found.registers);
            row.1 = row.1.max(found.shared_bytes);
        }
    }
    println!("| program | entry point | {} | shared bytes |", ARCHS.join(" | "));
    println!("|---|---|{}---|", "---|".repeat(ARCHS.len()));
    for ((stem, name), (registers, shared_bytes)) in rows {
        let registers: Vec<_> = registers.iter().map(u32::to_string).collect();
        println!("| {stem} | `{name}` | {} | {shared_bytes} |", registers.join(" | "));
    }
}

/// A program for these tests.
const fn planted(source: &'static str, kernels: &'static [KernelBudget]) -> Program {
    Program { stem: "planted", source, scalars: &[Scalar::F32], defines: &[("WIDTH", 96)], kernels }
}

const SOURCE: &str = r#"#include "lib/reduce.cuh"
#include "lib/scalar.cuh"
extern "C" __global__ void ENTRY(small)(SCALAR* values) {
  const float sum = block_reduce<64>(widen(values[threadIdx.x]), 0.0f, Sum());
  if (threadIdx.x == 0) values[0] = narrow<SCALAR>(sum);
}
"#;

#[test]
fn a_program_within_its_budget_passes() {
    static KERNELS: [KernelBudget; 1] =
        [KernelBudget { entry: "small", registers: 32, shared_bytes: 8 }];
    let program = planted(SOURCE, &KERNELS);
    for arch in ARCHS {
        let uses = build(&program, Scalar::F32, arch).unwrap();
        assert_eq!(uses["small_f32"].shared_bytes, 8, "{arch}: {uses:?}");
        assert!(uses["small_f32"].registers >= 4, "{arch}: {uses:?}");
    }
}

#[test]
fn what_is_over_budget_missing_or_not_listed_would_be_seen() {
    static TIGHT: [KernelBudget; 1] =
        [KernelBudget { entry: "small", registers: 3, shared_bytes: 8 }];
    let wrong = build(&planted(SOURCE, &TIGHT), Scalar::F32, "sm_90").unwrap_err();
    assert!(wrong.contains("small_f32 takes Use { registers: "), "{wrong}");
    static NONE: [KernelBudget; 1] =
        [KernelBudget { entry: "small", registers: 32, shared_bytes: 0 }];
    let wrong = build(&planted(SOURCE, &NONE), Scalar::F32, "sm_90").unwrap_err();
    assert!(wrong.contains("shared_bytes: 8"), "{wrong}");
    static OTHER: [KernelBudget; 1] =
        [KernelBudget { entry: "other", registers: 32, shared_bytes: 8 }];
    let wrong = build(&planted(SOURCE, &OTHER), Scalar::F32, "sm_90").unwrap_err();
    assert!(wrong.contains("small_f32 is not among its `kernels`"), "{wrong}");
    assert!(wrong.contains("has no entry point other_f32"), "{wrong}");
}

#[test]
fn a_spill_is_refused() {
    // 96 values that are all alive in a thread of a block of 1024, which leaves it 64 registers.
    let source = r#"extern "C" __global__ void __launch_bounds__(1024) large_f32(float* values) {
  float kept[WIDTH];
  for (int i = 0; i < WIDTH; ++i) kept[i] = values[i * 1024 + threadIdx.x];
  __syncthreads();
  for (int round = 0; round < 4; ++round)
    for (int i = 0; i < WIDTH; ++i) kept[i] = kept[i] * kept[(i + 7) % WIDTH] + kept[(i + 31) % WIDTH];
  for (int i = 0; i < WIDTH; ++i) values[i * 1024 + threadIdx.x] = kept[i];
}
"#;
    let error = compile(&planted(source, &[]), Scalar::F32, "sm_90", &STRICT).unwrap_err();
    assert!(error.is_device(), "{error}");
    assert!(error.to_string().contains("spill"), "{error}");
    compile(&planted(source, &[]), Scalar::F32, "sm_90", &[]).unwrap();
}

#[test]
fn local_memory_is_refused() {
    static KERNELS: [KernelBudget; 1] =
        [KernelBudget { entry: "indexed", registers: 64, shared_bytes: 0 }];
    let source = r#"extern "C" __global__ void indexed_f32(float* values, int which) {
  float kept[WIDTH];
  for (int i = 0; i < WIDTH; ++i) kept[i] = values[i];
  values[threadIdx.x] = kept[which];
}
"#;
    let wrong = build(&planted(source, &KERNELS), Scalar::F32, "sm_90").unwrap_err();
    assert!(wrong.contains("stack_bytes: 384"), "{wrong}");
}

#[test]
fn an_error_of_the_compiler_names_file_and_line() {
    let source = "#include \"lib/scalar.cuh\"\n\nextern \"C\" __global__ void ENTRY(bad)(float* to) {\n  \
                  to[0] = from[0];\n}\n";
    let error = compile(&planted(source, &[]), Scalar::F32, "sm_90", &[]).unwrap_err().to_string();
    assert!(error.starts_with("kernels/planted.cu, built for f32 and sm_90: "), "{error}");
    assert!(error.contains("kernels/planted.cu(4): error: identifier \"from\""), "{error}");
    // In a header too: it asserts whole warps.
    let source = "#include \"lib/reduce.cuh\"\n__global__ void bad(int* to) { \
                  to[0] = block_reduce<33>(1, 0, Sum()); }\n";
    let error = compile(&planted(source, &[]), Scalar::F32, "sm_90", &[]).unwrap_err().to_string();
    assert!(error.contains("lib/reduce.cuh("), "{error}");
}

#[test]
fn an_unknown_architecture_is_an_error() {
    let error = compile(&planted(SOURCE, &[]), Scalar::F32, "sm_1", &[]).unwrap_err().to_string();
    assert!(error.contains("sm_1") && error.contains("architecture"), "{error}");
}

#[test]
fn the_log_is_read_right() {
    let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k_f16' for 'sm_90'
ptxas info    : Function properties for k_f16
ptxas         .     24 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 31 registers, used 1 barriers, 128 bytes smem
ptxas info    : Compiling entry function 'none' for 'sm_90'
ptxas info    : Used 8 registers, used 0 barriers
";
    let uses = uses(log);
    let k = Use { registers: 31, shared_bytes: 128, stack_bytes: 24, spilled_bytes: 8 };
    assert_eq!(uses["k_f16"], k);
    assert_eq!(uses["none"], Use { registers: 8, ..Use::default() });
    assert_eq!(uses.len(), 2);
}
