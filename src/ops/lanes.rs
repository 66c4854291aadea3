//! Sums in independent accumulators (lanes), in a fixed order that the compiler can turn into vector
//! code.

use std::ops::AddAssign;

use crate::element::Element;
use crate::vectors::for_each_instruction_set;

/// Accumulators per sum: four vectors of SSE, two of AVX, one of AVX-512.
pub(super) const LANES: usize = 16;
/// Values that are widened to f32 at once, at least: with fewer, the call of the conversion takes
/// longer than the conversion.
pub(super) const WIDENED_AT_ONCE: usize = 1024;

/// The first half of a tree of pairs over the lanes.
#[inline(always)]
fn quarters<S: Copy + AddAssign>(mut lanes: [S; LANES]) -> [S; LANES / 4] {
    let mut half = LANES / 2;
    while half >= LANES / 4 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        half /= 2;
    }
    [lanes[0], lanes[1], lanes[2], lanes[3]]
}

/// The second half of the tree.
#[inline(always)]
fn total<S: Copy + AddAssign>([mut a, mut b, c, d]: [S; LANES / 4]) -> S {
    a += c;
    b += d;
    a += b;
    a
}

/// `sum_i term([a[i], b[i], ...])` of slices of one length, in four parts.
#[inline(always)]
fn sum_lanes<const N: usize, S: Copy + Default + AddAssign>(
    values: [&[f32]; N],
    term: impl Fn([f32; N]) -> S,
) -> [S; LANES / 4] {
    let mut lanes = [S::default(); LANES];
    let length = values[0].len();
    let values = values.map(|values| values[..length].as_chunks::<LANES>());
    for k in 0..values[0].0.len() {
        let chunk = values.map(|(chunks, _)| &chunks[k]);
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(chunk.map(|values| values[i]));
        }
    }
    // The rest: whole vectors of four, then single values.
    let values = values.map(|(_, rest)| rest.as_chunks::<4>());
    let (fours, ones) = (values[0].0.len(), values[0].1.len());
    for (k, lanes) in (0..fours).zip(lanes.as_chunks_mut::<4>().0) {
        let chunk = values.map(|(chunks, _)| &chunks[k]);
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(chunk.map(|values| values[i]));
        }
    }
    for (i, lane) in (0..ones).zip(&mut lanes[4 * fours..]) {
        *lane += term(values.map(|(_, rest)| rest[i]));
    }
    quarters(lanes)
}

/// `sum_i term([a[i], b[i], ...])` of slices shorter than `LANES`, one value after the other.
#[inline(always)]
fn sum_in_order<const N: usize>(values: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    let mut sum = 0.0;
    for i in 0..values[0].len() {
        sum += term(values.map(|values| values[i]));
    }
    sum
}

/// See [`add_rows`].
#[inline(always)]
fn add_row<T: Element, const N: usize, S: AddAssign>(
    sums: &mut [S],
    values: [&[T]; N],
    term: impl Fn([f32; N]) -> S,
) {
    let values = row(values, 0, sums.len());
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum += term(values.map(|values| values[i].lane()));
    }
}

/// See [`add_four`].
#[inline(always)]
fn add_each_four<T: Element, const N: usize>(
    sums: &mut [f32],
    rows: [[&[T]; N]; 4],
    term: impl Fn(usize, [f32; N]) -> f32,
) {
    let rows = rows.map(|values| row(values, 0, sums.len()));
    for (i, sum) in sums.iter_mut().enumerate() {
        let at = |j: usize| term(j, rows[j].map(|values| values[i].lane()));
        *sum += (at(0) + at(1)) + (at(2) + at(3));
    }
}

/// `width` values from `start` on, of each of the slices.
#[inline(always)]
fn row<T, const N: usize>(values: [&[T]; N], start: usize, width: usize) -> [&[T]; N] {
    values.map(|values| &values[start..][..width])
}

for_each_instruction_set! {
    /// `sum_i term([a[i], b[i], ...])` of slices of one length.
    pub(super) fn sum<const N: usize, S: Copy + Default + AddAssign>(
        values: [&[f32]; N],
        term: impl Fn([f32; N]) -> S,
    ) -> S {
        total(sum_lanes(values, term))
    }
}

for_each_instruction_set! {
    /// `sums[j] = sum_i term([a[j·width + i], b[j·width + i], ...])`
    pub(super) fn sum_rows<const N: usize>(
        sums: &mut [f32],
        values: [&[f32]; N],
        width: usize,
        term: impl Fn([f32; N]) -> f32,
    ) {
        // Short rows are reduced to four parts each, and the parts of many rows are then added up
        // together, which vectorises over the rows.
        let mut parts = [[0.0; LANES / 4]; 64];
        for (k, sums) in sums.chunks_mut(parts.len()).enumerate() {
            let start = k * parts.len() * width;
            let row = |j| row(values, start + j * width, width);
            if width < LANES {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = sum_in_order(row(j), &term);
                }
            } else if width < 4 * LANES {
                for (j, parts) in parts[..sums.len()].iter_mut().enumerate() {
                    *parts = sum_lanes(row(j), &term);
                }
                for (sum, parts) in sums.iter_mut().zip(&parts) {
                    *sum = total(*parts);
                }
            } else {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = total(sum_lanes(row(j), &term));
                }
            }
        }
    }
}

for_each_instruction_set! {
    /// `sums[i] += sum_j term([a[j·width + i], b[j·width + i], ...])`, where `width` is the length of
    /// `sums`; the last row may be a shorter one.
    pub(super) fn add_rows<T: Element, const N: usize, S: AddAssign>(
        sums: &mut [S],
        values: [&[T]; N],
        term: impl Fn([f32; N]) -> S,
    ) {
        let (length, width) = (values[0].len(), sums.len());
        let mut start = 0;
        while start < length {
            let width = width.min(length - start);
            add_row(&mut sums[..width], row(values, start, width), &term);
            start += width;
        }
    }
}

for_each_instruction_set! {
    /// `sums[i] += sum_j term(j, [a[j][i], b[j][i], ...])` over four rows, in pairs.
    pub(super) fn add_four<T: Element, const N: usize>(
        sums: &mut [f32],
        rows: [[&[T]; N]; 4],
        term: impl Fn(usize, [f32; N]) -> f32,
    ) {
        add_each_four(sums, rows, &term);
    }
}

for_each_instruction_set! {
    /// Counts the sums that are not finite; then applies ReLU in place, if `rectified`.
    pub(super) fn finish(sums: &mut [f32], rectified: bool) -> u32 {
        let mut not_finite = 0;
        for sum in sums.iter_mut() {
            not_finite += u32::from(!sum.is_finite());
        }
        if rectified {
            for sum in sums {
                // Not `max`, which would turn NaN into 0.
                *sum = if *sum <= 0.0 { 0.0 } else { *sum };
            }
        }
        not_finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same loops built for the instruction set of the tests, whatever the processor has.
    #[test]
    fn no_instruction_set_has_bits_of_its_own() {
        let values = |seed: u32| -> Vec<f32> {
            (0..1061).map(|i| ((i * 7919 + seed) % 1013) as f32 * 0.37 - 150.0).collect()
        };
        let (a, b) = (values(3), values(11));
        let term = |[a, b]: [f32; 2]| a * b + a / b;
        for width in [1, 5, 16, 23, 31, 64, 257, 1061] {
            let both = row([&a[..], &b[..]], 0, width);
            assert_eq!(sum(both, term).to_bits(), total(sum_lanes(both, term)).to_bits());

            let count = a.len() / width;
            let mut sums = vec![0.0; count];
            sum_rows(&mut sums, [&a, &b], width, term);
            for (j, fast) in sums.iter().enumerate() {
                let row = row([&a[..], &b[..]], j * width, width);
                let plain = if width < LANES {
                    sum_in_order(row, term)
                } else {
                    total(sum_lanes(row, term))
                };
                assert_eq!(fast.to_bits(), plain.to_bits());
            }

            let (mut fast, mut plain) = (vec![0.5_f32; width], vec![0.5_f32; width]);
            add_rows(&mut fast, both, term);
            add_row(&mut plain, both, term);
            let rows = [[&a[..], &b], [&b, &a], [&a, &a], [&b, &b]].map(|v| row(v, 0, width));
            add_four(&mut fast, rows, |j, [a, b]| a * b + j as f32);
            add_each_four(&mut plain, rows, |j, [a, b]| a * b + j as f32);
            let bits = |sums: &[f32]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&fast), bits(&plain));
        }
    }
}
