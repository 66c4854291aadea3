//! Maps resampled, multiplied and normalised, and gradients guided.

use super::*;

/// Maps of one channel: `to` is libtorch's, and ours in three dimensions.
fn resampled(map: &Tensor, to: [usize; 3], interpolation: Interpolation) -> Tensor {
    let flat = map.size()[2] == 1 && to[0] == 1;
    let to = extents(&to);
    match (interpolation, flat) {
        (Interpolation::Linear, true) => {
            map.squeeze_dim(2).upsample_bilinear2d(&to[1..], false, None, None)
        }
        (Interpolation::Linear, false) => map.upsample_trilinear3d(&to, false, None, None, None),
        (Interpolation::Nearest, true) => {
            map.squeeze_dim(2).internal_upsample_nearest_exact2d(&to[1..], None, None)
        }
        (Interpolation::Nearest, false) => {
            map.internal_upsample_nearest_exact3d(&to, None, None, None)
        }
    }
}

/// Whether a voxel of the new grid lies on the border of two of the old one, along any axis. There
/// libtorch, whose positions are f32, may take either.
fn on_border(index: usize, from: [usize; 3], to: [usize; 3]) -> bool {
    let mut rest = index % to.iter().product::<usize>();
    (0..3).rev().any(|axis| {
        let d = rest % to[axis];
        rest /= to[axis];
        ((2 * d + 1) * from[axis]).is_multiple_of(2 * to[axis])
    })
}

fn resampling_is_upsample(
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    magnitude: f32,
    seed: u64,
) {
    let map = values::<f32>(batch * from.iter().product::<usize>(), magnitude, seed);
    let theirs = tensor(&map, batch, 1, from);
    let linear = resample(&map, Resize { batch, from, to }, Interpolation::Linear).unwrap();
    for (kind, own) in PRECISIONS {
        let expected = numbers(&resampled(&theirs.to_kind(kind), to, Interpolation::Linear));
        let tolerance = resample::TOLERANCE + own * libtorch_linear(from);
        assert_close(&linear, &expected, |_| tolerance * f64::from(magnitude));
    }
    let nearest = resample(&map, Resize { batch, from, to }, Interpolation::Nearest).unwrap();
    let expected = numbers(&resampled(&theirs, to, Interpolation::Nearest));
    for (i, (&value, expected)) in nearest.iter().zip(expected).enumerate() {
        assert!(f64::from(value) == expected || on_border(i, from, to), "{i}: {value} {expected}");
    }
}

/// Against libtorch in double, so that the op's own error alone counts.
fn guided_products_are_products(batch: usize, from: [usize; 3], to: [usize; 3], seed: u64) {
    let map = values::<f32>(batch * from.iter().product::<usize>(), 1.0, seed);
    let guided = values::<f32>(batch * to.iter().product::<usize>(), 1.0, !seed);
    let double = |values, grid| tensor(values, batch, 1, grid).to_kind(Kind::Double);
    let upsampled = resampled(&double(&map, from), to, Interpolation::Linear);
    let upsampled = upsampled.reshape(extents(&[batch, 1, to[0], to[1], to[2]]));
    let expected = upsampled * double(&guided, to);

    let mut product = vec![0.0_f32; guided.len()];
    guided_product::guided_product_into(
        &map,
        &guided,
        Resize { batch, from, to },
        None,
        &mut product,
    )
    .unwrap();
    let greatest = map.iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    let bound = |i: usize| guided_product::TOLERANCE * f64::from(greatest * guided[i].abs());
    assert_close(&product, &numbers(&expected), bound);

    let flat = expected.reshape(extents(&[batch, guided.len() / batch]));
    let (minimum, maximum) = (flat.amin([1_i64], true), flat.amax([1_i64], true));
    let width = numbers(&(&maximum - &minimum));
    let unit = ((&flat - &minimum) / (maximum - minimum)).nan_to_num(0.0, None, None);
    let (product, _) = guided_product::<f32>(&map, &guided, Resize { batch, from, to }).unwrap();
    assert_close(&product, &numbers(&unit), |i| {
        let sample = i / (guided.len() / batch);
        2.0 * guided_product::TOLERANCE * f64::from(greatest) / width[sample] + normalize::TOLERANCE
    });
}

fn normalisation_is_min_max(batch: usize, voxels: usize, magnitude: f32, seed: u64) {
    let mut map = values::<f32>(batch * voxels, magnitude, seed);
    let theirs = Tensor::from_slice(&map).reshape(extents(&[batch, voxels]));
    normalize(&mut map, batch).unwrap();
    for (kind, own) in PRECISIONS {
        let theirs = theirs.to_kind(kind);
        let (minimum, maximum) = (theirs.amin([1_i64], true), theirs.amax([1_i64], true));
        // A map of one value is 0 with us, and 0 / 0 with them.
        let expected = ((&theirs - &minimum) / (maximum - &minimum)).nan_to_num(0.0, None, None);
        let tolerance = normalize::TOLERANCE + own * LIBTORCH_NORMALIZE;
        assert_close(&map, &numbers(&expected), |_| tolerance);
    }
}

fn guidance_is_threshold_backward<T: Element>(kind: Kind, count: usize, seed: u64) {
    let with_every_kind = |seed, step| {
        let mut values = values::<T>(count, 1.0, seed);
        let kinds = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for (i, value) in values.iter_mut().enumerate().step_by(step) {
            *value = T::from_f32(kinds[i * 7 % 5]);
        }
        values
    };
    let (input, gradient) = (with_every_kind(seed, 3), with_every_kind(seed / 5, 2));
    let theirs = |values: &[T]| {
        let wide: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
        Tensor::from_slice(&wide).to_kind(kind)
    };
    let expected = theirs(&input).threshold_backward(&theirs(&gradient), 0.0).relu();
    let mut output = gradient.clone();
    guided_activation::in_place(&input, &mut output).unwrap();
    for (i, (value, expected)) in output.iter().zip(numbers(&expected)).enumerate() {
        let value = f64::from(value.to_f32());
        assert!(value == expected || (value.is_nan() && expected.is_nan()), "{i} {kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn resample_is_upsample(
        batch in prop::sample::select(vec![1_usize, 3]),
        from in prop::array::uniform3(1..14_usize),
        to in prop::array::uniform3(1..40_usize),
        flat: bool,
        size in magnitudes(1e30, 1e-30),
        seed: u64,
    ) {
        let keep = |[d, h, w]: [usize; 3]| if flat { [1, h, w] } else { [d, h, w] };
        resampling_is_upsample(batch, keep(from), keep(to), size, seed);
    }

    #[test]
    fn guided_product_is_upsample_times_guided(
        batch in prop::sample::select(vec![1_usize, 3]),
        from in prop::array::uniform3(1..14_usize),
        to in prop::array::uniform3(1..40_usize),
        flat: bool,
        seed: u64,
    ) {
        let keep = |[d, h, w]: [usize; 3]| if flat { [1, h, w] } else { [d, h, w] };
        guided_products_are_products(batch, keep(from), keep(to), seed);
    }

    #[test]
    fn normalize_is_min_max(
        batch in prop::sample::select(vec![1_usize, 3]),
        voxels in prop::sample::select(vec![1_usize, 31, 1025, 2184, 70_001]),
        size in magnitudes(1e30, 1e-30),
        seed: u64,
    ) {
        normalisation_is_min_max(batch, voxels, size, seed);
    }

    #[test]
    fn guided_activation_is_threshold_backward(
        count in prop::sample::select(vec![1_usize, 31, 33, 1025, 70_001]),
        seed: u64,
    ) {
        guidance_is_threshold_backward::<f32>(Kind::Float, count, seed);
        guidance_is_threshold_backward::<f16>(Kind::Half, count, seed);
        guidance_is_threshold_backward::<bf16>(Kind::BFloat16, count, seed);
    }
}
