//! How much of a map is attention, and the tables of all cases of a cohort.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod tables {
    pub mod files;
    pub mod volumes;
}
