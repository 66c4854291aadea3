//! Images in and maps out, through real files.

mod volumes {
    pub mod card;
    pub mod files;
    pub mod grid;
    pub mod hostile;
    pub mod nibabel;
}
