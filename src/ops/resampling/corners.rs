//! The extremes of resampled maps, from as few of their voxels as possible.
//!
//! The extremes are among the corners, see [`taps::corners`](super::taps::corners). A value mixed from
//! others lies between them, so a row of corners can be skipped if its old rows reach no further than
//! what has been found. In maps with a peak few rows are left.

use super::cpu::KeepExtremes;
use super::rows::{Block, Plan, Source, between};
use crate::ops::extremes::cpu::Extremes;
use crate::ops::{Range, tasks};

/// Corners of a sample from which on looking for rows to skip is worth its time.
const WORTH: usize = 1 << 20;

/// The extremes of each resampled map.
pub fn extremes(source: &Source) -> Vec<Extremes> {
    let corners = source.plan.corners();
    (0..source.batch()).map(|sample| of_sample(source, &corners, sample)).collect()
}

fn of_sample(source: &Source, corners: &Plan, sample: usize) -> Extremes {
    let [planes, height, width] = corners.to();
    let all = || {
        // With the work of the whole map: where that is shared among threads, so is this.
        let sinks = tasks::map(source.voxels(), corners.blocks(sample), |block| {
            let mut sink = KeepExtremes::NONE;
            source.make(corners, &block, &mut sink);
            sink
        });
        KeepExtremes::merge(&sinks)
    };
    if planes * height * width < WORTH || !corners.gather_first {
        return all();
    }
    let old_rows: Vec<Extremes> = source.rows(sample).map(Extremes::of).collect();
    if !old_rows.iter().all(Extremes::all_finite) {
        return all();
    }
    let bounds = bounds(corners, &old_rows);
    let row = |i: usize| {
        let (plane, row) = (i / height, i % height);
        let mut sink = KeepExtremes::NONE;
        source.make(corners, &Block { sample, plane, rows: row..row + 1 }, &mut sink);
        KeepExtremes::merge([&sink])
    };
    // Begin with the rows whose bounds are lowest and highest: they let most others be skipped.
    let rows = 0..bounds.len();
    let lowest = rows.clone().min_by(|&a, &b| bounds[a].minimum.total_cmp(&bounds[b].minimum));
    let highest = rows.clone().max_by(|&a, &b| bounds[a].maximum.total_cmp(&bounds[b].maximum));
    let first = lowest.into_iter().chain(highest);
    let mut found = first.fold(Extremes::NONE, |found, i| found.merge(row(i)));
    let may_extend = |found: &Extremes, i: usize| {
        bounds[i].minimum < found.range.minimum || bounds[i].maximum > found.range.maximum
    };
    // A row by itself costs several times what it costs in a block: with many left, make all.
    if rows.clone().filter(|&i| may_extend(&found, i)).count() > rows.len() / 8 {
        return all();
    }
    for i in rows {
        if may_extend(&found, i) {
            found = found.merge(row(i));
        }
    }
    found
}

/// Bounds on the values of each row of corners, from the ranges of the old rows.
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
