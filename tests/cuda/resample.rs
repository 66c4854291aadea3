//! Resampling and normalisation against the f64 references, and against each other.

use half::f16;
use medcam::device::{Plain, Stream};
use medcam::element::MapElement;
use medcam::ops::Interpolation::{Linear, Nearest};
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::resample::cuda::{extremes, resample_into};
use medcam::ops::resample::{TOLERANCE, reference};
use medcam::ops::{Interpolation, Resize, normalize};

use crate::common::gpu;
use crate::on_the_cpu::wide;

/// Number of guard values behind the results; no launch may change them.
const AROUND: usize = 5;

pub fn values(count: usize, kind: usize) -> Vec<f32> {
    let mut state = count as u64 + kind as u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let of = |value: f32| match kind {
        0 => value,
        // As after ReLU, huge, tiny, and of steps of one last bit.
        1 => value.max(0.0),
        2 => value * 3e38,
        3 => value * 1e-36,
        _ if value > 0.0 => 1.0,
        _ => 1.0_f32.next_up(),
    };
    (0..count).map(|_| of(next())).collect()
}

pub fn greatest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |all, value| f64::from(value.abs()).max(all))
}

/// A type of results, with a mark for the memory around them.
pub trait Stored: MapElement + Plain + Default + PartialEq {
    const MARK: Self;
}
impl Stored for f32 {
    const MARK: Self = 9.0;
}
impl Stored for f16 {
    const MARK: Self = f16::from_f32_const(9.0);
}
impl Stored for u8 {
    const MARK: Self = 77;
}

/// The values that `write` writes, the same in two runs, to memory that begins `skipped` values behind a multiple of
/// 256 bytes; the memory around them stays unchanged.
pub fn written<O: Stored>(
    stream: &Stream,
    count: usize,
    skipped: usize,
    write: impl Fn(medcam::device::SliceMut<O>),
) -> Vec<O> {
    let mut runs = (0..2).map(|_| {
        let mut out = stream.upload(&vec![O::MARK; skipped + count + AROUND]).unwrap();
        write(out.slice_mut().part(skipped..skipped + count).unwrap());
        let all = stream.download(out.slice()).unwrap();
        assert!(all[..skipped].iter().chain(&all[skipped + count..]).all(|&v| v == O::MARK));
        all[skipped..][..count].to_vec()
    });
    let (first, second) = (runs.next().unwrap(), runs.next().unwrap());
    assert!(first.iter().zip(&second).all(|(a, b)| a.wide().to_bits() == b.wide().to_bits()));
    first
}

fn resampled<O: Stored>(
    stream: &Stream,
    map: &[f32],
    resize: Resize,
    interpolation: Interpolation,
    ranges: Option<&[DeviceExtremes]>,
    skipped: usize,
) -> Vec<O> {
    let map = stream.upload(map).unwrap();
    let ranges = ranges.map(|ranges| stream.upload(ranges).unwrap());
    let count = resize.batch * resize.to.iter().product::<usize>();
    written(stream, count, skipped, |out| {
        let ranges = ranges.as_ref().map(|ranges| ranges.slice());
        resample_into(stream, map.slice(), resize, interpolation, ranges, out).unwrap();
    })
}

fn ranges(
    stream: &Stream,
    map: &[f32],
    resize: Resize,
    interpolation: Interpolation,
) -> Vec<DeviceExtremes> {
    let map = stream.upload(map).unwrap();
    let mut found = stream.allocate::<DeviceExtremes>(resize.batch).unwrap();
    let mut runs = (0..2).map(|_| {
        extremes(stream, map.slice(), resize, interpolation, found.slice_mut()).unwrap();
        stream.download(found.slice()).unwrap()
    });
    let (first, second) = (runs.next().unwrap(), runs.next().unwrap());
    assert_eq!(first, second);
    first
}

/// The plain map, its range, and the three types of normalised maps.
fn check(
    stream: &Stream,
    resize: Resize,
    interpolation: Interpolation,
    kind: usize,
    skipped: usize,
) {
    let Resize { batch, from, to } = resize;
    let place = format!("{resize:?} {interpolation:?} kind {kind}");
    let (old, new) = (from.iter().product::<usize>(), to.iter().product::<usize>());
    let map = values(batch * old, kind);
    let wide = wide(&map);
    let exact = reference(&wide, resize, interpolation);
    let tolerance = if interpolation == Linear { TOLERANCE * greatest(&map) } else { 0.0 };

    let plain = resampled::<f32>(stream, &map, resize, interpolation, None, skipped);
    for (i, (&found, &exact)) in plain.iter().zip(&exact).enumerate() {
        let error = (f64::from(found) - exact).abs();
        assert!(error <= tolerance + 1.5e-45, "{place}, {i}: {found:e}, not {exact:e}");
    }
    let ranges = ranges(stream, &map, resize, interpolation);
    for (sample, range) in plain.chunks(new).zip(&ranges) {
        let DeviceExtremes { minimum, maximum, not_finite, unused } = *range;
        assert_eq!((not_finite, unused), (0, 0), "{place}");
        assert!(sample.contains(&minimum) && sample.contains(&maximum), "{place}: {range:?}");
        for &value in sample {
            assert!(f64::from(minimum) - f64::from(value) <= tolerance, "{place}: {value:e}");
            assert!(f64::from(value) - f64::from(maximum) <= tolerance, "{place}: {value:e}");
        }
    }

    let unit = resampled::<f32>(stream, &map, resize, interpolation, Some(&ranges), skipped);
    for (b, (sample, range)) in unit.chunks(new).zip(&ranges).enumerate() {
        let width = f64::from(range.maximum) - f64::from(range.minimum);
        if width == 0.0 {
            assert!(sample.iter().all(|value| value.to_bits() == 0), "{place}");
            continue;
        }
        assert!(sample.contains(&0.0) && sample.contains(&1.0), "{place}");
        assert!(sample.iter().all(|value| (0.0..=1.0).contains(value)), "{place}");
        let bound = 2.0 * tolerance / width + normalize::TOLERANCE;
        let exact = normalize::reference(&exact[b * new..][..new], 1);
        if bound < 0.1 {
            for (&found, exact) in sample.iter().zip(exact) {
                assert!((f64::from(found) - exact).abs() <= bound, "{place}: {found} {exact}");
            }
        }
    }
    let halves = resampled::<f16>(stream, &map, resize, interpolation, Some(&ranges), skipped);
    assert!(unit.iter().zip(&halves).all(|(&unit, &half)| f16::from_f32(unit) == half), "{place}");
    let bytes = resampled::<u8>(stream, &map, resize, interpolation, Some(&ranges), skipped);
    for (&unit, &byte) in unit.iter().zip(&bytes) {
        assert_eq!((unit * 255.0).round_ties_even(), f32::from(byte), "{place}");
    }

    // Each sample gives the same bits alone.
    for b in 0..if batch > 1 { batch } else { 0 } {
        let (single, map) = (Resize { batch: 1, ..resize }, &map[b * old..][..old]);
        let range = self::ranges(stream, map, single, interpolation);
        assert_eq!(range[0], ranges[b]);
        let alone = resampled::<f32>(stream, map, single, interpolation, Some(&range), 0);
        assert!(alone.iter().zip(&unit[b * new..]).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

fn resize(batch: usize, from: [usize; 3], to: [usize; 3]) -> Resize {
    Resize { batch, from, to }
}

#[test]
fn small_up_down_and_in_place() {
    let Some(stream) = gpu() else { return };
    check(&stream, resize(1, [1, 3, 3], [1, 7, 12]), Linear, 0, 0);
    check(&stream, resize(2, [2, 3, 4], [3, 5, 6]), Linear, 1, 0);
    check(&stream, resize(1, [3, 4, 5], [2, 3, 2]), Linear, 0, 0);
    check(&stream, resize(1, [2, 2, 5], [2, 2, 5]), Linear, 0, 0);
    check(&stream, resize(1, [2, 3, 2], [3, 2, 5]), Nearest, 0, 0);
}

#[test]
fn any_ratio_of_any_axis() {
    let Some(stream) = gpu() else { return };
    let cases = [
        ([1, 7, 7], [1, 32, 33]),
        ([1, 5, 9], [1, 40, 36]),
        ([4, 5, 6], [9, 17, 31]),
        ([12, 13, 14], [5, 6, 7]),
        ([12, 3, 14], [5, 16, 14]),
        ([2, 3, 70], [4, 5, 9]),
        ([5, 1, 1], [1, 9, 40]),
        ([1, 1, 1], [3, 5, 7]),
        ([3, 4, 7], [3, 4, 7]),
        ([2, 1, 3], [17, 90, 4]),
    ];
    for (i, (from, to)) in cases.into_iter().enumerate() {
        for interpolation in [Linear, Nearest] {
            check(&stream, resize(1, from, to), interpolation, 0, i % 4);
            check(&stream, resize(3, from, to), interpolation, 1, 0);
        }
    }
}

#[test]
fn values_of_any_size() {
    let Some(stream) = gpu() else { return };
    for kind in 2..5 {
        check(&stream, resize(2, [3, 4, 5], [7, 6, 13]), Linear, kind, 0);
        check(&stream, resize(2, [1, 9, 8], [1, 4, 3]), Linear, kind, 0);
        check(&stream, resize(2, [2, 3, 5], [2, 3, 5]), Linear, kind, 1);
    }
}

#[test]
fn rows_and_columns_of_several_tiles() {
    let Some(stream) = gpu() else { return };
    // Wider than a tile: up, down, and where a row of the tile has few old voxels.
    check(&stream, resize(1, [1, 2, 1500], [1, 3, 2100]), Linear, 0, 0);
    check(&stream, resize(1, [1, 2, 3000], [1, 2, 1100]), Linear, 0, 1);
    check(&stream, resize(1, [2, 1, 3], [2, 2, 1030]), Linear, 0, 0);
    // More rows than a tile has, and than it has room for old values of.
    check(&stream, resize(1, [1, 3, 40], [1, 150, 47]), Linear, 0, 0);
    check(&stream, resize(1, [1, 80, 2], [1, 70, 3]), Nearest, 0, 0);
    // Long enough for positions that 32 bits do not hold.
    check(&stream, resize(1, [1, 1, 40_000], [1, 1, 70_001]), Linear, 0, 0);
}

/// More planes than there are blocks for.
#[test]
fn blocks_make_several_planes() {
    let Some(stream) = gpu() else { return };
    let blocks = 16 * stream.gpu().multiprocessors() as usize;
    if blocks > 1000 {
        return;
    }
    check(&stream, resize(1, [3, 2, 2], [2 * blocks + 3, 3, 2]), Linear, 0, 0);
}

/// A constant map stays what it is, and becomes 0.
#[test]
fn a_constant_map_becomes_0() {
    let Some(stream) = gpu() else { return };
    for value in [0.1, -0.3, 16_777_213.0, f32::MAX, 0.0] {
        for resize in [resize(1, [3, 4, 5], [7, 2, 9]), resize(1, [2, 3, 4], [2, 3, 4])] {
            let map = vec![value; resize.from.iter().product()];
            let plain = resampled::<f32>(&stream, &map, resize, Linear, None, 0);
            assert!(plain.iter().all(|&found| found == value), "{value}");
            let ranges = ranges(&stream, &map, resize, Linear);
            assert_eq!((ranges[0].minimum, ranges[0].maximum), (value, value));
            let unit = resampled::<f32>(&stream, &map, resize, Linear, Some(&ranges), 0);
            assert!(unit.iter().all(|found| found.to_bits() == 0), "{value}");
        }
    }
}

/// Voxels that are not finite are where the reference has them, and are counted.
#[test]
fn small_not_finite() {
    let Some(stream) = gpu() else { return };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (from, to) in [([2, 3, 4], [3, 7, 8]), ([3, 4, 6], [2, 3, 4]), ([2, 2, 2], [2, 2, 2])] {
            let resize = resize(2, from, to);
            let (old, new) = (from.iter().product::<usize>(), to.iter().product::<usize>());
            let mut map = values(2 * old, 0);
            map[old + 5] = bad;
            let wide = wide(&map);
            for interpolation in [Linear, Nearest] {
                let exact = reference(&wide, resize, interpolation);
                let found = resampled::<f32>(&stream, &map, resize, interpolation, None, 0);
                for (found, exact) in found.iter().zip(&exact) {
                    assert_eq!(found.is_finite(), exact.is_finite());
                    assert_eq!(found.is_nan(), exact.is_nan());
                }
                let reached = exact[new..].iter().any(|value| !value.is_finite());
                let ranges = ranges(&stream, &map, resize, interpolation);
                assert_eq!((ranges[0].not_finite, ranges[1].not_finite > 0), (0, reached));
                assert!(ranges.iter().all(|r| r.minimum.is_finite() && r.maximum.is_finite()));
            }
        }
    }
}

/// Where nothing is finite, the range is empty, and the map 0.
#[test]
fn nothing_finite() {
    let Some(stream) = gpu() else { return };
    let (resize, map) = (resize(1, [1, 2, 2], [1, 3, 3]), [f32::NAN; 4]);
    let found = ranges(&stream, &map, resize, Linear);
    assert_eq!((found[0].minimum, found[0].maximum), (f32::INFINITY, f32::NEG_INFINITY));
    let unit = resampled::<u8>(&stream, &map, resize, Linear, Some(&found), 0);
    assert_eq!(unit, [0; 9]);
}

const EMPTY: [DeviceExtremes; 2] =
    [DeviceExtremes { minimum: 0.0, maximum: 0.0, not_finite: 0, unused: 0 }; 2];

#[test]
fn bad_input_is_an_error_that_names_it() {
    let Some(stream) = gpu() else { return };
    let known = stream.upload(&EMPTY).unwrap();
    let mut found = stream.upload(&EMPTY).unwrap();
    let map = stream.upload(&[0.0_f32; 12]).unwrap();
    let mut bytes = stream.upload(&[0_u8; 16]).unwrap();
    let mut message = |resize, range_count: usize, out: usize| {
        let ranges = (range_count > 0).then(|| known.slice().part(0..range_count).unwrap());
        let mut out_slice = bytes.slice_mut();
        let out = out_slice.part(0..out).unwrap();
        let error = resample_into(&stream, map.slice(), resize, Linear, ranges, out).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    let good = resize(2, [1, 2, 3], [1, 2, 4]);
    assert!(message(resize(2, [1, 0, 3], [1, 2, 4]), 2, 16).starts_with("resample: from: "));
    assert!(message(resize(0, [1, 2, 3], [1, 2, 4]), 2, 16).starts_with("resample: from: "));
    assert_eq!(
        message(resize(2, [1, 2, 3], [1, 1, (1 << 30) + 1]), 2, 16),
        "resample: to: an extent of 1073741825 is above the limit of 1073741824"
    );
    assert_eq!(
        message(resize(65_536, [1, 1, 1], [1, 1, 1]), 2, 16),
        "resample: batch: 65536 samples, the limit is 65535; part the batch"
    );
    assert_eq!(
        message(resize(2, [1, 2, 2], [1, 2, 4]), 2, 16),
        "resample: map: (2, 1, 2, 2) takes 8 values (B·D·H·W), it has 12"
    );
    assert_eq!(
        message(good, 1, 16),
        "resample: extremes: a batch of 2 takes 2 values (B), it has 1"
    );
    assert_eq!(
        message(good, 2, 15),
        "resample: out: (2, 1, 2, 4) takes 16 values (B·D·H·W), it has 15"
    );
    assert_eq!(
        message(good, 0, 16),
        "resample: out: u8 holds normalised maps alone; give their ranges, or take f32"
    );
    let mut found = found.slice_mut();
    let one = found.part(0..1).unwrap();
    let error = extremes(&stream, map.slice(), good, Linear, one).unwrap_err();
    assert_eq!(error.to_string(), "resample: extremes: a batch of 2 takes 2 values (B), it has 1");
    // SAFETY: nothing reads or writes it, as it is of another device.
    let elsewhere = unsafe { medcam::device::Slice::from_raw(1, map.slice().pointer(), 12) };
    let mut bytes = stream.upload(&[0_u8; 16]).unwrap();
    let error =
        resample_into(&stream, elsewhere, good, Linear, Some(known.slice()), bytes.slice_mut());
    assert_eq!(
        error.unwrap_err().to_string(),
        "resample: map: on device 1, and the stream is on device 0; take a stream of that device, or \
         copy it over"
    );
}
