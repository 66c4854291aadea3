//! The guided product on the CPU: the reference, and the fast version.

use crate::element::MapElement;
use crate::ops::extremes::cpu::Extremes;
use crate::ops::resampling::cpu::{KeepExtremes, Store};
use crate::ops::resampling::{RowSink, Source};
use crate::ops::{Interpolation, Range, Resize, normalize, resample};

/// The written truth of [`guided_product`](super::guided_product()): the same, in f64, of finite
/// values; the product itself if not `normalized`.
///
/// # Panics
///
/// If `map` or `guided` has fewer values than `resize` says.
pub fn reference(map: &[f64], guided: &[f64], resize: Resize, normalized: bool) -> Vec<f64> {
    let mut product = resample::reference(map, resize, Interpolation::Linear);
    for (value, guided) in product.iter_mut().zip(guided) {
        *value *= guided;
    }
    if normalized { normalize::reference(&product, resize.batch) } else { product }
}

/// Multiplies each row by that of the guided map, and passes it on.
struct Multiply<'a, S> {
    guided: &'a [f32],
    next: S,
}

impl<S: RowSink> RowSink for Multiply<'_, S> {
    #[inline(always)]
    fn row(&mut self, width: usize, value: impl Fn(usize) -> f32) {
        let (guided, rest) = self.guided.split_at(width);
        self.guided = rest;
        self.next.row(width, |i| value(i) * guided[i]);
    }
}

/// The extremes of each product.
pub fn extremes(source: &Source, guided: &[f32]) -> Vec<Extremes> {
    let sinks = source.parts(guided).map(|guided| Multiply { guided, next: KeepExtremes::NONE });
    let sinks = source.run(sinks).into_iter().map(|sink| sink.next).collect::<Vec<_>>();
    sinks.chunks(source.blocks_per_sample()).map(KeepExtremes::merge).collect()
}

/// Writes the products into `out`, each from its range to `[0, 1]` if there are ranges.
pub fn guided_product<O: MapElement>(
    source: &Source,
    guided: &[f32],
    ranges: Option<&[Range]>,
    out: &mut [O],
) {
    let stores = Store::blocks(source, ranges, out).zip(source.parts(guided));
    source.run(stores.map(|(next, guided)| Multiply { guided, next }));
}
