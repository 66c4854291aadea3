//! The tables of all cases of a cohort: a spreadsheet, a CSV file and a Parquet file of the same
//! rows.

mod row_groups;
mod rows;
mod sheets;

use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use row_groups::RowGroups;
use rows::Cell;
use sheets::Sheets;

use crate::error::{Error, Result};
use crate::record::CaseRecord;
use crate::volumes::{Unfinished, make_folder};

/// Writes the tables of all cases, case by case. Memory does not grow with the number of cases.
///
/// A case has a row for each of its maps (target, layer and sample) that was measured or scored. A
/// target with neither has a row for each sample, without a layer. A case that failed has one row.
///
/// | column | |
/// |---|---|
/// | `id`, `image` | the case and its image |
/// | `status`, `reason` | `done`, `failed` or `suspect`; why there are no maps |
/// | `target`, `layer`, `sample` | which map; samples count from 0 |
/// | `class`, `class_name` | the class that the map explains, and its name in the model card |
/// | `threshold`, `share_above`, `volume_ml_above` | the attention of the map: see [`MapVolume`](crate::record::MapVolume) |
/// | a column for each metric | the score against the mask |
/// | `warnings` | the codes of the warnings about the map, with `;` between them |
/// | `read_s`, `discovery_s`, `inference_s`, `maps_s`, `write_s` | time spent on the case, in seconds; the same in each of its rows |
///
/// | | `cases.csv` | `cases.xlsx` | `cases.parquet` |
/// |---|---|---|---|
/// | no value | empty | empty cell | null |
/// | a score that is not defined | `NaN` | text `NaN` | NaN |
/// | text | as it is | a text cell, never a formula | UTF-8 |
/// | `sample`, `class` | number | number | INT64 |
/// | other numbers | number | number | DOUBLE |
///
/// A sheet holds 1,048,576 rows; the next ones are in the sheets `Cases 2`, `Cases 3`... Text of
/// more than 32,767 UTF-16 units is cut in the spreadsheet only. A program that opens the CSV file
/// as a spreadsheet may take text such as `=1+1` for a formula; it should open `cases.xlsx`.
///
/// The same records give the same bytes. Until [`finish`](Self::finish), only temporary files exist;
/// they are removed if the value is dropped.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// use medcam::outputs::CaseTables;
/// use medcam::record::CaseRecord;
///
/// let json = r#"{"id": "0001", "image": "0001.nii.gz", "status": "failed",
///                "reason": "the file is empty", "outputs": []}"#;
/// let record: CaseRecord = serde_json::from_str(json).unwrap();
/// let mut tables = CaseTables::create(folder, &["wioa".to_owned()])?;
/// tables.add(&record)?;
/// assert_eq!(tables.finish()?, CaseTables::FILES.map(|name| folder.join(name)));
/// let csv = std::fs::read_to_string(folder.join("cases.csv")).unwrap();
/// assert!(csv.lines().nth(1).unwrap().starts_with("0001,0001.nii.gz,failed,the file is empty,"));
/// # Ok::<(), medcam::Error>(())
/// ```
pub struct CaseTables {
    metrics: Vec<String>,
    sheets: Sheets,
    workbook: (File, Unfinished),
    csv: csv::Writer<File>,
    unfinished_csv: Unfinished,
    groups: RowGroups,
    unfinished_groups: Unfinished,
    paths: [PathBuf; 3],
}

impl CaseTables {
    /// Names of the files.
    pub const FILES: [&str; 3] = ["cases.xlsx", "cases.csv", "cases.parquet"];

    /// Begins the tables in `folder`, which is made if needed, with a column for each of `metrics`.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made or written to, or a metric has the name of another column.
    pub fn create(folder: impl AsRef<Path>, metrics: &[String]) -> Result<Self> {
        Self::with_limit(folder.as_ref(), metrics, sheets::ROWS)
    }

    /// `limit` is the most rows of a sheet.
    fn with_limit(folder: &Path, metrics: &[String], limit: u32) -> Result<Self> {
        let columns = rows::columns(metrics)?;
        make_folder(folder)?;
        let paths = Self::FILES.map(|name| folder.join(name));
        let [xlsx, csv, parquet] = &paths;
        let begin = |path: &Path| Unfinished::beside(path).map_err(cannot_write(path));
        let sheets = Sheets::new(folder, &columns, limit).map_err(cannot_write(xlsx))?;
        let (unfinished, file) = begin(xlsx)?;
        let workbook = (file, unfinished);
        let (unfinished_csv, file) = begin(csv)?;
        let mut table = csv::Writer::from_writer(file);
        let names = columns.iter().map(|(name, _)| name);
        table.write_record(names).map_err(cannot_write(csv))?;
        let (unfinished_groups, file) = begin(parquet)?;
        let groups = RowGroups::new(file, &columns).map_err(cannot_write(parquet))?;
        let metrics = metrics.to_vec();
        Ok(Self {
            metrics,
            sheets,
            workbook,
            csv: table,
            unfinished_csv,
            groups,
            unfinished_groups,
            paths,
        })
    }

    /// Adds the rows of a case.
    ///
    /// # Errors
    ///
    /// If a file cannot be written. Then the tables lack rows; drop them.
    pub fn add(&mut self, record: &CaseRecord) -> Result<()> {
        let [xlsx, csv, parquet] = &self.paths;
        for cells in rows::rows(record, &self.metrics) {
            self.sheets.add(&cells).map_err(cannot_write(xlsx))?;
            for cell in &cells {
                self.csv.write_field(&*in_csv(cell)).map_err(cannot_write(csv))?;
            }
            // Ends the row.
            self.csv.write_record(None::<&[u8]>).map_err(cannot_write(csv))?;
            self.groups.add(&cells).map_err(cannot_write(parquet))?;
        }
        Ok(())
    }

    /// Completes the files and returns their paths, in the order of [`FILES`](Self::FILES).
    /// Existing files of these names are replaced once all three are complete.
    ///
    /// # Errors
    ///
    /// If a file cannot be written or replaced. Each is then the old one or the new one.
    pub fn finish(self) -> Result<Vec<PathBuf>> {
        let [xlsx, csv, parquet] = &self.paths;
        let (workbook, unfinished_workbook) = self.workbook;
        let mut writer = BufWriter::new(&workbook);
        self.sheets.finish(&mut writer).map_err(cannot_write(xlsx))?;
        writer.flush().map_err(cannot_write(xlsx))?;
        drop(writer);
        let table = self.csv.into_inner();
        let table = table.map_err(|error| io::Error::other(error.to_string()));
        let table = table.map_err(cannot_write(csv))?;
        let groups = self.groups.finish().map_err(cannot_write(parquet))?;
        let finished = [
            (unfinished_workbook, workbook, xlsx),
            (self.unfinished_csv, table, csv),
            (self.unfinished_groups, groups, parquet),
        ];
        // A full disk shows here, before any file is replaced.
        for (_, file, path) in &finished {
            file.sync_data().map_err(cannot_write(path))?;
        }
        for (unfinished, file, path) in finished {
            unfinished.rename(&file, path).map_err(cannot_write(path))?;
        }
        Ok(self.paths.into())
    }
}

impl fmt::Debug for CaseTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaseTables").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn cannot_write<E: StdError + Send + Sync + 'static>(path: &Path) -> impl Fn(E) -> Error {
    move |error| Error::file(path, format!("cannot write: {error}")).because(error)
}

/// A cell as text.
fn in_csv<'a>(cell: &'a Cell<'_>) -> std::borrow::Cow<'a, str> {
    match cell {
        Cell::Empty => "".into(),
        Cell::Text(text) => (&**text).into(),
        Cell::Count(count) => count.to_string().into(),
        Cell::Number(number) => number.to_string().into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use calamine::{Reader, Xlsx, open_workbook};

    use super::*;

    #[test]
    fn a_full_sheet_is_followed_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut tables = CaseTables::with_limit(folder.path(), &[], 4).unwrap();
        for case in 0..7 {
            let record = serde_json::json!({
                "id": case.to_string(), "image": "a.nii", "status": "failed", "outputs": [],
            });
            tables.add(&serde_json::from_value(record).unwrap()).unwrap();
        }
        let files = tables.finish().unwrap();
        let mut workbook: Xlsx<_> = open_workbook(&files[0]).unwrap();
        assert_eq!(workbook.sheet_names(), ["Cases", "Cases 2", "Cases 3"]);
        let mut ids = |sheet| -> Vec<String> {
            let range = workbook.worksheet_range(sheet).unwrap();
            range.rows().map(|row| row[0].to_string()).collect()
        };
        assert_eq!(ids("Cases"), ["id", "0", "1", "2"]);
        assert_eq!(ids("Cases 2"), ["id", "3", "4", "5"]);
        assert_eq!(ids("Cases 3"), ["id", "6"]);
    }
}
