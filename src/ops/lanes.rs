//! Sums over independent lanes, in a fixed order that the compiler can turn into vector code.

use std::ops::AddAssign;

use crate::vectors::for_each_instruction_set;

/// Accumulators per sum: four vectors of SSE, two of AVX, one of AVX-512.
pub(super) const LANES: usize = 16;

/// The sum of the lanes, as a tree of pairs.
#[inline(always)]
fn total<S: Copy + AddAssign>(lanes: [S; LANES]) -> S {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum_i term([a[i], b[i], ...])` of slices of one length.
#[inline(always)]
fn sum_lanes<const N: usize, S: Copy + Default + AddAssign>(
    values: [&[f32]; N],
    term: impl Fn([f32; N]) -> S,
) -> S {
    let mut lanes = [S::default(); LANES];
    let length = values[0].len();
    let values = values.map(|values| values[..length].as_chunks::<LANES>());
    for k in 0..values[0].0.len() {
        let chunk = values.map(|(chunks, _)| &chunks[k]);
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(chunk.map(|values| values[i]));
        }
    }
    // The rest in vectors of four, as far as they go.
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
    total(lanes)
}

/// `sum_i term([a[i], b[i], ...])` of slices that are too short for lanes.
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
fn add_row<const N: usize, S: AddAssign>(
    sums: &mut [S],
    values: [&[f32]; N],
    term: impl Fn([f32; N]) -> S,
) {
    let values = row(values, 0, sums.len());
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum += term(values.map(|values| values[i]));
    }
}

/// See [`add_four`].
#[inline(always)]
fn add_each_four<const N: usize>(
    sums: &mut [f32],
    rows: [[&[f32]; N]; 4],
    term: impl Fn(usize, [f32; N]) -> f32,
) {
    let rows = rows.map(|values| row(values, 0, sums.len()));
    for (i, sum) in sums.iter_mut().enumerate() {
        let at = |j: usize| term(j, rows[j].map(|values| values[i]));
        *sum += (at(0) + at(1)) + (at(2) + at(3));
    }
}

/// The stretch of each of the slices.
#[inline(always)]
fn row<const N: usize>(values: [&[f32]; N], start: usize, width: usize) -> [&[f32]; N] {
    values.map(|values| &values[start..][..width])
}

// A closure made inside these functions would have their instruction set, and could then not be
// inlined into the functions of the standard library that it is handed to.

for_each_instruction_set! {
    /// `sum_i term([a[i], b[i], ...])` of slices of one length.
    pub(super) fn sum<const N: usize, S: Copy + Default + AddAssign>(
        values: [&[f32]; N],
        term: impl Fn([f32; N]) -> S,
    ) -> S {
        sum_lanes(values, term)
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
        for (j, sum) in sums.iter_mut().enumerate() {
            let row = row(values, j * width, width);
            *sum = if width < LANES { sum_in_order(row, &term) } else { sum_lanes(row, &term) };
        }
    }
}

for_each_instruction_set! {
    /// `sums[i] += sum_j term([a[j·width + i], b[j·width + i], ...])`, where `width` is the length of
    /// `sums`; the last row may be a shorter one.
    pub(super) fn add_rows<const N: usize, S: AddAssign>(
        sums: &mut [S],
        values: [&[f32]; N],
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
    pub(super) fn add_four<const N: usize>(
        sums: &mut [f32],
        rows: [[&[f32]; N]; 4],
        term: impl Fn(usize, [f32; N]) -> f32,
    ) {
        add_each_four(sums, rows, &term);
    }
}

for_each_instruction_set! {
    /// How many of the sums are not finite; then ReLU in place, if `rectified`.
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
