//! Which two source positions make up each position of one axis.

use super::Interpolation;

/// A position as `(1 - weight)·v[low] + weight·v[high]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tap {
    pub(super) low: usize,
    pub(super) high: usize,
    /// The weight of `high`; where it is 0, `high` is `low` and plays no part.
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
            if rest == 0 || low + 1 == from {
                return at(low);
            }
            #[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
            let weight = (rest as f64 / (2 * to) as f64) as f32;
            Tap { low, high: low + 1, weight }
        }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_by_hand() {
        let tap = |low, high, weight| Tap { low, high, weight };
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
}
