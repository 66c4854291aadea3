//! The storage types of activations and gradients, and those of finished maps.

use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

use crate::vectors::for_each_instruction_set;

mod sealed {
    #[cfg(not(feature = "cuda"))]
    pub trait Sealed {}
    /// With `cuda`, elements can be copied to a device as they are.
    #[cfg(feature = "cuda")]
    pub trait Sealed: crate::device::Plain {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
    impl Sealed for u8 {}
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

    /// The value as f32, as [`to_f32`](Self::to_f32), in arithmetic that vectorises inside a loop. For
    /// values that go through memory anyway, [`widen`](Self::widen) is faster.
    #[doc(hidden)]
    fn lane(self) -> f32;

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

    #[inline(always)]
    fn lane(self) -> f32 {
        self
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

    #[inline(always)]
    fn lane(self) -> f32 {
        // As libtorch does it: a product rebases the exponent, which holds for infinity and NaN too; a
        // difference does it for subnormal values.
        let bits = u32::from(self.to_bits()) << 16;
        let twice = bits << 1;
        let normal = f32::from_bits((twice >> 4) + (0xe0 << 23)) * f32::from_bits(15 << 23);
        let subnormal = f32::from_bits((twice >> 17) | (126 << 23)) - 0.5;
        let magnitude = if twice < 1 << 27 { subnormal } else { normal };
        f32::from_bits(magnitude.to_bits() | (bits & 1 << 31))
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

    #[inline(always)]
    fn lane(self) -> f32 {
        // The upper half of an f32; `half`'s own, which keeps signalling NaN apart, is not vectorised.
        f32::from_bits(u32::from(self.to_bits()) << 16)
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
        for (wide, value) in wide.iter_mut().zip(values) {
            *wide = value.lane();
        }
    }
}

/// A storage type of finished maps: `f32`, `f16` or `u8`.
///
/// Maps are made in f32 and rounded once, when they are written: to the nearest value, ties to
/// even. A `u8` holds 255ths, so it is for maps that are normalised to `[0, 1]`.
pub trait MapElement: sealed::Sealed + Copy + Send + Sync + std::fmt::Debug + 'static {
    /// The name of the type as the field writes it: `"f32"`, `"f16"`, `"u8"`.
    const NAME: &'static str;

    /// Whether the type holds `[0, 1]` and nothing else.
    const UNIT_RANGE: bool;

    /// The greatest value: 65504 for `f16`.
    const GREATEST: f32;

    /// The type that kernels are built with for it.
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar;

    /// `length` zeros, straight from the system where they are many: nothing is written yet.
    #[doc(hidden)]
    fn zeros(length: usize) -> Vec<Self>;

    /// Writes `value(i)`, rounded to this type, to each place `i`; for `u8` they are in `[0, 1]`.
    ///
    /// To be inlined, so that it becomes one loop of vector code with the arithmetic of `value`.
    /// `line` is room that types may use, overwritten and resized.
    #[doc(hidden)]
    fn fill(out: &mut [Self], line: &mut Vec<f32>, value: impl Fn(usize) -> f32);

    /// The value as f32; exact, and in 255ths for `u8`.
    fn wide(self) -> f32;
}

impl MapElement for f32 {
    const NAME: &'static str = "f32";
    const UNIT_RANGE: bool = false;
    const GREATEST: f32 = f32::MAX;
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar = crate::device::Scalar::F32;

    fn zeros(length: usize) -> Vec<Self> {
        vec![0.0; length]
    }

    #[inline(always)]
    fn fill(out: &mut [Self], _line: &mut Vec<f32>, value: impl Fn(usize) -> f32) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = value(i);
        }
    }

    fn wide(self) -> f32 {
        self
    }
}

impl MapElement for f16 {
    const NAME: &'static str = "f16";
    const UNIT_RANGE: bool = false;
    const GREATEST: f32 = f16::MAX.to_f32_const();
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar = crate::device::Scalar::F16;

    fn zeros(length: usize) -> Vec<Self> {
        vec![0_u16; length].reinterpret_into()
    }

    #[inline(always)]
    fn fill(out: &mut [Self], line: &mut Vec<f32>, value: impl Fn(usize) -> f32) {
        line.resize(out.len(), 0.0);
        f32::fill(line, &mut Vec::new(), value);
        // The processor's conversion of whole vectors.
        out.convert_from_f32_slice(line);
    }

    fn wide(self) -> f32 {
        self.to_f32()
    }
}

impl MapElement for u8 {
    const NAME: &'static str = "u8";
    const UNIT_RANGE: bool = true;
    const GREATEST: f32 = 1.0;
    #[cfg(feature = "cuda")]
    const SCALAR: crate::device::Scalar = crate::device::Scalar::U8;

    fn zeros(length: usize) -> Vec<Self> {
        vec![0; length]
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what counts")]
    fn fill(out: &mut [Self], _line: &mut Vec<f32>, value: impl Fn(usize) -> f32) {
        for (i, out) in out.iter_mut().enumerate() {
            // From 2²³ on the floats are the whole numbers, so the sum is rounded to one; it lies
            // in the lowest bits. Vector code on any processor, which `round_ties_even` is not.
            *out = (value(i) * 255.0 + 8_388_608.0).to_bits() as u8;
        }
    }

    fn wide(self) -> f32 {
        f32::from(self) / 255.0
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
    fn lanes_are_exact_for_every_half() {
        for bits in 0..=u16::MAX {
            let (value, wide) = (f16::from_bits(bits), bf16::from_bits(bits));
            if value.is_nan() {
                assert!(value.lane().is_nan(), "f16 {bits:#x}");
            } else {
                assert_eq!(value.lane().to_bits(), value.to_f32().to_bits(), "f16 {bits:#x}");
            }
            if wide.is_nan() {
                assert!(wide.lane().is_nan(), "bf16 {bits:#x}");
            } else {
                assert_eq!(wide.lane().to_bits(), wide.to_f32().to_bits(), "bf16 {bits:#x}");
            }
        }
    }

    #[test]
    fn at_most_zero_is_the_comparison_for_every_half() {
        for bits in 0..=u16::MAX {
            let (value, wide) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(value.at_most_zero(), value.to_f32() <= 0.0, "f16 {bits:#x}");
            assert_eq!(wide.at_most_zero(), wide.to_f32() <= 0.0, "bf16 {bits:#x}");
        }
    }

    #[test]
    fn a_u8_is_the_nearest_255th_with_ties_to_even() {
        let mut steps = [0; 256];
        u8::fill(&mut steps, &mut Vec::new(), |i| i as f32 / 255.0);
        assert!((0..=255_u8).eq(steps));
        assert!(steps.iter().enumerate().all(|(i, step)| step.wide() == i as f32 / 255.0));
        // 255 times these is 0.5, 1.5 and 2.5 in f32.
        let halves = [0.001_960_784_4, 0.005_882_353, 0.009_803_922];
        assert_eq!(halves.map(|value| value * 255.0), [0.5, 1.5, 2.5]);
        let mut steps = [9; 3];
        u8::fill(&mut steps, &mut Vec::new(), |i| halves[i]);
        assert_eq!(steps, [0, 2, 2]);
    }
}
