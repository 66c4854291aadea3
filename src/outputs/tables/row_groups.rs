//! The Parquet file: row groups that are written once they are full.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::{Compression, GzipLevel, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::rows::{Cell, Column, Kind};

/// Rows of a group: few enough for memory, and enough for columns to compress.
const ROWS: usize = 8192;

/// Bytes of text at which a group is written even if it has fewer rows.
const BYTES: usize = 16 << 20;

/// A Parquet file that is written group by group.
pub(super) struct RowGroups {
    writer: SerializedFileWriter<File>,
    /// The columns of the group that is being filled.
    columns: Vec<Values>,
    rows: usize,
    bytes: usize,
}

/// The values of a column, and for each row whether it has one (1) or not (0).
struct Values {
    values: Typed,
    present: Vec<i16>,
}

enum Typed {
    Text(Vec<ByteArray>),
    Count(Vec<i64>),
    Number(Vec<f64>),
}

impl RowGroups {
    pub(super) fn new(file: File, columns: &[Column]) -> Result<Self, ParquetError> {
        let fields = columns.iter().map(|(name, kind)| {
            let (physical, logical) = match kind {
                Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
                Kind::Count => (Physical::INT64, None),
                Kind::Number => (Physical::DOUBLE, None),
            };
            let field = Type::primitive_type_builder(name, physical);
            let field = field.with_logical_type(logical).with_repetition(Repetition::OPTIONAL);
            field.build().map(Arc::new)
        });
        let fields = fields.collect::<Result<_, _>>()?;
        let schema = Type::group_type_builder("cases").with_fields(fields).build()?;
        let gzip = Compression::GZIP(GzipLevel::try_new(1)?);
        let properties = WriterProperties::builder().set_compression(gzip).build();
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
        let columns = columns.iter().map(|(_, kind)| Values::new(*kind)).collect();
        Ok(Self { writer, columns, rows: 0, bytes: 0 })
    }

    /// Adds a row; `cells` are of the kinds of the columns.
    pub(super) fn add(&mut self, cells: &[Cell<'_>]) -> Result<(), ParquetError> {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.add(cell)?;
            if let Cell::Text(text) = cell {
                self.bytes += text.len();
            }
        }
        self.rows += 1;
        if self.rows == ROWS || self.bytes >= BYTES { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for Values { values, present } in &mut self.columns {
            let Some(mut column) = group.next_column()? else { break };
            match values {
                Typed::Text(values) => {
                    let column = column.typed::<ByteArrayType>();
                    column.write_batch(values, Some(present), None)?;
                    values.clear();
                }
                Typed::Count(values) => {
                    column.typed::<Int64Type>().write_batch(values, Some(present), None)?;
                    values.clear();
                }
                Typed::Number(values) => {
                    column.typed::<DoubleType>().write_batch(values, Some(present), None)?;
                    values.clear();
                }
            }
            present.clear();
            column.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// Writes what is left, and returns the file.
    pub(super) fn finish(mut self) -> Result<File, ParquetError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.writer.into_inner()
    }
}

impl Values {
    fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Text => Typed::Text(Vec::new()),
            Kind::Count => Typed::Count(Vec::new()),
            Kind::Number => Typed::Number(Vec::new()),
        };
        Self { values, present: Vec::new() }
    }

    fn add(&mut self, cell: &Cell<'_>) -> Result<(), ParquetError> {
        match (&mut self.values, cell) {
            (_, Cell::Empty) => {}
            (Typed::Text(values), Cell::Text(text)) => values.push((&**text).into()),
            (Typed::Count(values), Cell::Count(count)) => {
                let count = i64::try_from(*count);
                values.push(count.map_err(|error| ParquetError::External(Box::new(error)))?);
            }
            (Typed::Number(values), Cell::Number(number)) => values.push(*number),
            (_, cell) => {
                return Err(ParquetError::General(format!("a cell of another kind: {cell:?}")));
            }
        }
        self.present.push(i16::from(*cell != Cell::Empty));
        Ok(())
    }
}
