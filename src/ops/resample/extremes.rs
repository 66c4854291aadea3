//! The extremes of resampled maps, from as few of their voxels as will do.
//!
//! They are among the corners, see [`taps::corners`](super::taps::corners). Of these, a row can be
//! passed over whose old rows reach no further than what has been found: what is mixed of values
//! lies between them. In maps with a peak few rows are left.

use super::cpu::Tally;
use super::rows::{Block, Plan, Source, between};
use crate::ops::normalize::cpu::Extremes;
use crate::ops::{Range, tasks};

/// Corners of a sample from which on it is worth to look for rows that can be passed over: with
/// fewer, looking takes as long as they do.
const WORTH: usize = 1 << 20;

/// The extremes of each resampled map.
pub(in crate::ops) fn extremes(source: &Source) -> Vec<Extremes> {
    let corners = source.plan.corners();
    (0..source.batch()).map(|sample| of_sample(source, &corners, sample)).collect()
}

fn of_sample(source: &Source, corners: &Plan, sample: usize) -> Extremes {
    let [planes, height, width] = corners.to();
    let all = || {
        // Where the maps themselves are made by several threads, so are these.
        let tallies = tasks::map(source.voxels(), corners.blocks(sample), |block| {
            let mut tally = Tally::NONE;
            source.make(corners, &block, &mut tally);
            tally
        });
        Tally::merge(&tallies)
    };
    if planes * height * width < WORTH || !corners.pick_first {
        return all();
    }
    let old_rows: Vec<Extremes> = source.rows(sample).map(Extremes::of).collect();
    if !old_rows.iter().all(Extremes::all_finite) {
        return all();
    }
    let bounds = bounds(corners, &old_rows);
    let row = |i: usize| {
        let (plane, row) = (i / height, i % height);
        let mut tally = Tally::NONE;
        source.make(corners, &Block { sample, plane, rows: row..row + 1 }, &mut tally);
        Tally::merge([&tally])
    };
    // First those that promise most.
    let rows = 0..bounds.len();
    let lowest = rows.clone().min_by(|&a, &b| bounds[a].minimum.total_cmp(&bounds[b].minimum));
    let highest = rows.clone().max_by(|&a, &b| bounds[a].maximum.total_cmp(&bounds[b].maximum));
    let first = lowest.into_iter().chain(highest);
    let mut found = first.fold(Extremes::NONE, |found, i| found.and(row(i)));
    let promises = |found: &Extremes, i: usize| {
        bounds[i].minimum < found.range.minimum || bounds[i].maximum > found.range.maximum
    };
    // One by one rows cost a few times as much.
    if rows.clone().filter(|&i| promises(&found, i)).count() > rows.len() / 8 {
        return all();
    }
    for i in rows {
        if promises(&found, i) {
            found = found.and(row(i));
        }
    }
    found
}

/// Between what each row of the corners lies, from the ranges of the old rows.
fn bounds(corners: &Plan, old_rows: &[Extremes]) -> Vec<Range> {
    let [along_d, along_h, _] = &corners.along;
    let [_, old_height, _] = corners.from;
    let mix = |low: Range, high: Range, weight: f32| Range {
        minimum: between(low.minimum, high.minimum, weight),
        maximum: between(low.maximum, high.maximum, weight),
    };
    let mut bounds = Vec::with_capacity(along_d.len() * along_h.len());
    for depth in along_d {
        let old = |z: usize| &old_rows[z * old_height..][..old_height];
        let rows = old(depth.low).iter().zip(old(depth.high));
        let mixed: Vec<Range> =
            rows.map(|(low, high)| mix(low.range, high.range, depth.weight)).collect();
        bounds.extend(along_h.iter().map(|tap| mix(mixed[tap.low], mixed[tap.high], tap.weight)));
    }
    bounds
}
