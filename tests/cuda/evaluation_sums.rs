//! The sums of an evaluation against their CPU twin, which they equal in all bits.

use medcam::device::Stream;
use medcam::ops::evaluation_sums::{TABLE_LENGTH, cuda};
use medcam::ops::{EvaluationSums, evaluation_sums};

use crate::common::gpu;

/// Maps of every kind: even, half of it 0, of few values, constant, and too small to be whole
/// units.
fn map(kind: u32, voxels: u32) -> Vec<f32> {
    let value = |i: u32| {
        let even =
            (i.wrapping_mul(2_654_435_761).wrapping_add(kind * 977) >> 8) as f32 / (1 << 24) as f32;
        match kind {
            0 => even,
            1 => (2.0 * even - 1.0).max(0.0),
            2 => (even * 3.0).round() / 3.0,
            3 => [0.0, 1.0][(i % 2) as usize],
            4 => 0.0,
            5 => even.powi(40),
            // The greatest fraction of a row, so often that the sum overflows 32 bits.
            _ => (1.0_f32 / 512.0).next_down(),
        }
    };
    (0..voxels).map(value).collect()
}

const KINDS: u32 = 7;

fn on_gpu(
    stream: &Stream,
    map: &[f32],
    mask: Option<&[u8]>,
    batch: usize,
    threshold: Option<f32>,
    skipped: usize,
) -> Result<Vec<EvaluationSums>, medcam::Error> {
    let map = stream.upload(&[&vec![7.0; skipped], map].concat()).unwrap();
    let mask = mask.map(|mask| stream.upload(&[&vec![1; skipped], mask].concat()).unwrap());
    let mask = mask.as_ref().map(|mask| mask.slice().part(skipped..mask.len()).unwrap());
    let mut tables = stream.upload(&vec![u64::MAX; batch * TABLE_LENGTH]).unwrap();
    let map = map.slice().part(skipped..map.len()).unwrap();
    cuda::evaluation_sums(stream, map, mask, batch, threshold, tables.slice_mut()).unwrap();
    let first = stream.download(tables.slice()).unwrap();
    // A second launch shows that the first left its counters at 0.
    cuda::evaluation_sums(stream, map, mask, batch, threshold, tables.slice_mut()).unwrap();
    assert_eq!(stream.download(tables.slice()).unwrap(), first);
    EvaluationSums::from_tables(&first, threshold)
}

fn check(stream: &Stream, voxels: u32, batch: u32, threshold: Option<f32>, skipped: usize) {
    for first in (0..KINDS).step_by(batch as usize) {
        let maps: Vec<f32> = (first..first + batch).flat_map(|b| map(b % KINDS, voxels)).collect();
        let mask: Vec<u8> = (0..maps.len()).map(|i| [0, 1, 255, 0, 0][i / 3 % 5]).collect();
        for mask in [None, Some(&mask[..])] {
            let found = on_gpu(stream, &maps, mask, batch as usize, threshold, skipped).unwrap();
            let expected = evaluation_sums(&maps, mask, batch as usize, threshold).unwrap();
            assert!(found == expected, "{voxels} {batch} {first} {threshold:?} {skipped}");
        }
    }
}

#[test]
fn small_equals_the_cpu() {
    let Some(stream) = gpu() else { return };
    check(&stream, 33, 3, Some(0.3), 0);
}

#[test]
fn any_length_and_alignment() {
    let Some(stream) = gpu() else { return };
    for voxels in [1, 31, 32, 1023, 1025, 2184] {
        for skipped in [0, 1, 3] {
            check(&stream, voxels, 3, Some(0.7), skipped);
        }
    }
}

#[test]
fn any_threshold() {
    let Some(stream) = gpu() else { return };
    for threshold in
        [None, Some(0.0), Some(1.0), Some(0.25), Some(1e-30), Some(1.0_f32.next_down())]
    {
        check(&stream, 1025, 1, threshold, 0);
    }
}

/// More values than one block counts, in blocks of several sizes.
#[test]
fn many_blocks() {
    let Some(stream) = gpu() else { return };
    check(&stream, 40_003, 1, Some(0.5), 0);
    check(&stream, 50_001, 1, Some(0.5), 0);
    check(&stream, 70_001, 3, None, 0);
}

/// With more rounds, and with the most, in which one slot gets all values of a block.
#[test]
fn blocks_of_many_rounds() {
    let Some(stream) = gpu() else { return };
    for voxels in [600_001, 800_003] {
        let maps = map(KINDS - 1, voxels);
        let found = on_gpu(&stream, &maps, None, 1, None, 0).unwrap();
        assert!(found == evaluation_sums(&maps, None, 1, None).unwrap(), "{voxels}");
    }
}

#[test]
fn values_outside_of_0_to_1_are_counted() {
    let Some(stream) = gpu() else { return };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1e-45, 1.0_f32.next_up()] {
        let mut map = vec![0.5; 2 * 33];
        (map[33], map[65]) = (bad, bad);
        let error = on_gpu(&stream, &map, Some(&[1; 66]), 2, None, 0).unwrap_err();
        assert!(error.is_input());
        assert_eq!(
            error.to_string(),
            "evaluation_sums: map: 2 of the 33 voxels of sample 1 are not in [0, 1]; normalise it \
             first"
        );
    }
}

#[test]
fn bad_arguments_are_named() {
    let Some(stream) = gpu() else { return };
    let map = stream.upload(&[0.5_f32; 6]).unwrap();
    let mask = stream.upload(&[1_u8; 5]).unwrap();
    let mut tables = stream.allocate::<u64>(2 * TABLE_LENGTH).unwrap();
    let mut message = |mask, batch, threshold| {
        let tables = tables.slice_mut();
        let error = cuda::evaluation_sums(&stream, map.slice(), mask, batch, threshold, tables);
        error.unwrap_err().to_string()
    };
    assert_eq!(
        message(Some(mask.slice()), 2, None),
        "evaluation_sums: mask: the map has 6 values, the mask has 5; resample one to the grid of \
         the other"
    );
    assert_eq!(
        message(None, 2, Some(-1.0)),
        "evaluation_sums: threshold: -1 is not in [0, 1], the range of the map"
    );
    assert_eq!(
        message(None, 4, None),
        "evaluation_sums: map: 6 values cannot be parted into 4 samples"
    );
    assert_eq!(
        message(None, 3, None),
        "evaluation_sums: tables: 3 samples take 6180 words, it has 4120"
    );
}
