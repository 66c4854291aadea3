//! The columns of the tables, and the rows of a case.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::record::{CaseRecord, Class, Done, MapScores, MapVolume};

/// What all cells of a column hold, unless they are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Count,
    Number,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    /// There is no value.
    Empty,
    Text(Cow<'a, str>),
    Count(usize),
    /// NaN for a score that is not defined.
    Number(f64),
}

/// A column: its name and kind.
pub(super) type Column = (String, Kind);

/// The columns before those of the metrics.
const FIRST: [(&str, Kind); 12] = [
    ("id", Kind::Text),
    ("image", Kind::Text),
    ("status", Kind::Text),
    ("reason", Kind::Text),
    ("target", Kind::Text),
    ("layer", Kind::Text),
    ("sample", Kind::Count),
    ("class", Kind::Count),
    ("class_name", Kind::Text),
    ("threshold", Kind::Number),
    ("share_above", Kind::Number),
    ("volume_ml_above", Kind::Number),
];

/// The columns after those of the metrics.
const LAST: [(&str, Kind); 6] = [
    ("warnings", Kind::Text),
    ("read_s", Kind::Number),
    ("discovery_s", Kind::Number),
    ("inference_s", Kind::Number),
    ("maps_s", Kind::Number),
    ("write_s", Kind::Number),
];

/// All columns. Refuses a metric whose name is that of another column.
pub(super) fn columns(metrics: &[String]) -> Result<Vec<Column>> {
    let fixed = |&(name, kind): &(&str, Kind)| (name.to_owned(), kind);
    let mut columns: Vec<_> = FIRST.iter().chain(&LAST).map(fixed).collect();
    for (place, metric) in (FIRST.len()..).zip(metrics) {
        if columns.iter().any(|(name, _)| name == metric) {
            let what = format!("metric \"{metric}\": there is a column of this name already");
            return Err(Error::input("case tables", what));
        }
        columns.insert(place, (metric.clone(), Kind::Number));
    }
    Ok(columns)
}

/// The rows of a case, each with a cell for every column.
pub(super) fn rows<'a>(record: &'a CaseRecord, metrics: &[String]) -> Vec<Vec<Cell<'a>>> {
    let Some(done) = &record.done else {
        return vec![row(record, None, &Map::default(), &[], metrics)];
    };
    let mut maps = maps(done);
    if maps.is_empty() {
        maps.push(Map::default());
    }
    maps.iter().map(|map| row(record, Some(done), map, &maps, metrics)).collect()
}

/// What a row is about: a map, or a target that has none.
#[derive(Debug, Default)]
struct Map<'a> {
    target: Option<&'a str>,
    layer: Option<&'a str>,
    sample: Option<usize>,
    class: Option<usize>,
    volume: Option<&'a MapVolume>,
    scores: Option<&'a MapScores>,
}

/// The maps that were measured, then those that were only scored, then the targets without either.
fn maps(done: &Done) -> Vec<Map<'_>> {
    let mut maps: Vec<Map<'_>> = Vec::new();
    let mut places = HashMap::new();
    for volume in &done.volumes {
        let MapVolume { target, layer, sample, class, .. } = volume;
        places.insert((target.as_str(), layer.as_str(), *sample), maps.len());
        maps.push(Map {
            volume: Some(volume),
            class: *class,
            ..Map::of(target, Some(layer), *sample)
        });
    }
    for scores in &done.scores {
        let MapScores { target, layer, sample, class, .. } = scores;
        let place = *places.entry((target, layer, *sample)).or_insert(maps.len());
        match maps.get_mut(place) {
            Some(map) if map.scores.is_none() => map.scores = Some(scores),
            _ => maps.push(Map {
                scores: Some(scores),
                class: *class,
                ..Map::of(target, Some(layer), *sample)
            }),
        }
    }
    for explained in &done.explained {
        let target = explained.target.as_str();
        if maps.iter().any(|map| map.target == Some(target)) {
            continue;
        }
        let of_sample = |(sample, class): (usize, &Option<Class>)| Map {
            class: class.as_ref().map(|class| class.index),
            ..Map::of(target, None, sample)
        };
        if explained.classes.is_empty() {
            maps.push(Map { sample: None, ..Map::of(target, None, 0) });
        }
        maps.extend(explained.classes.iter().enumerate().map(of_sample));
    }
    maps
}

impl<'a> Map<'a> {
    fn of(target: &'a str, layer: Option<&'a str>, sample: usize) -> Self {
        Self { target: Some(target), layer, sample: Some(sample), ..Self::default() }
    }

    /// The codes of the warnings about this map, each once, in their order.
    ///
    /// A warning about a layer or sample is left out of the rows of others, unless no row has that
    /// layer: no warning may be lost.
    fn warnings(&self, done: &'a Done, all: &[Self]) -> Cell<'a> {
        let mut codes: Vec<&str> = Vec::new();
        for warning in &done.warnings {
            let layer = Some(warning.layer.as_str()).filter(|layer| !layer.is_empty());
            let elsewhere = layer.is_some()
                && self.layer.is_some()
                && layer != self.layer
                && all.iter().any(|map| map.layer == layer);
            let of_other = warning.sample.is_some()
                && self.sample.is_some()
                && warning.sample != self.sample
                && all.iter().any(|map| map.sample == warning.sample);
            if !elsewhere && !of_other && !codes.contains(&&*warning.code) {
                codes.push(&warning.code);
            }
        }
        if codes.is_empty() { Cell::Empty } else { Cell::Text(codes.join(";").into()) }
    }

    /// The score by a metric: empty if it was not asked for, NaN if it is not defined.
    fn score(&self, metric: &str) -> Cell<'a> {
        let score = self.scores.and_then(|scores| scores.scores.get(metric));
        score.map_or(Cell::Empty, |score| Cell::Number(score.as_f64().unwrap_or(f64::NAN)))
    }
}

/// One row. `all` are the maps of the case.
fn row<'a>(
    record: &'a CaseRecord,
    done: Option<&'a Done>,
    map: &Map<'a>,
    all: &[Map<'a>],
    metrics: &[String],
) -> Vec<Cell<'a>> {
    let text = |text: Option<&'a str>| text.map_or(Cell::Empty, |text| Cell::Text(text.into()));
    let count = |count: Option<usize>| count.map_or(Cell::Empty, Cell::Count);
    let number = |number: Option<f64>| number.map_or(Cell::Empty, Cell::Number);
    let explained = done.iter().flat_map(|done| &done.explained);
    // A class has the same name in all targets and samples.
    let class_name = explained
        .flat_map(|target| target.classes.iter().flatten())
        .find(|class| Some(class.index) == map.class)
        .and_then(|class| class.name.as_deref());
    let mut cells = vec![
        text(Some(&record.id)),
        Cell::Text(record.image.to_string_lossy()),
        Cell::Text(record.status.to_string().into()),
        text(record.reason.as_deref()),
        text(map.target),
        text(map.layer),
        count(map.sample),
        count(map.class),
        text(class_name),
        number(map.volume.map(|volume| volume.threshold)),
        number(map.volume.map(|volume| volume.share)),
        number(map.volume.and_then(|volume| volume.volume_ml)),
    ];
    cells.extend(metrics.iter().map(|metric| map.score(metric)));
    cells.push(done.map_or(Cell::Empty, |done| map.warnings(done, all)));
    let seconds = done.map(|done| done.seconds);
    cells.extend(
        [
            seconds.map(|seconds| seconds.read),
            seconds.map(|seconds| seconds.discovery),
            seconds.map(|seconds| seconds.inference),
            seconds.map(|seconds| seconds.maps),
            seconds.map(|seconds| seconds.write),
        ]
        .map(number),
    );
    cells
}
