//! ReLU inside a sum; `relu` of `kernels/lib/scalar.cuh` gives the same bits.

/// ReLU that keeps NaN and turns `-∞` into NaN: with `max(value, 0)` a gradient that is not finite
/// would become 0 and go unnoticed.
#[inline(always)]
pub fn relu(value: f32) -> f32 {
    value * if value > 0.0 { 1.0 } else { 0.0 }
}
