//! Images in and maps out, through real files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod volumes {
    pub mod card;
    pub mod files;
    pub mod grid;
    pub mod hostile;
    pub mod nibabel;
    pub mod picture;
}
