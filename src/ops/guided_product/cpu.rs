//! The guided product on the CPU: the reference, and the fast version.

use crate::element::MapElement;
use crate::ops::normalize::cpu::Extremes;
use crate::ops::resample::cpu::{Store, Tally};
use crate::ops::resample::rows::{Source, Take};
use crate::ops::{Interpolation, Range, normalize, resample};

/// The written truth of [`guided_product`](super::guided_product()): the same, in f64, of finite
/// values; the product itself if not `normalized`.
///
/// # Panics
///
/// If `map` or `guided` has fewer values than `batch` and the grids say.
pub fn reference(
    map: &[f64],
    guided: &[f64],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    normalized: bool,
) -> Vec<f64> {
    let mut product = resample::reference(map, batch, from, to, Interpolation::Linear);
    for (value, guided) in product.iter_mut().zip(guided) {
        *value *= guided;
    }
    if normalized { normalize::reference(&product, batch) } else { product }
}

/// Multiplies the rows by those of the guided map before they are taken.
struct Multiply<'a, T> {
    guided: &'a [f32],
    then: T,
}

impl<T: Take> Take for Multiply<'_, T> {
    #[inline(always)]
    fn take(&mut self, width: usize, value: impl Fn(usize) -> f32) {
        let (guided, rest) = self.guided.split_at(width);
        self.guided = rest;
        self.then.take(width, |i| value(i) * guided[i]);
    }
}

/// The extremes of each product.
pub(in crate::ops) fn extremes(source: &Source, guided: &[f32]) -> Vec<Extremes> {
    let takers = source.parts(guided).map(|guided| Multiply { guided, then: Tally::NONE });
    let tallies = source.run(takers).into_iter().map(|taker| taker.then).collect::<Vec<_>>();
    tallies.chunks(source.blocks_per_sample()).map(Tally::merge).collect()
}

/// Writes the products into `out`, each from its range to `[0, 1]` if there are ranges.
pub(in crate::ops) fn guided_product<O: MapElement>(
    source: &Source,
    guided: &[f32],
    ranges: Option<&[Range]>,
    out: &mut [O],
) {
    let stores = Store::blocks(source, ranges, out).zip(source.parts(guided));
    source.run(stores.map(|(then, guided)| Multiply { guided, then }));
}
