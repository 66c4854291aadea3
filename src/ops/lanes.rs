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
    for (i, lane) in (0..values[0].1.len()).zip(&mut lanes) {
        *lane += term(values.map(|(_, rest)| rest[i]));
    }
    total(lanes)
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
            *sum = sum_lanes(row(values, j * width, width), &term);
        }
    }
}

for_each_instruction_set! {
    /// `sums[i] += sum_j term([a[j·width + i], b[j·width + i], ...])`, where `width` is the length of
    /// `sums`; the last row may be a shorter one.
    pub(super) fn add_rows<const N: usize, S: Copy + AddAssign>(
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
