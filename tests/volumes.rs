//! Reads images and writes maps, through real files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod volumes {
    pub mod card;
    pub mod fixtures;
    pub mod grid;
    pub mod headers;
    pub mod hostile;
    pub mod labels;
    pub mod nibabel;
    pub mod npy;
    pub mod picture;
    pub mod sizes;
    pub mod truncated;
}
