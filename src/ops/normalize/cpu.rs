//! The reference of normalisation; the fast version is [`rescale`](crate::ops::rescale).

/// The written truth of [`normalize`](super::normalize()): the same, in f64, of finite values.
///
/// `map` holds `batch` maps of one size, one after the other.
///
/// # Panics
///
/// If `batch` is 0 or above `map.len()`.
pub fn reference(map: &[f64], batch: usize) -> Vec<f64> {
    let mut normalized = Vec::with_capacity(map.len());
    for sample in map.chunks(map.len() / batch) {
        let minimum = sample.iter().copied().fold(f64::INFINITY, f64::min);
        let maximum = sample.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for value in sample {
            let range = maximum - minimum;
            normalized.push(if range > 0.0 { (value - minimum) / range } else { 0.0 });
        }
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::normalize;

    #[test]
    fn normalised_by_hand() {
        let mut map = [1.0, 5.0, 2.0, 3.0, -3.0, -3.0, -3.0, -3.0];
        let ranges = normalize(&mut map, 2).unwrap();
        assert_eq!(map, [0.0, 1.0, 0.25, 0.5, 0.0, 0.0, 0.0, 0.0]);
        let expected = [(1.0, 5.0), (-3.0, -3.0)];
        assert_eq!(ranges.iter().map(|r| (r.minimum, r.maximum)).collect::<Vec<_>>(), expected);
        assert_eq!(reference(&[1.0, 5.0, 2.0, 3.0], 1), [0.0, 1.0, 0.25, 0.5]);
    }

    #[test]
    fn neither_huge_nor_subnormal_ranges_overflow() {
        let mut map = [-f32::MAX, 0.0, f32::MAX, 1e-45, 3e-45, 0.0];
        normalize(&mut map, 2).unwrap();
        assert_eq!(map[..3], [0.0, 0.5, 1.0]);
        assert_eq!(map[3..], [0.5, 1.0, 0.0]);
    }
}
