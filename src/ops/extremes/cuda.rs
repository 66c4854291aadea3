//! The extremes of a map as kernels write them.

use crate::device::plain_struct;

plain_struct! {
    /// The extremes of one sample of a map, in device memory: `struct Extremes` of
    /// `kernels/lib/extremes.cuh`.
    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub struct DeviceExtremes {
        /// The least finite value; `+inf` where there is none.
        pub minimum: f32,
        /// The greatest finite value; `-inf` where there is none.
        pub maximum: f32,
        /// How many values were not finite, before any ReLU.
        pub not_finite: u32,
        /// Always 0. Pads the struct to 16 bytes, which a thread reads or writes in one access.
        pub unused: u32,
    }
}
