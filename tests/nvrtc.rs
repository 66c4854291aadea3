//! Every program of `kernels/` compiles for every architecture, on a machine without a device.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use medcam::device::{KernelBudget, Program, Scalar, compile};

static HEADERS: Program = Program {
    stem: "headers",
    source: r#"
        #include "lib/extremes.cuh"
        #include "lib/last_block.cuh"
        #include "lib/reduce.cuh"
        #include "lib/scalar.cuh"
        extern "C" __global__ void ENTRY(twice)(SCALAR* values, long long count) {
          const long long i = (long long)blockIdx.x * BLOCK_THREADS + threadIdx.x;
          if (i < count) values[i] = narrow<SCALAR>(2.0f * widen(values[i]));
        }
    "#,
    scalars: &[Scalar::F32, Scalar::F16],
    defines: &[("BLOCK_THREADS", 256)],
    kernels: &[KernelBudget { entry: "twice", registers: 16, shared_bytes: 0 }],
};

#[test]
fn headers_compile() {
    for &scalar in HEADERS.scalars {
        let built = compile(&HEADERS, scalar, "sm_90", &["--ptxas-options=-v"]).unwrap();
        assert!(built.cubin.starts_with(b"\x7fELF"));
        assert!(built.log.contains(&format!("twice_{}", scalar.name())), "{}", built.log);
    }
}
