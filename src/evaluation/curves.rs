//! Deletion and insertion curves: a network's score as the voxels of an image are removed or
//! inserted in the order of a map's values. They judge a map by the network, without a mask.

use ndarray::{ArrayD, ArrayView, ArrayView3, Axis, Dimension};

use crate::error::{Error, Result};
use crate::ops::{Interpolation, Resize, resample};

/// The value that replaces a removed voxel.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Baseline {
    /// 0, in all channels.
    #[default]
    Zero,
    /// The mean of the channel over the image.
    Mean,
    /// This value, in all channels.
    Value(f32),
}

/// The scores of a deletion or insertion curve.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Curve {
    /// The fraction of voxels removed or inserted, from 0 to 1.
    pub fractions: Vec<f64>,
    /// The score at each fraction.
    pub scores: Vec<f64>,
    /// The area under the curve, by the trapezoidal rule.
    pub area: f64,
}

/// The deletion curve: the scores as the voxels are replaced by the baseline, those of greatest
/// value in the map first. The smaller its area, the better the map.
///
/// Petsiuk et al. 2018, "RISE", arXiv 1806.07421.
///
/// | argument | shape | |
/// |---|---|---|
/// | `image` | `(1, C, H, W)` or `(1, C, D, H, W)` | the network's input; all channels of a voxel go at once |
/// | `map` | `(D', H', W')` | 2D has `D' = 1`; resampled linearly to the image's grid |
/// | `steps` | | at least 1: the number of groups of voxels, equal in size up to rounding |
/// | `score` | | called `steps + 1` times, first with the image as it is |
///
/// Voxels of equal value are removed in memory order. For a classification network, `score` is the
/// probability of the class. For a segmentation network, it is the [`dice()`] coefficient of the
/// segmentation of `score`'s image with that of the original image or with the ground truth.
///
/// # Errors
///
/// If the image has another shape, map or image has values that are not finite, the map of a 2D
/// image has `D' > 1`, `steps` is 0 or above the number of voxels, or a score is not finite. An
/// error of `score` is returned.
///
/// # Example
///
/// ```
/// use medcam::evaluation::{Baseline, deletion};
/// use ndarray::{ArrayD, array};
///
/// let image = array![[[[1.0, 2.0, 4.0, 1.0]]]].into_dyn();
/// let map = array![[[0.1, 0.5, 1.0, 0.0]]];
/// // In place of a network: the sum of the image.
/// let sum = |image: &ArrayD<f32>| Ok::<_, medcam::Error>(image.sum().into());
/// let curve = deletion(&image, map.view(), 4, Baseline::Zero, sum)?;
/// assert_eq!(curve.scores, [8.0, 4.0, 2.0, 1.0, 0.0]);
/// assert_eq!(curve.area, (8.0 / 2.0 + 4.0 + 2.0 + 1.0) / 4.0);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn deletion<E: From<Error>>(
    image: &ArrayD<f32>,
    map: ArrayView3<'_, f32>,
    steps: usize,
    baseline: Baseline,
    score: impl FnMut(&ArrayD<f32>) -> Result<f64, E>,
) -> Result<Curve, E> {
    let order = order(image, map, steps)?;
    follow(image.clone(), &blank(image, baseline), &order, steps, score)
}

/// The insertion curve: the scores as the image's voxels take the place of the baseline, those of
/// greatest value in the map first. The larger its area, the better the map.
///
/// Arguments and errors are those of [`deletion()`]; the first call of `score` has the baseline
/// alone. Petsiuk et al. begin with a blurred image; this begins with a uniform one.
pub fn insertion<E: From<Error>>(
    image: &ArrayD<f32>,
    map: ArrayView3<'_, f32>,
    steps: usize,
    baseline: Baseline,
    score: impl FnMut(&ArrayD<f32>) -> Result<f64, E>,
) -> Result<Curve, E> {
    let order = order(image, map, steps)?;
    follow(blank(image, baseline), image, &order, steps, score)
}

/// An image of the same shape that holds only the baseline.
fn blank(image: &ArrayD<f32>, baseline: Baseline) -> ArrayD<f32> {
    let mut blank = image.clone();
    match baseline {
        Baseline::Zero => blank.fill(0.0),
        Baseline::Value(value) => blank.fill(value),
        Baseline::Mean => {
            for mut channel in blank.axis_iter_mut(Axis(1)) {
                let sum: f64 = channel.iter().map(|&value| f64::from(value)).sum();
                #[expect(clippy::cast_possible_truncation, reason = "the mean of f32")]
                let mean = (sum / channel.len() as f64) as f32;
                channel.fill(mean);
            }
        }
    }
    blank
}

/// The voxels of the image, by descending value in the resampled map.
fn order(image: &ArrayD<f32>, map: ArrayView3<'_, f32>, steps: usize) -> Result<Vec<usize>> {
    let refuse = |what: String| Err(Error::input("curve", what));
    let shape = image.shape();
    let grid = match *shape {
        [1, _, h, w] => [1, h, w],
        [1, _, d, h, w] => [d, h, w],
        _ => return refuse(format!("image: shape {shape:?}, not (1, C, H, W) or (1, C, D, H, W)")),
    };
    let voxels: usize = grid.iter().product();
    if image.is_empty() || map.is_empty() {
        return refuse(format!("no voxels: image {shape:?}, map {:?}", map.shape()));
    }
    if (shape.len() == 4) && map.dim().0 != 1 {
        return refuse(format!("map: shape {:?} of a 2D image {shape:?}", map.shape()));
    }
    if steps == 0 || steps > voxels {
        return refuse(format!("steps: {steps} for {voxels} voxels; at least 1, one voxel each"));
    }
    for (what, bad) in [
        ("image", image.iter().filter(|value| !value.is_finite()).count()),
        ("map", map.iter().filter(|value| !value.is_finite()).count()),
    ] {
        if bad > 0 {
            return refuse(format!("{what}: {bad} values are not finite"));
        }
    }
    let values: Vec<f32> = map.iter().copied().collect();
    let resize = Resize { batch: 1, from: map.dim().into(), to: grid };
    let values = resample(&values, resize, Interpolation::Linear)?;
    let mut order: Vec<usize> = (0..voxels).collect();
    // The sort is stable, so voxels of equal value stay in memory order. `partial_cmp` takes -0 and
    // 0 as equal.
    order.sort_by(|&i, &j| values[j].partial_cmp(&values[i]).unwrap_or(std::cmp::Ordering::Equal));
    Ok(order)
}

/// Scores `from` while its voxels are replaced by those of `to` in this order.
fn follow<E: From<Error>>(
    from: ArrayD<f32>,
    to: &ArrayD<f32>,
    order: &[usize],
    steps: usize,
    mut score: impl FnMut(&ArrayD<f32>) -> Result<f64, E>,
) -> Result<Curve, E> {
    let voxels = order.len();
    let mut image = from.as_standard_layout().into_owned();
    let to = to.as_standard_layout();
    let (mut fractions, mut scores) = (Vec::new(), Vec::new());
    let mut done = 0;
    for step in 0..=steps {
        let until = (voxels as u128 * step as u128 / steps as u128) as usize;
        if let (Some(image), Some(to)) = (image.as_slice_mut(), to.as_slice()) {
            for (image, to) in image.chunks_mut(voxels).zip(to.chunks(voxels)) {
                for &voxel in &order[done..until] {
                    image[voxel] = to[voxel];
                }
            }
        }
        done = until;
        let value = score(&image)?;
        if !value.is_finite() {
            let what = format!("score: {value} at step {step} of {steps}");
            return Err(Error::input("curve", what).into());
        }
        fractions.push(done as f64 / voxels as f64);
        scores.push(value);
    }
    let widths = fractions.windows(2).map(|pair| pair[1] - pair[0]);
    let heights = scores.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    let area = widths.zip(heights).map(|(width, height)| width * height).sum();
    Ok(Curve { fractions, scores, area })
}

/// The Dice coefficient of two masks, `2·|A ∩ B| / (|A| + |B|)`; 1 where both are empty.
///
/// Dice 1945, "Measures of the amount of ecologic association between species", Ecology 26(3).
///
/// # Errors
///
/// If the shapes differ or a value is neither 0 nor 1.
///
/// # Example
///
/// ```
/// use medcam::evaluation::dice;
/// use ndarray::array;
///
/// let (one, other) = (array![1.0, 1.0, 0.0, 0.0], array![0.0, 1.0, 0.0, 1.0]);
/// assert_eq!(dice(one.view(), other.view())?, 0.5);
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn dice<D: Dimension>(one: ArrayView<'_, f32, D>, other: ArrayView<'_, f32, D>) -> Result<f64> {
    let refuse = |what: String| Err(Error::input("dice", what));
    if one.shape() != other.shape() {
        return refuse(format!("the masks have shapes {:?} and {:?}", one.shape(), other.shape()));
    }
    let (mut both, mut sizes) = (0_u64, 0_u64);
    for (&one, &other) in one.iter().zip(&other) {
        if let Some(odd) = [one, other].into_iter().find(|&value| value != 0.0 && value != 1.0) {
            return refuse(format!("a mask has the value {odd}; make it 0/1"));
        }
        both += u64::from(one * other == 1.0);
        sizes += u64::from(one == 1.0) + u64::from(other == 1.0);
    }
    Ok(if sizes == 0 { 1.0 } else { 2.0 * both as f64 / sizes as f64 })
}
