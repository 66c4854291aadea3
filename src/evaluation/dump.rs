//! Writes a study's scores as files: a spreadsheet, a table and a plot.

use std::path::{Path, PathBuf};

use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use super::evaluator::{Evaluator, MeanScore, Score};
use super::plot;
use crate::error::{Error, Result};
use crate::volumes::{atomically, make_folder, write_png};

/// Names of the files that [`Evaluator::dump`] writes.
pub(crate) const FILES: [&str; 3] = ["scores.xlsx", "scores.csv", "mean_scores.png"];

impl Evaluator {
    /// Writes all scores and their means into `folder`, which is created if needed, and returns the
    /// paths. Existing files of these names are replaced.
    ///
    /// | file | |
    /// |---|---|
    /// | `scores.xlsx` | sheet `Scores`: evaluation, layer, class_label, name, metric; sheet `Mean Scores`: mean_score, layer, class_label, metric, count, undefined |
    /// | `scores.csv` | the columns of sheet `Scores` |
    /// | `mean_scores.png` | the mean scores over the layers, a line for each metric and class |
    ///
    /// The first columns are those of M3d-CAM. An undefined score is `NaN`, and an unknown class is
    /// empty. With more than 40 layers, which no reader could tell apart, the plot leaves out
    /// layers within another one (`down1.conv` within `down1`), as M3d-CAM's does, except the first
    /// and the last.
    ///
    /// # Errors
    ///
    /// If there are no scores, or a file cannot be written.
    ///
    /// # Example
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let folder = folder.path();
    /// use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
    ///
    /// let mut evaluator = Evaluator::new(Scoring::new(vec![Metric::WeightedIoa], Threshold::Otsu));
    /// let (map, mask) = (ndarray::array![[[0.2, 1.0]]], ndarray::array![[[0.0, 1.0]]]);
    /// evaluator.add(map.view(), mask.view(), "layer4", Some(1), "scan-1")?;
    /// assert_eq!(evaluator.dump(folder)?[0], folder.join("scores.xlsx"));
    /// # Ok::<(), medcam::Error>(())
    /// ```
    pub fn dump(&self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let folder = folder.as_ref();
        let (scores, means) = (self.scores(), self.means());
        if scores.is_empty() {
            return Err(Error::input("dump", "there are no scores; add some first"));
        }
        make_folder(folder)?;
        let [xlsx, csv, png] = FILES.map(|name| folder.join(name));
        let bytes = workbook(scores, &means)
            .map_err(|error| Error::file(&xlsx, format!("cannot write: {error}")).because(error))?;
        atomically(&xlsx, |file| std::io::Write::write_all(file, &bytes))?;
        atomically(&csv, |file| table(scores, file))?;
        write_png(&png, &plot::mean_scores(&means)?.into())?;
        Ok(vec![xlsx, csv, png])
    }
}

const SCORES: [&str; 5] = ["evaluation", "layer", "class_label", "name", "metric"];
const MEANS: [&str; 6] = ["mean_score", "layer", "class_label", "metric", "count", "undefined"];

fn table(scores: &[Score], file: impl std::io::Write) -> std::io::Result<()> {
    let mut table = csv::Writer::from_writer(file);
    table.write_record(SCORES)?;
    for Score { metric, score, layer, class, name } in scores {
        let class = class.map(|class| class.to_string()).unwrap_or_default();
        table.write_record([&score.to_string(), layer, &class, name, metric])?;
    }
    table.flush()
}

fn workbook(scores: &[Score], means: &[MeanScore]) -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    // A fixed date instead of the time of writing keeps the file's bytes the same on each run.
    let time = ExcelDateTime::from_ymd(2000, 1, 1)?;
    workbook.set_properties(&DocProperties::new().set_creation_datetime(&time));

    let mut sheet = Sheet::new(workbook.add_worksheet(), "Scores", &SCORES)?;
    for Score { metric, score, layer, class, name } in scores {
        let class = class.map_or(Cell::Empty, Cell::Count);
        let text = |text: &'_ String| Cell::Text(text.clone());
        sheet.add([Cell::Number(*score), text(layer), class, text(name), text(metric)])?;
    }
    let mut sheet = Sheet::new(workbook.add_worksheet(), "Mean Scores", &MEANS)?;
    for MeanScore { metric, mean, layer, class, count, undefined } in means {
        sheet.add([
            Cell::Number(*mean),
            Cell::Text(layer.clone()),
            class.map_or(Cell::Empty, Cell::Count),
            Cell::Text(metric.clone()),
            Cell::Count(*count),
            Cell::Count(*undefined),
        ])?;
    }
    workbook.save_to_buffer()
}

enum Cell {
    Empty,
    Number(f64),
    Count(usize),
    Text(String),
}

/// A sheet that is filled row by row.
struct Sheet<'a> {
    sheet: &'a mut Worksheet,
    row: u32,
}

impl<'a> Sheet<'a> {
    fn new(sheet: &'a mut Worksheet, name: &str, head: &[&str]) -> Result<Self, XlsxError> {
        sheet.set_name(name)?;
        sheet.write_row_with_format(0, 0, head.iter().copied(), &Format::new().set_bold())?;
        Ok(Self { sheet, row: 0 })
    }

    fn add(&mut self, cells: impl IntoIterator<Item = Cell>) -> Result<(), XlsxError> {
        self.row += 1;
        for (column, cell) in (0..).zip(cells) {
            match cell {
                Cell::Empty => continue,
                // A spreadsheet cannot store NaN or infinity as a number.
                Cell::Number(number) if !number.is_finite() => {
                    self.sheet.write_string(self.row, column, number.to_string())?
                }
                Cell::Number(number) => self.sheet.write_number(self.row, column, number)?,
                Cell::Count(count) => self.sheet.write_number(self.row, column, count as f64)?,
                Cell::Text(text) => self.sheet.write_string(self.row, column, text)?,
            };
        }
        Ok(())
    }
}
