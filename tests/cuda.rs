//! What runs on a CUDA device: the device layer, and each op against its CPU twin. Where no device
//! is, they say so and pass, unless MEDCAM_REQUIRE_CUDA=1.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

#[path = "cuda/allocator.rs"]
mod allocator;
#[path = "cuda/alpha_weights.rs"]
mod alpha_weights;
#[path = "cuda/channel_weights.rs"]
mod channel_weights;
#[path = "cuda/common.rs"]
mod common;
#[path = "cuda/device.rs"]
mod device;
#[path = "cuda/devices.rs"]
mod devices;
#[cfg(feature = "dlpack")]
#[path = "cuda/dlpack.rs"]
mod dlpack;
#[path = "cuda/elementwise.rs"]
mod elementwise;
#[path = "cuda/evaluation_sums.rs"]
mod evaluation_sums;
#[path = "cuda/fused.rs"]
mod fused;
#[path = "cuda/guided_activation.rs"]
mod guided_activation;
#[path = "cuda/guided_product.rs"]
mod guided_product;
#[path = "cuda/intrinsics.rs"]
mod intrinsics;
#[path = "cuda/normalize.rs"]
mod normalize;
// Sanitizers and libtorch do not go together.
#[cfg(all(not(feature = "torch"), target_os = "linux", target_arch = "x86_64"))]
#[path = "cuda/on_host.rs"]
mod on_host;
// What the tests of ops on the CPU share serves here too, in part.
#[allow(dead_code, reason = "these tests draw no shapes and count no threads")]
#[path = "ops/common.rs"]
mod on_the_cpu;
#[cfg(all(not(feature = "torch"), target_os = "linux", target_arch = "x86_64"))]
#[path = "cuda/planted.rs"]
mod planted;
#[path = "cuda/project.rs"]
mod project;
#[cfg(all(not(feature = "torch"), target_os = "linux", target_arch = "x86_64"))]
#[path = "cuda/refused.rs"]
mod refused;
#[path = "cuda/resample.rs"]
mod resample;
#[path = "cuda/summary.rs"]
mod summary;
#[cfg(feature = "dlpack")]
#[path = "dlpack/tensors.rs"]
mod tensors;
#[path = "cuda/waits.rs"]
mod waits;
