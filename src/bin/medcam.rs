//! The `medcam` program.
fn main() {}
