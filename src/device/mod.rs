//! CUDA devices: kernels compiled on the machine that runs them, streams, and device memory.
//!
//! The driver and NVRTC are loaded at run time, so that the same program runs where they are
//! missing: [`probe()`] says what is there, as a value. A [`Gpu`] compiles each [`Program`] once, keeps
//! it on disk for the next process, and a [`Stream`] launches its kernels.
//!
//! | | |
//! |---|---|
//! | [`probe()`], [`Gpu`] | which devices there are; one of them |
//! | [`Program`], [`compile()`] | a file of `kernels/`, and what it is built for; one build of it |
//! | [`Stream`], [`Kernel`], [`Launch`], [`Argument`] | running kernels in order |
//! | [`Buffer`], [`Slice`], [`SliceMut`] | device memory: owned, borrowed, borrowed for writing |
//! | [`Allocator`] | where a stream takes device memory from: the driver, or a pool |
//!
//! | variable | |
//! |---|---|
//! | `MEDCAM_NVRTC` | folder with `libnvrtc.so`, instead of those beside libtorch or the system's |
//! | `MEDCAM_CACHE_DIR` | where compiled kernels are kept, instead of `~/.cache/medcam/kernels` |
//! | `MEDCAM_KERNEL_CACHE` | `off`: compiled kernels are not kept on disk |
//!
//! Nothing here panics where a library, a device or a file is missing.
//!
//! # Example
//!
//! A kernel, from its source to its result, where there is a device:
//!
//! ```
//! use medcam::device::{Gpu, KernelBudget, Launch, Program, Scalar, Stream, probe};
//!
//! static DOUBLE: Program = Program {
//!     stem: "double",
//!     source: r#"
//!         #include "lib/scalar.cuh"
//!         extern "C" __global__ void ENTRY(twice)(const SCALAR* from, SCALAR* to, long long count) {
//!           const long long i = static_cast<long long>(blockIdx.x) * BLOCK_THREADS + threadIdx.x;
//!           if (i < count) to[i] = narrow<SCALAR>(2.0f * widen(from[i]));
//!         }
//!     "#,
//!     scalars: &[Scalar::F32, Scalar::F16],
//!     defines: &[("BLOCK_THREADS", 256)],
//!     kernels: &[KernelBudget { entry: "twice", registers: 16, shared_bytes: 0 }],
//! };
//!
//! if let Err(why) = probe() {
//!     println!("{why}");
//!     return Ok(());
//! }
//! let stream = Stream::new(Gpu::get(0)?)?;
//! let from = stream.upload(&[1.0_f32, 2.0, 3.0])?;
//! let mut to = stream.allocate::<f32>(from.len())?;
//! let kernel = stream.gpu().kernel(&DOUBLE, Scalar::F32, "twice")?;
//! let launch = Launch { grid: [1, 1, 1], block_threads: 256, shared_bytes: 0 };
//! // SAFETY: `twice(const float*, float*, long long)`; both buffers hold 3 values.
//! unsafe { stream.launch(&kernel, launch, &[&from.slice(), &to.slice_mut(), &3_i64]) }?;
//! assert_eq!(stream.download(to.slice())?, [2.0, 4.0, 6.0]);
//! # Ok::<(), medcam::Error>(())
//! ```

mod allocator;
mod builds;
mod cache;
mod choice;
mod gpu;
mod kernel;
mod memory;
mod nvrtc;
mod places;
mod probe;
mod program;
mod scratch;
mod stream;
mod unavailable;

pub use allocator::{Allocator, DriverAllocator};
pub use gpu::Gpu;
pub use kernel::{Argument, Kernel, Launch};
pub(crate) use memory::plain_struct;
pub use memory::{Buffer, Plain, Slice, SliceMut};
pub use nvrtc::{Compiled, compile};
pub use probe::{GpuInfo, probe};
pub use program::{KernelBudget, Program, Scalar};
pub use stream::Stream;
pub use unavailable::Unavailable;

use cudarc::driver::DriverError;

use crate::error::Error;

/// Makes an error of the driver one of ours; `doing` says what failed.
fn driver_error(doing: impl std::fmt::Display) -> impl FnOnce(DriverError) -> Error {
    move |error| Error::device(format!("{doing}: {}", driver_words(error)))
}

/// `CUDA_ERROR_OUT_OF_MEMORY (out of memory)`.
fn driver_words(error: DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let words = error.error_string().map(|words| words.to_string_lossy().into_owned());
    match (name, words) {
        (Ok(name), Ok(words)) => format!("{name} ({words})"),
        _ => format!("CUDA error {}", error.0 as u32),
    }
}
