//! The intensity steps of a card.

use ndarray::{Array4, ArrayViewMut3, Axis};

use super::card::{PerChannel, Step, Voxels};
use crate::error::{Error, Result};

/// Applies `step` to each channel of `(C, D, H, W)` separately.
pub(crate) fn apply(step: &Step, data: &mut Array4<f32>) -> Result<()> {
    let channels = data.dim().0;
    for (channel, values) in data.axis_iter_mut(Axis(0)).enumerate() {
        match step {
            Step::ClipPercentiles(percent) => {
                let mut sorted: Vec<f32> = values.iter().copied().collect();
                let [low, high] = percent.map(|p| percentile(&mut sorted, p));
                clip(values, low, high);
            }
            #[expect(clippy::cast_possible_truncation, reason = "limits of f32 values")]
            Step::Clip([low, high]) => clip(values, *low as f32, *high as f32),
            Step::Scale([low, high]) => {
                let extremes = |(least, most): (f32, f32), &v: &f32| (least.min(v), most.max(v));
                let (least, most) = values.iter().fold((f32::MAX, f32::MIN), extremes);
                let (least, range) = (f64::from(least), f64::from(most) - f64::from(least));
                let slope = if range > 0.0 { (high - low) / range } else { 0.0 };
                let start = if range > 0.0 { *low } else { 0.0 };
                map(values, |v| (v - least) * slope + start);
            }
            Step::ZScore(voxels) => z_score(values, *voxels),
            Step::Affine { multiply, add } => {
                let multiply = of_channel(multiply, channel, channels, "multiply")?;
                let add = of_channel(add, channel, channels, "add")?;
                map(values, |v| v * multiply + add);
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "f32 is the precision of the crate")]
fn map(mut values: ArrayViewMut3<'_, f32>, function: impl Fn(f64) -> f64) {
    values.mapv_inplace(|v| function(f64::from(v)) as f32);
}

fn clip(mut values: ArrayViewMut3<'_, f32>, low: f32, high: f32) {
    values.mapv_inplace(|v| v.max(low).min(high));
}

fn z_score(values: ArrayViewMut3<'_, f32>, voxels: Voxels) {
    let counts = |v: f32| voxels == Voxels::All || v != 0.0;
    let chosen = || values.iter().copied().filter(|&v| counts(v)).map(f64::from);
    let count = chosen().count() as f64;
    let mean = chosen().sum::<f64>() / count.max(1.0);
    let variance = chosen().map(|v| (v - mean).powi(2)).sum::<f64>() / count.max(1.0);
    // The mean of equal values may be off by rounding. Dividing by the tiny deviation that this
    // leaves would turn a constant channel into noise, so such a channel counts as constant.
    let constant = variance.sqrt() <= mean.abs() * f64::from(f32::EPSILON) * 1e-3;
    let scale = if constant { 0.0 } else { 1.0 / variance.sqrt() };
    let nonzero_only = voxels == Voxels::Nonzero;
    map(values, |v| if nonzero_only && v == 0.0 { 0.0 } else { (v - mean) * scale });
}

/// The percentile `percent` of `values`, interpolated linearly between neighbours; reorders
/// `values`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= index < length")]
pub(crate) fn percentile(values: &mut [f32], percent: f64) -> f32 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let position = percent / 100.0 * last as f64;
    let index = (position.floor() as usize).min(last);
    let (_, &mut below, rest) = values.select_nth_unstable_by(index, f32::total_cmp);
    let above = rest.iter().copied().min_by(f32::total_cmp).unwrap_or(below);
    let (below, above) = (f64::from(below), f64::from(above));
    (below + (above - below) * position.fract()) as f32
}

/// The number of a channel, of a step's `key`.
pub(super) fn of_channel(
    values: &PerChannel,
    channel: usize,
    channels: usize,
    key: &str,
) -> Result<f64> {
    match values {
        PerChannel::One(value) => Ok(*value),
        PerChannel::Each(values) if values.len() == channels => Ok(values[channel]),
        PerChannel::Each(values) => Err(Error::input(
            "intensity step `affine`",
            format!("`{key}` has {} values, the input has {channels} channels", values.len()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f32]) -> Array4<f32> {
        Array4::from_shape_vec((1, 1, 1, values.len()), values.to_vec()).unwrap()
    }

    fn applied(step: &Step, values: &[f32]) -> Vec<f32> {
        let mut data = line(values);
        apply(step, &mut data).unwrap();
        data.into_raw_vec_and_offset().0
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        // numpy.percentile([4, 1, 3, 2, 10], [10, 50, 90]) = 1.4, 3, 7.6
        let mut values = [4.0, 1.0, 3.0, 2.0, 10.0];
        assert_eq!([10., 50., 90., 100.].map(|p| percentile(&mut values, p)), [1.4, 3.0, 7.6, 10.]);
    }

    #[test]
    fn statistics_of_hand_sized_lines() {
        let scaled = applied(&Step::Scale([-1.0, 1.0]), &[2.0, 4.0, 6.0]);
        assert_eq!(scaled, [-1.0, 0.0, 1.0]);
        // Mean 2, population standard deviation 1.
        assert_eq!(applied(&Step::ZScore(Voxels::All), &[1.0, 3.0]), [-1.0, 1.0]);
        let nonzero = applied(&Step::ZScore(Voxels::Nonzero), &[0.0, 1.0, 3.0, 0.0]);
        assert_eq!(nonzero, [0.0, -1.0, 1.0, 0.0]);
        assert_eq!(applied(&Step::Clip([0.0, 1.0]), &[-3.0, 0.5, 7.0]), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn a_constant_image_becomes_zeros() {
        let constant = [0.1_f32; 7];
        for step in
            [Step::Scale([5.0, 6.0]), Step::ZScore(Voxels::All), Step::ZScore(Voxels::Nonzero)]
        {
            assert_eq!(applied(&step, &constant), [0.0; 7], "{step:?}");
        }
        assert_eq!(applied(&Step::ZScore(Voxels::Nonzero), &[0.0; 4]), [0.0; 4]);
    }

    #[test]
    fn channels_are_told_apart() {
        let mut data = Array4::from_shape_vec((2, 1, 1, 2), vec![0., 2., 10., 30.]).unwrap();
        apply(&Step::Scale([0.0, 1.0]), &mut data).unwrap();
        let add = PerChannel::Each(vec![0.0, 5.0]);
        apply(&Step::Affine { multiply: PerChannel::One(2.0), add }, &mut data).unwrap();
        assert_eq!(data.into_raw_vec_and_offset().0, [0., 2., 5., 7.]);
        let three =
            Step::Affine { multiply: PerChannel::Each(vec![1.0; 3]), add: PerChannel::One(0.0) };
        let error = apply(&three, &mut line(&[1.0])).unwrap_err();
        assert!(error.to_string().contains("`multiply` has 3 values, the input has 1 channels"));
    }
}
