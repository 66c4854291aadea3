//! The ops over DLPack tensors: the bits of the ops, and what is refused.
#![cfg(feature = "dlpack")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "dlpack/calls.rs"]
mod calls;
#[allow(dead_code, reason = "it serves tests/ops.rs too")]
#[path = "ops/common.rs"]
mod common;
#[path = "dlpack/refusals.rs"]
mod refusals;
#[path = "dlpack/tensors.rs"]
mod tensors;

use medcam::dlpack::ffi::{DLDevice, DLDeviceType};

const CPU: DLDevice = DLDevice { device_type: DLDeviceType::CPU, device_id: 0 };
