//! The backward of a guided activation: a gradient passes where it and the input are positive.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::reference;

use crate::element::Element;
use crate::error::{Error, Result};

/// The backward of a guided ReLU.
///
/// `g_in = g_out · (g_out > 0) · (x > 0)`, element by element
/// (Springenberg et al. 2014, [arXiv 1412.6806](https://arxiv.org/abs/1412.6806), section 3.4).
///
/// | argument | shape | type | |
/// |---|---|---|---|
/// | `input` | any | f32, f16, bf16 | `x`, what the activation was applied to |
/// | `gradient` | as `input` | as `input` | `g_out`, of the score with respect to its output |
/// | `output` | as `input` | as `input` | `g_in`, overwritten |
///
/// All three lie in memory in the same order, whichever it is. Where the activation is a ReLU, its
/// output can stand for `x`, as it is positive in the same places. [`in_place`] writes over
/// `gradient`.
///
/// No value is changed: a result is a value of `gradient`, or 0. A NaN is not hidden, it stays out
/// of comparisons as in libtorch's backward of ReLU: a gradient of NaN stays NaN where `x > 0`, and
/// where `x` is NaN, a positive gradient passes.
///
/// # Errors
///
/// If the lengths differ.
///
/// # Example
///
/// ```
/// use medcam::ops::guided_activation;
///
/// let mut output = [0.0_f32; 4];
/// guided_activation(&[1.0, 1.0, -1.0, 0.0], &[0.5, -0.5, 0.5, 0.5], &mut output)?;
/// assert_eq!(output, [0.5, 0.0, 0.0, 0.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn guided_activation<T: Element>(input: &[T], gradient: &[T], output: &mut [T]) -> Result<()> {
    check("gradient", input.len(), gradient.len())?;
    check("output", input.len(), output.len())?;
    cpu::guided_activation(input, gradient, output);
    Ok(())
}

/// [`guided_activation()`](super::guided_activation()) that writes its result over `gradient`.
///
/// # Errors
///
/// If the lengths differ.
///
/// # Example
///
/// ```
/// use medcam::ops::guided_activation::in_place;
///
/// let mut gradient = [0.5_f32, -0.5, 0.5, 0.5];
/// in_place(&[1.0, 1.0, -1.0, 0.0], &mut gradient)?;
/// assert_eq!(gradient, [0.5, 0.0, 0.0, 0.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn in_place<T: Element>(input: &[T], gradient: &mut [T]) -> Result<()> {
    check("gradient", input.len(), gradient.len())?;
    cpu::in_place(input, gradient);
    Ok(())
}

/// Refuses an argument that has not as many values as `input`.
fn check(argument: &str, expected: usize, given: usize) -> Result<()> {
    if given == expected {
        return Ok(());
    }
    Err(Error::input(
        "guided_activation",
        format!("{argument}: input has {expected} values, it has {given}; pass as many"),
    ))
}
