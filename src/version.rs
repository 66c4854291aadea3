//! The one version of crate, program and records.

/// The version of this crate, of its program and of the records that it writes.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
