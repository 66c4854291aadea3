//! What the tests of all ops share: odd shapes, values, comparisons and thread pools.

use medcam::element::Element;
use medcam::ops::View;
use medcam::{Layout, Shape};
use proptest::prelude::*;
use proptest::strategy::Union;

pub const LAYOUTS: [Layout; 2] = [Layout::Contiguous, Layout::ChannelsLast];

/// Sizes around those of lanes, blocks and tasks.
pub fn shapes() -> impl Strategy<Value = Shape> {
    let grids =
        [[1, 1, 1], [1, 1, 31], [1, 4, 8], [1, 3, 11], [1, 1, 1023], [5, 5, 41], [12, 13, 14]];
    let pick = |values: &'static [usize]| prop::sample::select(values);
    (pick(&[1, 3]), pick(&[1, 3, 64, 257]), prop::sample::select(grids.to_vec()))
        .prop_map(|(batch, channels, spatial)| Shape::new(batch, channels, spatial).unwrap())
}

/// How large the values of a tensor are; all can be held by the type, and so can their sums.
pub fn magnitudes(largest: f32, least: f32) -> impl Strategy<Value = f32> {
    Union::new([1.0, largest, least].map(Just))
}

/// `count` values between `-magnitude` and `magnitude`.
pub fn values<T: Element>(count: usize, magnitude: f32, seed: u64) -> Vec<T> {
    let mut state = seed;
    let next = |_| {
        // Knuth's linear congruential generator; its upper bits are random enough.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
        T::from_f32(unit * magnitude)
    };
    (0..count).map(next).collect()
}

/// The same values without their signs.
pub fn absolute<T: Element>(values: &[T]) -> Vec<T> {
    values.iter().map(|value| T::from_f32(value.to_f32().abs())).collect()
}

/// The same values, for a reference.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The view of one sample of a batch.
pub fn sample<'a, T: Element>(view: &View<'a, T>, b: usize) -> View<'a, T> {
    let shape = view.shape();
    let single = Shape::new(1, shape.channels, shape.spatial).unwrap();
    let length = single.elements();
    View::new(&view.data()[b * length..][..length], single, view.layout()).unwrap()
}

/// The result of `op` on 1 thread, after a check that 4 threads and a second run give the same bits.
pub fn on_any_threads<R: PartialEq + std::fmt::Debug + Send>(op: impl Fn() -> R + Sync) -> R {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&op)
    };
    let one = on(1);
    assert_eq!(one, on(4));
    assert_eq!(one, on(4));
    one
}

/// The bits of values, so that NaN equals itself and 0 does not equal -0.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Checks `|fast - reference| <= bound` at each place.
///
/// # Panics
///
/// If a value is further off than `bound`; the message names the place with the greatest error.
pub fn assert_close(fast: &[f32], reference: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(fast.len(), reference.len());
    let excess = |i: usize| {
        let error = (f64::from(fast[i]) - reference[i]).abs();
        // The least f32 above 0: what is smaller cannot be told apart.
        if error <= bound(i) + 1.5e-45 { 0.0 } else { error / bound(i) }
    };
    // NaN sorts above all numbers.
    let worst = (0..fast.len()).max_by(|&i, &j| excess(i).total_cmp(&excess(j))).unwrap();
    assert!(
        excess(worst) == 0.0,
        "at {worst}: fast {:e}, reference {:e}, bound {:e}",
        fast[worst],
        reference[worst],
        bound(worst)
    );
}
