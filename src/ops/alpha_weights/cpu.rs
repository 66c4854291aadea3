//! Grad-CAM++'s weights on the CPU: the reference, its condition, and the fast version.

use super::{Denominator, TOLERANCE};
use crate::element::Element;
use crate::error::Result;
use crate::ops::View;
use crate::ops::channel_sums::cpu::{Factor, channel_sums};
use crate::ops::check::check_same_form;
use crate::ops::relu::relu;
use crate::shape::Shape;

/// The written truth of [`alpha_weights`](super::alpha_weights()): the same, in f64.
///
/// # Panics
///
/// If `gradient` has fewer samples, channels or voxels than `activation`.
pub fn reference<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    denominator: Denominator,
) -> Vec<f64> {
    for_each_channel(activation, gradient, |a, g| {
        terms(a, g, denominator).map(|term| term.value).sum()
    })
}

/// How far each weight, `(B, C)`, may lie from its [`reference()`], where all values are finite.
///
/// A term `t = alpha·ReLU(G)` is as well known as its denominator, which can pass through 0.
/// Relative to the sum `M` of the magnitudes that it is made of, it may be off by [`TOLERANCE`], so
/// with `k = TOLERANCE · M / |denominator|` the term may be `1 / (1 - k)` times as large, or anything
/// where `k` is 1 or more. With the rounding of the sum that is
///
/// `sum_n |t|·(TOLERANCE + k) / (1 - k)`, and `2⁻¹⁴⁹` for each voxel where that is subnormal; where
/// `alpha` is subnormal, `|t|`.
///
/// `M = 2 + |G|·sum_m |A| + ε/G²` for the paper's denominator over `G²`, `2 + G·sum_m A + ε/G²`, and
/// `M = 2·G² + sum_m |A·G³| + ε` for M3d-CAM's. Where no activation is negative, `k` is
/// [`TOLERANCE`] for the paper's, and all weights are good to 1e-5 of themselves.
///
/// # Panics
///
/// If `gradient` has fewer samples, channels or voxels than `activation`.
pub fn bound<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    denominator: Denominator,
) -> Vec<f64> {
    for_each_channel(activation, gradient, |a, g| {
        let bounds = terms(a, g, denominator).map(|term| {
            let k = TOLERANCE * term.condition;
            let part = if k < 1.0 { (TOLERANCE + k) / (1.0 - k) } else { f64::INFINITY };
            let subnormal = 2.0_f64.powi(-149);
            let part = if term.alpha.abs() < f64::from(f32::MIN_POSITIVE) { 1.0 } else { part };
            if term.value == 0.0 { 0.0 } else { term.value.abs() * part + subnormal }
        });
        bounds.sum()
    })
}

/// How far the map of [`Method::GradCamPlusPlus`](crate::ops::Method) with `Denominator::Paper` moves
/// with rounding errors of its activations and gradients, `(B)`: for a relative error `ε` of each
/// value, up to about `ε` times this, in the units of a map that is not normalised.
///
/// `max_c (sum_n |t|·M / |denominator|)·max_n |A|` with the terms `t`, their denominators
/// `2 + G·sum_m A` and `M = 2 + |G|·sum_m |A|` of [`bound()`], which is about
/// [`TOLERANCE`] times the sum. Infinite where a denominator is 0.
///
/// # Errors
///
/// If shape or layout of `gradient` is not that of `activation`.
///
/// # Example
///
/// ```
/// use medcam::ops::{View, alpha_weights};
/// use medcam::{Layout, Shape};
///
/// let shape = Shape::new(1, 1, [1, 1, 2])?;
/// let gradient = View::new(&[1.0_f32, 0.0], shape, Layout::Contiguous)?;
/// let of = |a: &[f32]| {
///     alpha_weights::sensitivity(&View::new(a, shape, Layout::Contiguous)?, &gradient)
/// };
/// // 1 / (2 + 2), times (2 + 2) / (2 + 2), times 2; then 1 / (2 - 1.5), times (2 + 2.5) / 0.5, times 2.
/// assert_eq!(of(&[2.0, 0.0])?, [0.5]);
/// assert_eq!(of(&[-2.0, 0.5])?, [36.0]);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn sensitivity<T: Element>(activation: &View<T>, gradient: &View<T>) -> Result<Vec<f32>> {
    let form = |view: &View<T>| (view.shape(), view.layout());
    check_same_form("alpha_weights", form(activation), form(gradient))?;
    let (shape, layout) = form(activation);
    let [a, g] = [activation, gradient].map(|view| Factor::Tensor(*view));
    let totals = narrow(&channel_sums(shape, layout, [a], |[a]| a));
    let magnitudes = narrow(&channel_sums(shape, layout, [a], |[a]| a.abs()));
    let per_channel = [&totals, &magnitudes].map(|sums| Factor::PerChannel(sums));
    let [total, magnitude] = per_channel;
    let conditions = channel_sums(shape, layout, [g, total, magnitude], |[g, total, magnitude]| {
        let denominator = 2.0 + g * total;
        if g > 0.0 { g * (2.0 + g * magnitude) / (denominator * denominator) } else { 0.0 }
    });
    let conditions = narrow(&conditions);
    let of_sample = |b: usize| {
        let first = b * shape.channels;
        let mut rows: Vec<usize> = (first..first + shape.channels).collect();
        // No value is greater than the sum of magnitudes.
        let most = |row: usize| conditions[row] * magnitudes[row];
        rows.sort_by(|&one, &other| most(other).total_cmp(&most(one)));
        let mut greatest = 0.0_f32;
        for row in rows {
            if most(row) <= greatest {
                break;
            }
            let values = (0..shape.voxels()).map(|n| activation.value(b, row - first, n).abs());
            greatest = greatest.max(conditions[row] * narrow(&[values.fold(0.0, f64::max)])[0]);
        }
        greatest
    };
    Ok((0..shape.batch).map(of_sample).collect())
}

/// One voxel's share of a weight.
struct Term {
    alpha: f64,
    /// `alpha·ReLU(G)`
    value: f64,
    /// The magnitudes that the denominator is made of, over its own.
    condition: f64,
}

/// `of(A, G)` for each sample and channel.
fn for_each_channel<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    of: impl Fn(&[f64], &[f64]) -> f64,
) -> Vec<f64> {
    let Shape { batch, channels, .. } = activation.shape();
    let voxels = activation.shape().voxels();
    let mut values = Vec::with_capacity(batch * channels);
    for b in 0..batch {
        let row = |view: &View<T>, c| (0..voxels).map(|n| view.value(b, c, n)).collect::<Vec<_>>();
        for c in 0..channels {
            values.push(of(&row(activation, c), &row(gradient, c)));
        }
    }
    values
}

fn terms<'a>(
    a: &'a [f64],
    g: &'a [f64],
    denominator: Denominator,
) -> impl Iterator<Item = Term> + 'a {
    let sum: f64 = a.iter().sum();
    let magnitude: f64 = a.iter().map(|a| a.abs()).sum();
    let cubes: f64 = a.iter().zip(g).map(|(a, g)| a * g * g * g).sum();
    let cube_magnitude: f64 = a.iter().zip(g).map(|(a, g)| (a * g * g * g).abs()).sum();
    let epsilon = denominator.epsilon();
    g.iter().map(move |&g| {
        let squared = g * g;
        let (numerator, denominator, parts) = match denominator {
            // Over G², so that it is one of 2 and not of 2·G². Without an epsilon 0/0 must not arise;
            // with one, G = 0 makes the denominator infinite, and alpha 0.
            Denominator::Paper | Denominator::PaperEpsilon => {
                let epsilon = if epsilon == 0.0 { 0.0 } else { epsilon / squared };
                (1.0, 2.0 + g * sum + epsilon, 2.0 + g.abs() * magnitude + epsilon)
            }
            Denominator::M3dCam | Denominator::M3dCamEpsilon => {
                let parts = 2.0 * squared + cube_magnitude + epsilon;
                (squared, 2.0 * squared + cubes + epsilon, parts)
            }
        };
        let alpha = if denominator == 0.0 { squared } else { numerator / denominator };
        // `relu`, in f64.
        let positive = if g > 0.0 { g } else { 0.0 * g };
        Term { alpha, value: alpha * positive, condition: parts / denominator.abs() }
    })
}

pub(super) fn alpha_weights<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    denominator: Denominator,
) -> Vec<f32> {
    let (shape, layout) = (activation.shape(), activation.layout());
    let [a, g] = [activation, gradient].map(|view| Factor::Tensor(*view));
    let epsilon = denominator.epsilon();
    let sums = match denominator {
        Denominator::Paper | Denominator::PaperEpsilon => {
            let totals = narrow(&channel_sums(shape, layout, [a], |[a]| a));
            let factors = [g, Factor::PerChannel(&totals)];
            // Without an epsilon a term has one division in place of three.
            let sums = if epsilon == 0.0 {
                channel_sums(shape, layout, factors, |[g, total]| paper_term(g, 2.0 + g * total))
            } else {
                let epsilon = narrow(&[epsilon])[0];
                channel_sums(shape, layout, factors, |[g, total]| {
                    // Infinite where g is 0 or below 5e-23. The term is then 0, which is right: it is
                    // below `g³/epsilon = 1e-60`.
                    paper_term(g, 2.0 + g * total + epsilon / g / g)
                })
            };
            poison(sums, totals.into_iter().map(f64::from))
        }
        Denominator::M3dCam | Denominator::M3dCamEpsilon => {
            // In f64: the cubes of gradients below 1e-13 or above 1e13 leave the range of f32.
            let mut cubes = channel_sums(shape, layout, [a, g], |[a, g]| {
                let g = f64::from(g);
                f64::from(a) * g * g * g
            });
            cubes.iter_mut().for_each(|d| *d += epsilon);
            let (scales, scaled): (Vec<f32>, Vec<f32>) = cubes.iter().map(|&d| scaled(d)).unzip();
            let (scale, d) = (Factor::PerChannel(&scales), Factor::PerChannel(&scaled));
            let sums = channel_sums(shape, layout, [g, scale, d], |[g, scale, d]| {
                m3d_cam_term(g, scale, d)
            });
            poison(sums, cubes.into_iter())
        }
    };
    narrow(&sums)
}

/// `ReLU(g) / (2 + g·total + epsilon/g²)`, with this denominator.
#[inline(always)]
fn paper_term(g: f32, denominator: f32) -> f32 {
    let positive = relu(g);
    if denominator == 0.0 { positive * g * g } else { positive / denominator }
}

/// `ReLU(g)·g² / (2·g² + D)`, with `scale` and `d` from [`scaled()`]; an epsilon is part of `D`.
#[inline(always)]
fn m3d_cam_term(g: f32, scale: f32, d: f32) -> f32 {
    /// Clamp for `ratio²`: `d` is below 4, so any larger value leaves the quotient at 1/2, and
    /// clamping avoids infinity over infinity.
    const LARGE: f32 = (1_u64 << 60) as f32;
    let ratio = g * scale;
    let square = ratio * ratio;
    let square = if square < LARGE { square } else { LARGE };
    let denominator = 2.0 * square + d;
    let alpha = if denominator == 0.0 { g * g } else { square / denominator };
    alpha * relu(g)
}

/// `D` as `(scale, D·scale²)`: the scale is the power of 2 for which `scale·sqrt(|D|)` lies in
/// `[1, 2)`. With both, `G²/D` is `(scale·G)² / (D·scale²)`, which f32 can hold for any `D`.
#[expect(clippy::cast_possible_truncation, reason = "clamped, and rounded to f32 on purpose")]
fn scaled(d: f64) -> (f32, f32) {
    // Clamped to the exponents of f32. Beyond them, and where D is 0, every G² that is not 0 is so far
    // above or below D that the exact scale makes no difference.
    let exponent = if d == 0.0 { -126 } else { d.abs().log2().div_euclid(2.0) as i32 };
    let exponent = exponent.clamp(-126, 126);
    let scale = 2.0_f64.powi(-exponent);
    (scale as f32, (d * scale * scale) as f32)
}

/// Makes the weight NaN in channels whose denominator is not finite: its terms would come to 0.
fn poison(sums: Vec<f64>, denominators: impl Iterator<Item = f64>) -> Vec<f64> {
    sums.into_iter().zip(denominators).map(|(sum, d)| sum + 0.0 * d).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "the result is f32 by contract")]
fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Layout;

    fn weights(a: &[f32], g: &[f32], denominator: Denominator) -> Vec<f32> {
        let shape = Shape::new(1, 1, [1, 1, a.len()]).unwrap();
        let [a, g] = [a, g].map(|data| View::new(data, shape, Layout::Contiguous).unwrap());
        let fast = alpha_weights(&a, &g, denominator);
        let exact = reference(&a, &g, denominator);
        assert_eq!(fast.iter().map(|&w| f64::from(w)).collect::<Vec<_>>(), exact);
        fast
    }

    #[test]
    fn the_papers_by_hand() {
        // sum A = 6: 1 / (2 + 6 · 1).
        let a = [1.0, 2.0, 3.0, 0.0];
        assert_eq!(weights(&a, &[1.0, 0.0, -1.0, 0.0], Denominator::Paper), [0.125]);
        // 1 / 8 + 5 / (2 + 6 · 5).
        assert_eq!(weights(&a, &[1.0, 5.0, -3.0, 0.0], Denominator::Paper), [0.28125]);
    }

    #[test]
    fn m3d_cams_by_hand() {
        // D = 1·1 + 2·0 + 3·(-1) + 0 = -2 and 2·1 - 2 = 0 where G is ±1: alpha = G² = 1.
        let a = [1.0, 2.0, 3.0, 0.0];
        assert_eq!(weights(&a, &[1.0, 0.0, -1.0, 0.0], Denominator::M3dCam), [1.0]);
        // D = 1·64 - 0.5·64 = 32: 4 · 16 / (2·16 + 32).
        let (a, g) = ([1.0, 0.5, 0.0], [4.0, -4.0, 0.0]);
        assert_eq!(weights(&a, &g, Denominator::M3dCam), [1.0]);
    }

    #[test]
    fn where_the_denominator_is_0_it_is_1() {
        // 2 - 2·1 = 0.
        assert_eq!(weights(&[-2.0, 0.0], &[1.0, 0.0], Denominator::Paper), [1.0]);
        assert_eq!(weights(&[-8.0, 0.0], &[0.25, 0.0], Denominator::Paper), [0.015625]);
        // Where no gradient is positive nothing counts, whatever the denominator.
        assert_eq!(weights(&[-2.0, 0.0], &[-1.0, 0.0], Denominator::Paper), [0.0]);
        assert_eq!(weights(&[2.0, 0.0], &[-1.0, -1e30], Denominator::M3dCam), [0.0]);
        // Without activations alpha is 1/2 for any gradient.
        for denominator in [Denominator::Paper, Denominator::M3dCam] {
            for g in [2.0_f32.powi(-148), 1e-30, 1.0, 3e38] {
                assert_eq!(weights(&[0.0; 2], &[g, 0.0], denominator), [g / 2.0]);
            }
        }
    }

    /// The weight of both versions, of the fast one within [`TOLERANCE`].
    #[track_caller]
    fn weight_is(a: &[f32], g: &[f32], denominator: Denominator, expected: f64) {
        let shape = Shape::new(1, 1, [1, 1, a.len()]).unwrap();
        let [a, g] = [a, g].map(|data| View::new(data, shape, Layout::Contiguous).unwrap());
        assert_eq!(reference(&a, &g, denominator), [expected]);
        let fast = f64::from(alpha_weights(&a, &g, denominator)[0]);
        assert!((fast - expected).abs() <= TOLERANCE * expected, "{fast} {expected}");
    }

    #[test]
    fn with_an_epsilon_by_hand() {
        // G² = 2⁻²⁰, and epsilons over it are 1e-6·2²⁰ and 1e-7·2²⁰.
        let g = 2.0_f32.powi(-10);
        let exact = f64::from(g);
        let gradient = [g, 0.0, -0.0];
        // A·G = 1, and so is D / G².
        let a = [1024.0, 0.0, 0.0];
        weight_is(&a, &gradient, Denominator::PaperEpsilon, exact / (2.0 + 1.0 + 1.048_576));
        weight_is(&a, &gradient, Denominator::M3dCamEpsilon, exact / (2.0 + 1.0 + 0.104_857_6));
        // A·G = -2: the epsilon alone is the denominator, where M3d-CAM's would be 1 + 1e-7.
        let a = [-2048.0, 0.0, 0.0];
        weight_is(&a, &gradient, Denominator::PaperEpsilon, exact / 1.048_576);
        weight_is(&a, &gradient, Denominator::M3dCamEpsilon, exact / 0.104_857_6);
    }

    /// Of three activations whose sum, which f32 does not hold, brings the denominator to 0.
    #[test]
    fn where_the_denominator_is_0_with_its_epsilon_it_is_1() {
        for (denominator, exponent) in
            [(Denominator::PaperEpsilon, -11), (Denominator::M3dCamEpsilon, -12)]
        {
            let g = 2.0_f64.powi(exponent);
            let sum = -(2.0 + denominator.epsilon() / (g * g)) / g;
            let high = narrow(&[sum])[0];
            let middle = narrow(&[sum - f64::from(high)])[0];
            let low = narrow(&[sum - f64::from(high) - f64::from(middle)])[0];
            let gradient = narrow(&[g; 3]);
            weight_is(&[high, middle, low], &gradient, denominator, 3.0 * g * g * g);
        }
    }

    #[test]
    fn beside_an_epsilon_tiny_gradients_count_nothing_and_huge_ones_all() {
        for (without, with) in [
            (Denominator::Paper, Denominator::PaperEpsilon),
            (Denominator::M3dCam, Denominator::M3dCamEpsilon),
        ] {
            let shape = Shape::new(1, 1, [1, 1, 2]).unwrap();
            let of = |data: &[f32; 2], g: f32, denominator| {
                let gradient = [g, 0.0];
                let [a, g] = [data, &gradient]
                    .map(|data| View::new(data, shape, Layout::Contiguous).unwrap());
                alpha_weights(&a, &g, denominator)
            };
            for tiny in [2.0_f32.powi(-149), 1e-40, 1e-30, 1e-22] {
                assert_eq!(of(&[1.0, 0.0], tiny, with), [0.0]);
                assert_eq!(of(&[0.0, 0.0], tiny, with), [0.0]);
            }
            for huge in [1e10, 1e20, 3e38] {
                let a = [2.0 / huge, 0.0];
                assert_eq!(of(&a, huge, with), of(&a, huge, without));
            }
        }
    }

    #[test]
    fn neither_tiny_nor_huge_gradients_leave_the_range() {
        for exponent in [-120, -60, 60, 120] {
            let g = 2.0_f32.powi(exponent);
            // A·G = 2 or A = 2 at each of them: 1 / (2 + 2), and as much for M3d-CAM's.
            let paper = weights(&[2.0 / g, 0.0], &[g, 0.0], Denominator::Paper);
            assert_eq!(paper, [g / 4.0]);
            let m3d_cam = weights(&[2.0 / g, 0.0], &[g, 0.0], Denominator::M3dCam);
            assert_eq!(m3d_cam, [g / 4.0]);
        }
    }
}
