//! The storage types of activations and gradients.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::vectors::for_each_instruction_set;

mod sealed {
    #[cfg(not(feature = "cuda"))]
    pub trait Sealed {}
    /// With `cuda`, what an element is made of means the same on the device.
    #[cfg(feature = "cuda")]
    pub trait Sealed: crate::device::Plain {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A storage type of activations and gradients: `f32`, `f16` or `bf16`.
///
/// Arithmetic is never done in it: values are widened on load and sums are f32 or wider.
pub trait Element: sealed::Sealed + Copy + Send + Sync + std::fmt::Debug + 'static {
    /// The name of the type as the field writes it: `"f32"`, `"f16"`, `"bf16"`.
    const NAME: &'static str;

    /// The distance from 1 to the next greater value.
    const EPSILON: f32;

    /// The type that kernels are built with for it.
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar;

    /// The value as f32; exact for all three types.
    fn to_f32(self) -> f32;

    /// The nearest value of this type.
    fn from_f32(value: f32) -> Self;

    /// Whether the value is 0 or less; a NaN is not.
    fn at_most_zero(self) -> bool;

    /// All values as f32: the slice itself for `f32`, else `buffer`, overwritten and resized.
    ///
    /// Many times faster than [`to_f32`](Self::to_f32) value by value: it uses the processor's
    /// conversion of whole vectors.
    fn widen<'a>(values: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32];
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    const EPSILON: f32 = f32::EPSILON;
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar = crate::device::Scalar::F32;

    fn to_f32(self) -> f32 {
        self
    }

    fn from_f32(value: f32) -> Self {
        value
    }

    fn at_most_zero(self) -> bool {
        self <= 0.0
    }

    fn widen<'a>(values: &'a [Self], _buffer: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const EPSILON: f32 = f16::EPSILON.to_f32_const();
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar = crate::device::Scalar::F16;

    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }

    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }

    fn at_most_zero(self) -> bool {
        half_at_most_zero(self.to_bits(), f16::NEG_INFINITY.to_bits())
    }

    fn widen<'a>(values: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        buffer.resize(values.len(), 0.0);
        widen_f16(values, buffer);
        buffer
    }
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const EPSILON: f32 = bf16::EPSILON.to_f32_const();
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar = crate::device::Scalar::Bf16;

    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }

    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }

    fn at_most_zero(self) -> bool {
        half_at_most_zero(self.to_bits(), bf16::NEG_INFINITY.to_bits())
    }

    fn widen<'a>(values: &'a [Self], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        buffer.resize(values.len(), 0.0);
        widen_bf16(values, buffer);
        buffer
    }
}

for_each_instruction_set! {
    fn widen_f16(values: &[f16], wide: &mut [f32]) {
        multiversion::target::match_target! {
            // Four times as fast as `half`, which calls a function for each eight values.
            "x86_64+f16c" => {
                use std::arch::x86_64::{__m128i, _mm256_cvtph_ps};

                let (eights, rest) = values.as_chunks::<8>();
                let (wide_eights, wide_rest) = wide.as_chunks_mut::<8>();
                for (wide, values) in wide_eights.iter_mut().zip(eights) {
                    let bits: __m128i = zerocopy::transmute!(values.map(f16::to_bits));
                    *wide = zerocopy::transmute!(_mm256_cvtph_ps(bits));
                }
                rest.convert_to_f32_slice(wide_rest);
            },
            _ => values.convert_to_f32_slice(wide),
        }
    }
}

for_each_instruction_set! {
    fn widen_bf16(values: &[bf16], wide: &mut [f32]) {
        // A bf16 is the upper half of an f32; this loop is vectorised, `half`'s own is not.
        for (wide, value) in wide.iter_mut().zip(values) {
            *wide = f32::from_bits(u32::from(value.to_bits()) << 16);
        }
    }
}

/// Whether the bits are those of a half-precision value of 0 or less. As bits, the negative values
/// go from `-0`, the sign alone, up to `-∞`, and what lies above is NaN. Compares of whole vectors,
/// which `half`'s own, value by value, do not become.
fn half_at_most_zero(bits: u16, negative_infinity: u16) -> bool {
    bits == 0 || (bits >= 1 << 15 && bits <= negative_infinity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_zero_is_the_comparison_for_every_half() {
        for bits in 0..=u16::MAX {
            let (value, wide) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(value.at_most_zero(), value.to_f32() <= 0.0, "f16 {bits:#x}");
            assert_eq!(wide.at_most_zero(), wide.to_f32() <= 0.0, "bf16 {bits:#x}");
        }
    }
}
