//! Files of `kernels/`, and what they are built for.

/// The files of `kernels/lib/`, under the names by which kernels include them.
pub(super) const HEADERS: [(&str, &str); 9] = [
    ("lib/channel_sums.cuh", include_str!("../../kernels/lib/channel_sums.cuh")),
    ("lib/extremes.cuh", include_str!("../../kernels/lib/extremes.cuh")),
    ("lib/last_block.cuh", include_str!("../../kernels/lib/last_block.cuh")),
    ("lib/reads.cuh", include_str!("../../kernels/lib/reads.cuh")),
    ("lib/reduce.cuh", include_str!("../../kernels/lib/reduce.cuh")),
    ("lib/resampling.cuh", include_str!("../../kernels/lib/resampling.cuh")),
    ("lib/rescale.cuh", include_str!("../../kernels/lib/rescale.cuh")),
    ("lib/scalar.cuh", include_str!("../../kernels/lib/scalar.cuh")),
    ("lib/voxel_sums.cuh", include_str!("../../kernels/lib/voxel_sums.cuh")),
];

/// The type that a build of a program stores its values in, given to it as `-DSCALAR=f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// `float`.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
    /// 255ths of `[0, 1]`.
    U8,
}

impl Scalar {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::U8];

    /// As kernels write it: `"f32"`, `"f16"`, `"bf16"`, `"u8"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U8 => "u8",
        }
    }
}

/// A file of `kernels/`, and what it is built for.
///
/// An example is in the [module](super).
#[derive(Debug)]
pub struct Program {
    /// The name of the file, `kernels/<stem>.cu`, which is that of the op.
    pub stem: &'static str,
    /// The file itself: `include_str!("../../../kernels/<stem>.cu")`.
    pub source: &'static str,
    /// The types that it is built for, once each.
    pub scalars: &'static [Scalar],
    /// Launch numbers that the source needs, each given as `-DNAME=value`.
    pub defines: &'static [(&'static str, u32)],
    /// Its entry points, all of them.
    pub kernels: &'static [KernelBudget],
}

/// An entry point of a [`Program`], and what it may take on any device; `tests/nvrtc.rs` holds it.
#[derive(Debug, Clone, Copy)]
pub struct KernelBudget {
    /// `"project"`, for `project_f32`, `project_f16`...
    pub entry: &'static str,
    /// Registers of a thread, at most.
    pub registers: u32,
    /// Static shared memory of a block in bytes, at most.
    pub shared_bytes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_library_is_a_header() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/lib");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
        let mut files: Vec<_> =
            files.map(|name| format!("lib/{}", name.to_string_lossy())).collect();
        files.sort();
        assert_eq!(files, HEADERS.map(|(name, _)| name));
    }
}
