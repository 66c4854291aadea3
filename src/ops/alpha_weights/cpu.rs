//! Grad-CAM++'s weights on the CPU: the reference, its condition, and the fast version.

use super::{Denominator, TOLERANCE};
use crate::element::Element;
use crate::ops::View;
use crate::ops::sums::{self, Factor};
use crate::shape::Shape;

/// The written truth of [`alpha_weights`](super::alpha_weights()): the same, in f64.
///
/// # Panics
///
/// If `gradient` or `score_weight` has fewer samples, channels or voxels than `activation`.
pub fn reference<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    score_weight: Option<&[f32]>,
    denominator: Denominator,
) -> Vec<f64> {
    for_each_channel(activation, gradient, score_weight, |a, g, s| {
        terms(a, g, s, denominator).map(|term| term.value).sum()
    })
}

/// How far each weight, `(B, C)`, may lie from its [`reference()`], where all values are finite.
///
/// A term `t = alpha·ReLU(s·G)` is as well known as its denominator, which can pass through 0.
/// Relative to the sum `M` of the magnitudes that it is made of, it may be off by [`TOLERANCE`], so
/// with `k = TOLERANCE · M / |denominator|` the term may be `1 / (1 - k)` times as large, or anything
/// where `k` is 1 or more. With the rounding of the sum that is
///
/// `sum_n |t|·(TOLERANCE + k) / (1 - k)`, and `2⁻¹⁴⁹` for each voxel where that is subnormal; where
/// `alpha` is subnormal, `|t|`.
///
/// `M = 2 + |G|·sum_m |A|` for `Denominator::Paper`, whose denominator is `2 + G·sum_m A`, and
/// `M = 2·G² + sum_m |A·G³|` for `Denominator::M3dCam`. Where no activation is negative, `k` is
/// [`TOLERANCE`] for the paper's, and all weights are good to 1e-5 of themselves.
///
/// # Panics
///
/// If `gradient` or `score_weight` has fewer samples, channels or voxels than `activation`.
pub fn bound<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    score_weight: Option<&[f32]>,
    denominator: Denominator,
) -> Vec<f64> {
    for_each_channel(activation, gradient, score_weight, |a, g, s| {
        let bounds = terms(a, g, s, denominator).map(|term| {
            let k = TOLERANCE * term.condition;
            let part = if k < 1.0 { (TOLERANCE + k) / (1.0 - k) } else { f64::INFINITY };
            let subnormal = 2.0_f64.powi(-149);
            let part = if term.alpha.abs() < f64::from(f32::MIN_POSITIVE) { 1.0 } else { part };
            if term.value == 0.0 { 0.0 } else { term.value.abs() * part + subnormal }
        });
        bounds.sum()
    })
}

/// One voxel's share of a weight.
struct Term {
    alpha: f64,
    /// `alpha·ReLU(s·G)`
    value: f64,
    /// The magnitudes that the denominator is made of, over its own.
    condition: f64,
}

/// `of(A, G, s)` for each sample and channel.
fn for_each_channel<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    score_weight: Option<&[f32]>,
    of: impl Fn(&[f64], &[f64], &[f64]) -> f64,
) -> Vec<f64> {
    let Shape { batch, channels, .. } = activation.shape();
    let voxels = activation.shape().voxels();
    let mut values = Vec::with_capacity(batch * channels);
    for b in 0..batch {
        let row = |view: &View<T>, c| (0..voxels).map(|n| view.value(b, c, n)).collect::<Vec<_>>();
        let s: Vec<f64> = (0..voxels)
            .map(|n| score_weight.map_or(1.0, |s| f64::from(s[b * voxels + n])))
            .collect();
        for c in 0..channels {
            values.push(of(&row(activation, c), &row(gradient, c), &s));
        }
    }
    values
}

fn terms<'a>(
    a: &'a [f64],
    g: &'a [f64],
    s: &'a [f64],
    denominator: Denominator,
) -> impl Iterator<Item = Term> + 'a {
    let sum: f64 = a.iter().sum();
    let magnitude: f64 = a.iter().map(|a| a.abs()).sum();
    let cubes: f64 = a.iter().zip(g).map(|(a, g)| a * g * g * g).sum();
    let cube_magnitude: f64 = a.iter().zip(g).map(|(a, g)| (a * g * g * g).abs()).sum();
    g.iter().zip(s).map(move |(&g, &s)| {
        // The paper's denominator over G², so that it is one of 2 and not of 2·G².
        let (numerator, denominator, parts) = match denominator {
            Denominator::Paper => (1.0, 2.0 + g * sum, 2.0 + g.abs() * magnitude),
            Denominator::M3dCam => (g * g, 2.0 * g * g + cubes, 2.0 * g * g + cube_magnitude),
        };
        let alpha = if denominator == 0.0 { g * g } else { numerator / denominator };
        // ReLU that leaves NaN and makes -∞ one.
        let positive = if s * g > 0.0 { s * g } else { 0.0 * (s * g) };
        Term { alpha, value: alpha * positive, condition: parts / denominator.abs() }
    })
}

pub(super) fn alpha_weights<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    score_weight: Option<&[f32]>,
    denominator: Denominator,
) -> Vec<f32> {
    let (shape, layout) = (activation.shape(), activation.layout());
    let [a, g] = [activation, gradient].map(|view| Factor::Tensor(*view));
    let sums = match denominator {
        Denominator::Paper => {
            let totals = narrow(&sums::over_voxels(shape, layout, [a], |[a]| a));
            let total = Factor::PerChannel(&totals);
            let sums = match score_weight {
                None => sums::over_voxels(shape, layout, [g, total], |[g, total]| {
                    paper_term(g, g, total)
                }),
                Some(s) => {
                    let factors = [g, total, Factor::PerVoxel(s)];
                    sums::over_voxels(shape, layout, factors, |[g, total, s]| {
                        paper_term(s * g, g, total)
                    })
                }
            };
            poison(sums, totals.into_iter().map(f64::from))
        }
        Denominator::M3dCam => {
            // Cubes leave the range of f32 soon, at 1e-13 and 1e13.
            let cubes = sums::over_voxels(shape, layout, [a, g], |[a, g]| {
                let g = f64::from(g);
                f64::from(a) * g * g * g
            });
            let (scales, scaled): (Vec<f32>, Vec<f32>) = cubes.iter().map(|&d| scaled(d)).unzip();
            let (scale, d) = (Factor::PerChannel(&scales), Factor::PerChannel(&scaled));
            let sums = match score_weight {
                None => sums::over_voxels(shape, layout, [g, scale, d], |[g, scale, d]| {
                    m3d_cam_term(g, g, scale, d)
                }),
                Some(s) => {
                    let factors = [g, scale, d, Factor::PerVoxel(s)];
                    sums::over_voxels(shape, layout, factors, |[g, scale, d, s]| {
                        m3d_cam_term(s * g, g, scale, d)
                    })
                }
            };
            poison(sums, cubes.into_iter())
        }
    };
    narrow(&sums)
}

/// `ReLU(weighted) / (2 + g·total)`, where `weighted` is `s·g`.
#[inline(always)]
fn paper_term(weighted: f32, g: f32, total: f32) -> f32 {
    let denominator = 2.0 + g * total;
    let positive = positive(weighted);
    if denominator == 0.0 { positive * g * g } else { positive / denominator }
}

/// `ReLU(weighted)·g² / (2·g² + D)`, of `g` and `D` as [`scaled()`] has them.
#[inline(always)]
fn m3d_cam_term(weighted: f32, g: f32, scale: f32, d: f32) -> f32 {
    /// So far above `D`, which is below 4, that it does not matter how far.
    const LARGE: f32 = (1_u64 << 60) as f32;
    let ratio = g * scale;
    let square = ratio * ratio;
    let square = if square < LARGE { square } else { LARGE };
    let denominator = 2.0 * square + d;
    let alpha = if denominator == 0.0 { g * g } else { square / denominator };
    alpha * positive(weighted)
}

/// ReLU that leaves NaN and makes -∞ one, so that neither is lost.
#[inline(always)]
pub(in crate::ops) fn positive(value: f32) -> f32 {
    value * if value > 0.0 { 1.0 } else { 0.0 }
}

/// A power of 2 that times `sqrt(|D|)` lies in `[1, 2)`, and `D` times its square: so `G²/D` can be
/// had in f32 of any `D`.
#[expect(clippy::cast_possible_truncation, reason = "clamped, and rounded to f32 on purpose")]
fn scaled(d: f64) -> (f32, f32) {
    // Beyond what the exponent of an f32 can make up for, and where D is 0, all that differs from 0
    // is far above D, or far below.
    let exponent = if d == 0.0 { -126 } else { d.abs().log2().div_euclid(2.0) as i32 };
    let exponent = exponent.clamp(-126, 126);
    let scale = 2.0_f64.powi(-exponent);
    (scale as f32, (d * scale * scale) as f32)
}

/// The weights of channels whose denominators are not finite are not, either.
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

    fn weights(a: &[f32], g: &[f32], s: Option<&[f32]>, denominator: Denominator) -> Vec<f32> {
        let shape = Shape::new(1, 1, [1, 1, a.len()]).unwrap();
        let [a, g] = [a, g].map(|data| View::new(data, shape, Layout::Contiguous).unwrap());
        let fast = alpha_weights(&a, &g, s, denominator);
        let exact = reference(&a, &g, s, denominator);
        assert_eq!(fast.iter().map(|&w| f64::from(w)).collect::<Vec<_>>(), exact);
        fast
    }

    #[test]
    fn the_papers_by_hand() {
        // sum A = 6: 1 / (2 + 6 · 1).
        let a = [1.0, 2.0, 3.0, 0.0];
        assert_eq!(weights(&a, &[1.0, 0.0, -1.0, 0.0], None, Denominator::Paper), [0.125]);
        // 1 / 8 + 5 / (2 + 6 · 5).
        assert_eq!(weights(&a, &[1.0, 5.0, -3.0, 0.0], None, Denominator::Paper), [0.28125]);
        // 3 / 8, and a product of two negative factors: 1 / (2 - 6).
        let s = [3.0, 1.0, -1.0, 1.0];
        assert_eq!(weights(&a, &[1.0, 0.0, -1.0, 0.0], Some(&s), Denominator::Paper), [0.125]);
    }

    #[test]
    fn m3d_cams_by_hand() {
        // D = 1·1 + 2·0 + 3·(-1) + 0 = -2 and 2·1 - 2 = 0 where G is ±1: alpha = G² = 1.
        let a = [1.0, 2.0, 3.0, 0.0];
        assert_eq!(weights(&a, &[1.0, 0.0, -1.0, 0.0], None, Denominator::M3dCam), [1.0]);
        // D = 1·64 - 0.5·64 = 32: 4 · 16 / (2·16 + 32).
        let (a, g) = ([1.0, 0.5, 0.0], [4.0, -4.0, 0.0]);
        assert_eq!(weights(&a, &g, None, Denominator::M3dCam), [1.0]);
        assert_eq!(weights(&a, &g, Some(&[0.5, 1.0, 1.0]), Denominator::M3dCam), [0.5]);
    }

    #[test]
    fn where_the_denominator_is_0_it_is_1() {
        // 2 - 2·1 = 0.
        assert_eq!(weights(&[-2.0, 0.0], &[1.0, 0.0], None, Denominator::Paper), [1.0]);
        assert_eq!(weights(&[-8.0, 0.0], &[0.25, 0.0], None, Denominator::Paper), [0.015625]);
        // Without activations alpha is 1/2 for any gradient.
        for denominator in [Denominator::Paper, Denominator::M3dCam] {
            for g in [2.0_f32.powi(-148), 1e-30, 1.0, 3e38] {
                assert_eq!(weights(&[0.0; 2], &[g, 0.0], None, denominator), [g / 2.0]);
            }
        }
    }

    #[test]
    fn neither_tiny_nor_huge_gradients_leave_the_range() {
        for exponent in [-120, -60, 60, 120] {
            let g = 2.0_f32.powi(exponent);
            // A·G = 2 or A = 2 at each of them: 1 / (2 + 2), and as much for M3d-CAM's.
            let paper = weights(&[2.0 / g, 0.0], &[g, 0.0], None, Denominator::Paper);
            assert_eq!(paper, [g / 4.0]);
            let m3d_cam = weights(&[2.0 / g, 0.0], &[g, 0.0], None, Denominator::M3dCam);
            assert_eq!(m3d_cam, [g / 4.0]);
        }
    }
}
