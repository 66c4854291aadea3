//! The guided product against the f64 reference.

use half::f16;
use medcam::device::Stream;
use medcam::ops::extremes::DeviceExtremes;
use medcam::ops::guided_product::cuda::{extremes, guided_product_into};
use medcam::ops::guided_product::{TOLERANCE, reference};
use medcam::ops::{Resize, normalize};

use crate::common::gpu;
use crate::resample::{Stored, greatest, values, written};

fn ranges(stream: &Stream, map: &[f32], guided: &[f32], resize: Resize) -> Vec<DeviceExtremes> {
    let (map, guided) = (stream.upload(map).unwrap(), stream.upload(guided).unwrap());
    let mut found = stream.allocate::<DeviceExtremes>(resize.batch).unwrap();
    let mut runs = (0..2).map(|_| {
        extremes(stream, map.slice(), guided.slice(), resize, found.slice_mut()).unwrap();
        stream.download(found.slice()).unwrap()
    });
    let (first, second) = (runs.next().unwrap(), runs.next().unwrap());
    assert_eq!(first, second);
    first
}

/// The product begins `skipped` values behind a multiple of 256 bytes, the guided map twice as many.
fn products<O: Stored>(
    stream: &Stream,
    map: &[f32],
    guided: &[f32],
    resize: Resize,
    ranges: Option<&[DeviceExtremes]>,
    skipped: usize,
) -> Vec<O> {
    let moved = [&vec![f32::NAN; 2 * skipped], guided].concat();
    let (map, moved) = (stream.upload(map).unwrap(), stream.upload(&moved).unwrap());
    let guided = moved.slice().part(2 * skipped..moved.len()).unwrap();
    let ranges = ranges.map(|ranges| stream.upload(ranges).unwrap());
    written(stream, guided.len(), skipped, |out| {
        let ranges = ranges.as_ref().map(|ranges| ranges.slice());
        guided_product_into(stream, map.slice(), guided, resize, ranges, out).unwrap();
    })
}

fn check(stream: &Stream, resize: Resize, kind: usize, skipped: usize) {
    let Resize { batch, from, to } = resize;
    let place = format!("{resize:?} kind {kind}");
    let (old, new) = (from.iter().product::<usize>(), to.iter().product::<usize>());
    let (map, guided) = (values(batch * old, kind), values(batch * new, 0));
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    let run = |normalized| reference(&wide(&map), &wide(&guided), resize, normalized);
    let size = greatest(&map);

    let plain = products::<f32>(stream, &map, &guided, resize, None, skipped);
    for ((&found, exact), &guided) in plain.iter().zip(run(false)).zip(&guided) {
        let bound = TOLERANCE * size * f64::from(guided.abs()) + 1.5e-45;
        assert!((f64::from(found) - exact).abs() <= bound, "{place}: {found:e} {exact:e}");
    }
    let ranges = ranges(stream, &map, &guided, resize);
    for (sample, range) in plain.chunks(new).zip(&ranges) {
        let least = sample.iter().copied().fold(f32::INFINITY, f32::min);
        let most = sample.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!((range.minimum, range.maximum, range.not_finite), (least, most, 0), "{place}");
    }
    let unit = products::<f32>(stream, &map, &guided, resize, Some(&ranges), skipped);
    let exact = run(true);
    for (i, (&found, &exact)) in unit.iter().zip(&exact).enumerate() {
        let range = ranges[i / new];
        let width = f64::from(range.maximum) - f64::from(range.minimum);
        let bound = 2.0 * TOLERANCE * size * greatest(&guided) / width + normalize::TOLERANCE;
        assert!(width == 0.0 || (f64::from(found) - exact).abs() <= bound, "{place}, {i}: {found}");
        assert!(width > 0.0 || found.to_bits() == 0, "{place}");
    }
    for (sample, range) in unit.chunks(new).zip(&ranges) {
        let wide = range.minimum < range.maximum;
        assert!(!wide || sample.contains(&0.0) && sample.contains(&1.0), "{place}");
    }
    let halves = products::<f16>(stream, &map, &guided, resize, Some(&ranges), skipped);
    assert!(unit.iter().zip(&halves).all(|(&unit, &half)| f16::from_f32(unit) == half), "{place}");
    let bytes = products::<u8>(stream, &map, &guided, resize, Some(&ranges), skipped);
    for (&unit, &byte) in unit.iter().zip(&bytes) {
        assert_eq!((unit * 255.0).round_ties_even(), f32::from(byte), "{place}");
    }
    for b in 0..if batch > 1 { batch } else { 0 } {
        let (map, guided) = (&map[b * old..][..old], &guided[b * new..][..new]);
        let single = Resize { batch: 1, ..resize };
        let range = self::ranges(stream, map, guided, single);
        assert_eq!(range[0], ranges[b]);
        let alone = products::<f32>(stream, map, guided, single, Some(&range), 0);
        assert!(alone.iter().zip(&unit[b * new..]).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

fn resize(batch: usize, from: [usize; 3], to: [usize; 3]) -> Resize {
    Resize { batch, from, to }
}

#[test]
fn small_products() {
    let Some(stream) = gpu() else { return };
    check(&stream, resize(2, [1, 3, 3], [1, 7, 12]), 0, 0);
    check(&stream, resize(1, [2, 3, 4], [3, 5, 7]), 1, 1);
    check(&stream, resize(1, [3, 4, 5], [2, 3, 2]), 0, 0);
}

#[test]
fn any_ratio_of_any_axis() {
    let Some(stream) = gpu() else { return };
    let cases = [
        ([1, 7, 7], [1, 32, 33]),
        ([4, 5, 6], [9, 17, 32]),
        ([12, 13, 14], [5, 6, 7]),
        ([3, 4, 7], [3, 4, 7]),
        ([1, 1, 1], [1, 1, 1]),
        ([1, 2, 1500], [1, 3, 2100]),
    ];
    for (i, (from, to)) in cases.into_iter().enumerate() {
        check(&stream, resize(1, from, to), 0, i % 4);
        check(&stream, resize(3, from, to), i % 5, 0);
    }
}

#[test]
fn a_constant_product_becomes_0() {
    let Some(stream) = gpu() else { return };
    let resize = resize(1, [1, 3, 4], [2, 5, 7]);
    for (map, guided) in [(0.0, 1.0), (1.0, 0.0), (0.1, -0.7), (-1e30, 1e-30)] {
        let (map, guided) = ([map; 12], [guided; 70]);
        let ranges = ranges(&stream, &map, &guided, resize);
        assert_eq!(ranges[0].minimum, ranges[0].maximum);
        let unit = products::<f32>(&stream, &map, &guided, resize, Some(&ranges), 0);
        assert!(unit.iter().all(|value| value.to_bits() == 0));
    }
}

#[test]
fn products_that_are_not_finite_are_counted() {
    let Some(stream) = gpu() else { return };
    let resize = resize(2, [1, 1, 2], [1, 2, 3]);
    for bad in [f32::NAN, f32::INFINITY, 3e38] {
        let mut guided = [1.0; 12];
        guided[7] = bad;
        guided[11] = bad;
        let ranges = ranges(&stream, &[1.0, 2.0, 3.0, 4.0], &guided, resize);
        assert_eq!(ranges.iter().map(|range| range.not_finite).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((ranges[1].minimum, ranges[1].maximum), (3.0, 4.0));
    }
}

#[test]
fn bad_input_is_an_error_that_names_it() {
    let Some(stream) = gpu() else { return };
    let map = stream.upload(&[0.0_f32; 4]).unwrap();
    let mut bytes = stream.upload(&[0_u8; 6]).unwrap();
    let mut message = |resize, guided: usize| {
        let (map, guided) = (map.slice(), stream.upload(&vec![0.0_f32; guided]).unwrap());
        let out = bytes.slice_mut();
        let error =
            guided_product_into(&stream, map, guided.slice(), resize, None, out).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    let good = resize(2, [1, 1, 2], [1, 1, 3]);
    assert!(message(resize(2, [1, 0, 2], [1, 1, 3]), 6).starts_with("guided_product: from: "));
    assert_eq!(
        message(resize(1, [1, 1, 2], [1, 1, 3]), 3),
        "guided_product: map: (1, 1, 1, 2) takes 2 values (B·D·H·W), it has 4"
    );
    assert_eq!(
        message(good, 5),
        "guided_product: guided: (2, 1, 1, 3) takes 6 values (B·D·H·W), it has 5"
    );
    assert_eq!(
        message(good, 6),
        "guided_product: out: u8 holds normalised maps alone; give their ranges, or take f32"
    );
}
