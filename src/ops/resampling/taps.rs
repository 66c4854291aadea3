//! The taps of an axis: the two old positions, and their weights, that make up each new one.

use super::Interpolation;

/// Weights are multiples of 2⁻²⁴, so that `1 - weight` is exact too.
const STEPS: u64 = 1 << 24;

/// A position as `(1 - weight)·v[low] + weight·v[high]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tap {
    pub(super) low: usize,
    pub(super) high: usize,
    /// The weight of `high`; if it is 0, `high` is `low` and is not read.
    pub(super) weight: f32,
}

/// The taps of an axis that goes from `from` to `to` voxels.
pub(super) fn taps(from: usize, to: usize, interpolation: Interpolation) -> Vec<Tap> {
    // Twice the distance of the centre of voxel `d` from the border, in units of 1 / to.
    let centre = |d: usize| (2 * d + 1) * from;
    let at = |low| Tap { low, high: low, weight: 0.0 };
    let tap = |d: usize| match interpolation {
        Interpolation::Nearest => at(centre(d) / (2 * to)),
        Interpolation::Linear => {
            let position = centre(d).saturating_sub(to);
            let (low, rest) = (position / (2 * to), position % (2 * to));
            // To the nearest step. The product fits 64 bits up to LONGEST_RESIZED_AXIS.
            let steps = (rest as u64 * STEPS + to as u64) / (2 * to as u64);
            if steps == 0 || low + 1 == from {
                return at(low);
            }
            Tap { low, high: low + 1, weight: steps as f32 / STEPS as f32 }
        }
    };
    (0..to).map(tap).collect()
}

/// The corners of an axis: of the taps between the same two old positions, the first and the last.
///
/// Between old positions the resampled map is linear along each axis, so its extremes lie at voxels
/// that are corners of all three axes.
pub(super) fn corners(taps: &[Tap]) -> Vec<Tap> {
    let cells = taps.chunk_by(|a, b| a.low == b.low);
    let mut corners: Vec<Tap> = cells.flat_map(|cell| [cell[0], cell[cell.len() - 1]]).collect();
    corners.dedup();
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(low: usize, high: usize, weight: f32) -> Tap {
        Tap { low, high, weight }
    }

    #[test]
    fn linear_by_hand() {
        // Centres at -1/4, 1/4, 3/4 and 5/4: the outer two are clamped.
        assert_eq!(
            taps(2, 4, Interpolation::Linear),
            [tap(0, 0, 0.0), tap(0, 1, 0.25), tap(0, 1, 0.75), tap(1, 1, 0.0)]
        );
        // Centres at 1/2 and 5/2.
        assert_eq!(taps(4, 2, Interpolation::Linear), [tap(0, 1, 0.5), tap(2, 3, 0.5)]);
        // Centres at 1 and 4, on voxels.
        assert_eq!(taps(6, 2, Interpolation::Linear), [tap(1, 1, 0.0), tap(4, 4, 0.0)]);
    }

    #[test]
    fn nearest_by_hand() {
        let low = |from, to| {
            taps(from, to, Interpolation::Nearest).iter().map(|tap| tap.low).collect::<Vec<_>>()
        };
        assert_eq!(low(2, 5), [0, 0, 1, 1, 1]);
        assert_eq!(low(5, 2), [1, 3]);
        assert_eq!(low(3, 3), [0, 1, 2]);
    }

    #[test]
    fn weights_are_whole_steps_so_that_both_are_exact() {
        for (from, to) in [(7, 224), (3, 7), (5, 1_000_003), (1 << 30, 3)] {
            for Tap { weight, .. } in taps(from, to, Interpolation::Linear) {
                assert_eq!((weight * STEPS as f32).fract(), 0.0);
                assert_eq!(f64::from(1.0 - weight), 1.0 - f64::from(weight));
            }
        }
    }

    #[test]
    fn corners_by_hand() {
        // Centres at -1/3, 0, 1/3, 2/3, 1 and 4/3.
        let all = taps(2, 6, Interpolation::Linear);
        assert_eq!(corners(&all), [all[0], all[3], tap(1, 1, 0.0)]);
        // Centres at -1/4, 1/4, 3/4, 5/4, 7/4...: two in each cell, and the clamped ones.
        let all = taps(4, 8, Interpolation::Linear);
        assert_eq!(corners(&all), [&all[..1], &all[2..]].concat());
        let all = taps(2, 5, Interpolation::Nearest);
        assert_eq!(corners(&all), [tap(0, 0, 0.0), tap(1, 1, 0.0)]);
    }
}
