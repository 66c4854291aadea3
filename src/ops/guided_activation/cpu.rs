//! The backward of a guided activation on the CPU: the reference, and the fast version.

use crate::element::Element;
use crate::ops::tasks;
use crate::vectors::for_each_instruction_set;

/// Values that one task writes.
const BLOCK: usize = 1 << 16;
/// Values of the in-place version that are computed into a buffer in the first-level cache and then
/// copied. Without it the compiler stores the zeros alone, with a branch for each value, which takes 3
/// times as long for f32.
const CHUNK: usize = 1 << 10;

/// The written truth of [`guided_activation`](super::guided_activation()): the same, in f64.
pub fn reference<T: Element>(input: &[T], gradient: &[T]) -> Vec<f64> {
    let pass = |(x, g): (&T, &T)| {
        let (x, g) = (f64::from(x.to_f32()), f64::from(g.to_f32()));
        // Not `g > 0 && x > 0`, which would turn NaN into 0.
        if g <= 0.0 || x <= 0.0 { 0.0 } else { g }
    };
    input.iter().zip(gradient).map(pass).collect()
}

pub(super) fn guided_activation<T: Element>(input: &[T], gradient: &[T], output: &mut [T]) {
    let work = output.len();
    let blocks = output.chunks_mut(BLOCK).zip(input.chunks(BLOCK)).zip(gradient.chunks(BLOCK));
    tasks::map(work, blocks, |((output, input), gradient)| pass_to(output, input, gradient));
}

pub(super) fn in_place<T: Element>(input: &[T], gradient: &mut [T]) {
    let work = gradient.len();
    let blocks = gradient.chunks_mut(BLOCK).zip(input.chunks(BLOCK));
    tasks::map(work, blocks, |(gradient, input)| {
        let mut passed = [T::from_f32(0.0); CHUNK];
        for (gradient, input) in gradient.chunks_mut(CHUNK).zip(input.chunks(CHUNK)) {
            let passed = &mut passed[..gradient.len()];
            pass_to(passed, input, gradient);
            gradient.copy_from_slice(passed);
        }
    });
}

for_each_instruction_set! {
    fn pass_to<T: Element>(output: &mut [T], input: &[T], gradient: &[T]) {
        let zero = T::from_f32(0.0);
        for ((out, &x), &g) in output.iter_mut().zip(input).zip(gradient) {
            *out = pass(x, g, zero);
        }
    }
}

/// `|`, not `||`: no branch, so that the loop is vector code.
#[inline(always)]
fn pass<T: Element>(x: T, g: T, zero: T) -> T {
    if g.at_most_zero() | x.at_most_zero() { zero } else { g }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_by_hand() {
        let input = [1.0_f32, 1.0, -1.0, 0.0, 1e-45, 2.0, f32::INFINITY];
        let mut gradient = [0.5_f32, -0.5, 0.5, 0.5, 1e-45, 0.0, f32::INFINITY];
        let expected = [0.5_f32, 0.0, 0.0, 0.0, 1e-45, 0.0, f32::INFINITY];
        assert_eq!(reference(&input, &gradient), expected.map(f64::from));
        let mut output = [7.0; 7];
        guided_activation(&input, &gradient, &mut output);
        assert_eq!(output, expected);
        in_place(&input, &mut gradient);
        assert_eq!(gradient, expected);
    }

    #[test]
    fn nan_stays_out_of_comparisons() {
        let input = [1.0, -1.0, f32::NAN, f32::NAN, f32::NAN];
        let gradient = [f32::NAN, f32::NAN, 2.0, -2.0, f32::NAN];
        let mut output = [7.0; 5];
        guided_activation(&input, &gradient, &mut output);
        assert!(output[0].is_nan() && output[4].is_nan());
        assert_eq!(output[1..4], [0.0, 2.0, 0.0]);
    }
}
