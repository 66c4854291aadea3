//! The ops over DLPack tensors, wherever these are: what the C library and the Python package stand on.
//!
//! A [`Tensor`] is what a `DLTensor*` says, checked field by field before its memory is looked at, and a
//! [`TensorMut`] one to write to. A [`Workspace`] belongs to one device and keeps, from call to call, what
//! a call needs beside them; [`Workspace::on`] gives the [`Work`] whose methods are the ops of
//! [`ops`](crate::ops), with the same results, bit for bit. Nothing is copied.
//!
//! | memory | strides |
//! |---|---|
//! | of the CPU (`kDLCPU`, `kDLCUDAHost`), of a CUDA device (`kDLCUDA`, `kDLCUDAManaged`) | activations and gradients: `(B, C, [D,] H, W)` in order or channels last, without gaps; all others in order |
//!
//! On the CPU a call is done when it returns. On a device it is enqueued on the caller's stream, and waits
//! only where it has something to tell.
//!
//! # Example
//!
//! ```
//! use medcam::dlpack::{Tensor, TensorMut, Place, Workspace};
//! use medcam::ops::Method;
//! # use dlpark::ffi::{DLDataType, DLDataTypeCode, DLDevice, DLDeviceType, DLTensor};
//! # let tensor = |data: &mut [f32], shape: &mut [i64]| DLTensor {
//! #     data: data.as_mut_ptr().cast(),
//! #     device: DLDevice { device_type: DLDeviceType::CPU, device_id: 0 },
//! #     ndim: shape.len() as i32,
//! #     dtype: DLDataType { code: DLDataTypeCode::FLOAT, bits: 32, lanes: 1 },
//! #     shape: shape.as_mut_ptr(),
//! #     strides: std::ptr::null_mut(),
//! #     byte_offset: 0,
//! # };
//! let (mut a, mut g, mut out) = ([1.0, 3.0, 0.0, 1.0], [1.0, 3.0, -1.0, -3.0], [0.0; 2]);
//! let activation = tensor(&mut a, &mut [1, 2, 1, 2]);
//! let gradient = tensor(&mut g, &mut [1, 2, 1, 2]);
//! let map = tensor(&mut out, &mut [1, 1, 2]);
//!
//! let mut workspace = Workspace::new(Place::Cpu)?;
//! // SAFETY: the arrays above, which stay, and each of which is in one tensor; the CPU has no stream.
//! unsafe {
//!     let activation = Tensor::of("activation", &activation)?;
//!     let gradient = Tensor::of("gradient", &gradient)?;
//!     let mut map = TensorMut::of("map", &map)?;
//!     let mut work = workspace.on(std::ptr::null_mut())?;
//!     work.cam(Method::GradCam, false, &activation, &gradient, &mut map, true)?;
//! }
//! assert_eq!(out, [2.0, 4.0]);
//! # Ok::<(), medcam::Error>(())
//! ```

mod chains;
mod single;
mod tensor;
mod workspace;

pub use dlpark::ffi;
pub use single::Sum;
pub use tensor::{Kind, Place, Tensor, TensorMut};
pub use workspace::{Work, Workspace};

/// Evaluates to `$body` with `$element` as the type of an activation, or refuses the tensor.
macro_rules! for_element {
    ($tensor:expr, $element:ident => $body:expr) => {{
        use $crate::dlpack::Kind;
        match $tensor.kind() {
            Kind::F32 => {
                type $element = f32;
                $body
            }
            Kind::F16 => {
                type $element = half::f16;
                $body
            }
            Kind::Bf16 => {
                type $element = half::bf16;
                $body
            }
            Kind::U8 => Err($tensor.refuse("u8 values; activations are f32, f16 or bf16")),
            Kind::I32 => Err($tensor.refuse("i32 values; activations are f32, f16 or bf16")),
        }
    }};
}

/// The same with the type of a finished map.
macro_rules! for_map_element {
    ($tensor:expr, $element:ident => $body:expr) => {{
        use $crate::dlpack::Kind;
        match $tensor.kind() {
            Kind::F32 => {
                type $element = f32;
                $body
            }
            Kind::F16 => {
                type $element = half::f16;
                $body
            }
            Kind::U8 => {
                type $element = u8;
                $body
            }
            Kind::Bf16 => Err($tensor.refuse("bf16 values; finished maps are f32, f16 or u8")),
            Kind::I32 => Err($tensor.refuse("i32 values; finished maps are f32, f16 or u8")),
        }
    }};
}

use {for_element, for_map_element};
