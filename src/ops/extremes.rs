//! The range of a map, as kernels write it.

use crate::device::plain_struct;

plain_struct! {
    /// What kernels tell of one sample of a map: `struct Extremes` in `kernels/lib/extremes.cuh`.
    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub struct DeviceExtremes {
        /// The least finite value; `+inf` where there is none.
        pub minimum: f32,
        /// The greatest finite value; `-inf` where there is none.
        pub maximum: f32,
        /// How many values were not finite, before any ReLU.
        pub not_finite: u32,
        /// Always 0; makes it 16 bytes, one access of a thread.
        pub unused: u32,
    }
}
