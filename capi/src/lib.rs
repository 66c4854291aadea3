//! medcam's ops for C and C++: `include/medcam.h` is made from this crate, and says what each
//! function does.
//!
//! The numerics, and every check of a tensor, are [`medcam_ops::dlpack`]'s. Here a C call becomes
//! one of these: pointers and numbers are checked, one thread at a time has a workspace, and
//! neither an error nor a panic leaves as anything but a status.

#![allow(non_camel_case_types, reason = "the names of C")]

// In the order in which the header has them.
mod version;

mod status;

mod workspace;

mod choices;

mod chains;

mod weights;

mod maps;
