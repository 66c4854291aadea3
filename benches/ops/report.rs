//! The table after a run, and the same as JSON.

use std::path::Path;

use serde_json::{Value, json};

use super::case::{Case, Layer};
use super::ceiling::Ceiling;
use super::runner::ARMS;

/// A case, measured.
pub struct Row {
    op: &'static str,
    layer: Layer,
    read: usize,
    written: usize,
    /// Of each arm, seconds per call in increasing order.
    seconds: [Vec<f64>; 2],
}

impl Row {
    pub fn new(case: &Case, mut seconds: [Vec<f64>; 2]) -> Self {
        for seconds in &mut seconds {
            seconds.sort_by(f64::total_cmp);
        }
        let (read, written) = (case.read(), case.written);
        Self { op: case.op, layer: case.layer, read, written, seconds }
    }

    /// Seconds per call of an arm that a given part of the calls stayed below.
    fn quantile(&self, arm: usize, tenths: usize) -> f64 {
        self.seconds[arm][(self.seconds[arm].len() - 1) * tenths / 10]
    }

    fn medians(&self) -> [f64; 2] {
        [0, 1].map(|arm| self.quantile(arm, 5))
    }

    fn floor(&self, ceiling: &Ceiling) -> f64 {
        ceiling.floor(self.read, self.written)
    }
}

/// One table for each place, markdown.
pub fn table(rows: &[Row], ceilings: &[Ceiling]) -> String {
    let mut lines = Vec::new();
    for ceiling in ceilings {
        let place = ceiling.place();
        lines.push(format!(
            "\n{}: memory reads at {:.1} GB/s, copies at {:.1} GB/s (read and written)\n",
            place.description(),
            ceiling.read_bandwidth() / 1e9,
            ceiling.copy_bandwidth() / 1e9,
        ));
        lines.push(format!(
            "| op | layer | {0} | {1} | {1} / {0} | floor | {0} / floor |",
            ARMS[0], ARMS[1]
        ));
        lines.push("|---|---|---|---|---|---|---|".to_owned());
        for row in rows.iter().filter(|row| row.layer.place == place) {
            let [medcam, libtorch] = row.medians();
            let floor = row.floor(ceiling);
            lines.push(format!(
                "| {} | {} | {} | {} | {:.2} | {} | {:.2} |",
                row.op,
                row.layer.size(),
                milliseconds(medcam),
                milliseconds(libtorch),
                libtorch / medcam,
                milliseconds(floor),
                medcam / floor,
            ));
        }
    }
    lines.join("\n")
}

/// Three digits that count.
fn milliseconds(seconds: f64) -> String {
    let milliseconds = seconds * 1e3;
    match milliseconds {
        100.0.. => format!("{milliseconds:.0} ms"),
        10.0.. => format!("{milliseconds:.1} ms"),
        1.0.. => format!("{milliseconds:.2} ms"),
        _ => format!("{milliseconds:.3} ms"),
    }
}

/// Writes a file anew. Whoever is stopped meanwhile leaves the old one.
pub fn write(path: &Path, json: &Value) {
    let part = path.with_extension("part");
    std::fs::write(&part, format!("{json:#}\n")).unwrap();
    std::fs::rename(part, path).unwrap();
}

/// All that the tables are made of. Times are in seconds, bandwidths in bytes per second.
pub fn json(rows: &[Row], ceilings: &[Ceiling]) -> Value {
    let places = ceilings.iter().map(|ceiling| {
        let rows = rows.iter().filter(|row| row.layer.place == ceiling.place());
        json!({
            "place": ceiling.place().name(),
            "read_bandwidth": ceiling.read_bandwidth(),
            "copy_bandwidth": ceiling.copy_bandwidth(),
            "rows": rows.map(|row| row_json(row, ceiling)).collect::<Vec<_>>(),
        })
    });
    json!({ "threads": rayon::current_num_threads(), "places": places.collect::<Vec<_>>() })
}

fn row_json(row: &Row, ceiling: &Ceiling) -> Value {
    let arm = |arm: usize| {
        json!({
            "median": row.quantile(arm, 5),
            "tenth": row.quantile(arm, 1),
            "ninetieth": row.quantile(arm, 9),
            "calls": row.seconds[arm].len(),
        })
    };
    json!({
        "id": format!("{}/{}", row.op, row.layer.id()),
        "op": row.op,
        "bytes_read": row.read,
        "bytes_written": row.written,
        "floor": row.floor(ceiling),
        ARMS[0]: arm(0),
        ARMS[1]: arm(1),
    })
}
