//! The workbook: rows go to a temporary file, and on to a further sheet when one is full.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Workbook, Worksheet, XlsxError};

use super::rows::{Cell, Column};

/// The most rows that a sheet of a spreadsheet can have, that of the names among them.
pub(super) const ROWS: u32 = 1_048_576;

/// The most UTF-16 units that a cell can have.
const TEXT: usize = 32_767;

/// A workbook whose sheets are `Cases`, `Cases 2`...
pub(super) struct Sheets {
    workbook: Workbook,
    /// The sheet that is being filled.
    sheet: Worksheet,
    /// Number of sheets that were begun.
    count: usize,
    /// Number of rows of the sheet that is being filled.
    row: u32,
    names: Vec<String>,
    limit: u32,
}

impl Sheets {
    /// A workbook with these columns and at most `limit` rows in each sheet. Its temporary files,
    /// which have no name, are on the disk of `folder`: that of `/tmp` may be memory.
    pub(super) fn new(folder: &Path, columns: &[Column], limit: u32) -> Result<Self, XlsxError> {
        let mut workbook = Workbook::new();
        workbook.set_tempdir(folder)?;
        // A fixed date instead of the time of writing keeps the file's bytes the same on each run.
        let time = ExcelDateTime::from_ymd(2000, 1, 1)?;
        workbook.set_properties(&DocProperties::new().set_creation_datetime(&time));
        let sheet = workbook.new_worksheet_with_constant_memory()?;
        let names = columns.iter().map(|(name, _)| name.clone()).collect();
        let mut sheets = Self { workbook, sheet, count: 0, row: 0, names, limit };
        caught(|| sheets.head())?;
        Ok(sheets)
    }

    /// Names the sheet, and its columns in the first row.
    fn head(&mut self) -> Result<(), XlsxError> {
        self.count += 1;
        let name =
            if self.count == 1 { "Cases".to_owned() } else { format!("Cases {}", self.count) };
        self.sheet.set_name(name)?;
        let names = self.names.iter().map(String::as_str);
        self.sheet.write_row_with_format(0, 0, names, &Format::new().set_bold())?;
        self.row = 1;
        Ok(())
    }

    /// Adds a row.
    pub(super) fn add(&mut self, cells: &[Cell<'_>]) -> Result<(), XlsxError> {
        caught(|| {
            if self.row >= self.limit {
                let next = self.workbook.new_worksheet_with_constant_memory()?;
                let full = std::mem::replace(&mut self.sheet, next);
                self.workbook.push_worksheet(full);
                self.head()?;
            }
            for (column, cell) in (0..).zip(cells) {
                // Each kind of value is written as such: none can become a formula.
                match cell {
                    Cell::Empty => continue,
                    // A spreadsheet cannot store NaN or infinity as a number.
                    Cell::Number(number) if !number.is_finite() => {
                        self.sheet.write_string(self.row, column, number.to_string())?
                    }
                    Cell::Number(number) => self.sheet.write_number(self.row, column, *number)?,
                    Cell::Count(count) => {
                        self.sheet.write_number(self.row, column, *count as f64)?
                    }
                    Cell::Text(text) => self.sheet.write_string(self.row, column, cut(text))?,
                };
            }
            self.row += 1;
            Ok(())
        })
    }

    /// Writes the file.
    pub(super) fn finish(mut self, file: impl Write + Send) -> Result<(), XlsxError> {
        caught(move || {
            self.workbook.push_worksheet(self.sheet);
            self.workbook.save_to_writer(file)
        })
    }
}

/// The library panics where its temporary files cannot be written, as on a full disk: an error here.
fn caught<T>(write: impl FnOnce() -> Result<T, XlsxError>) -> Result<T, XlsxError> {
    // Unwind safety: after an error, nothing is written to the workbook any more.
    catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| {
        Err(XlsxError::IoError(io::Error::other("a temporary file cannot be written")))
    })
}

/// The text, with an ellipsis in place of what is too long for a cell.
fn cut(text: &str) -> Cow<'_, str> {
    // A text has at most as many UTF-16 units as bytes.
    if text.len() <= TEXT || text.encode_utf16().count() <= TEXT {
        return text.into();
    }
    let mut units = 0;
    let fits = |c: &char| {
        units += c.len_utf16();
        units < TEXT
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short.into()
}
