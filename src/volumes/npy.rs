//! NumPy's `.npy` files: reading any number type as f32, writing maps.

use std::io::{BufReader, Read};
use std::path::Path;

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::{Header, Layout};
use ndarray_npy::{ReadDataError, ReadableElement, WriteNpyExt};

use super::open;
use super::write::{self, MapType, to_u8};
use crate::error::{Error, Result};

/// As NumPy's own `max_header_size`.
const MAX_HEADER_BYTES: usize = 10_000;

/// A header of numbers nests a tuple within a dictionary; deeper text is not parsed, because the
/// parser recurses.
const MAX_NESTING: usize = 4;

/// Reads an `.npy` array of booleans, integers or floats of 16 to 64 bits as f32.
///
/// C and Fortran order and both byte orders are read; the shape is as NumPy shows it.
///
/// # Errors
///
/// If the file cannot be opened, is not `.npy`, holds another type, or has more or fewer bytes
/// than its header promises.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("x.npy");
/// use medcam::volumes::{MapType, read_npy, write_npy};
///
/// let array = ndarray::array![[0.0, 0.5, 1.0]].into_dyn();
/// write_npy(&path, &array, MapType::F32).unwrap();
/// assert_eq!(read_npy(&path).unwrap(), array);
/// ```
pub fn read_npy(path: impl AsRef<Path>) -> Result<ArrayD<f32>> {
    let path = path.as_ref();
    let (file, length) = open(path)?;
    decode(BufReader::new(file), length).map_err(|message| Error::file(path, message))
}

fn decode(mut source: impl Read, length: u64) -> Result<ArrayD<f32>, String> {
    if length == 0 {
        return Err("the file is empty".into());
    }
    let head = read_header(&mut source)?;
    let header = Header::from_reader(&mut head.as_slice())
        .map_err(|error| format!("not an .npy file of numbers: {error}"))?;
    let kind = header.type_descriptor.as_string().map(String::as_str).unwrap_or_default();
    let size = match kind.trim_start_matches(['<', '>', '|', '=']) {
        "f2" | "i2" | "u2" => 2,
        "f4" | "i4" | "u4" => 4,
        "f8" | "i8" | "u8" => 8,
        "b1" | "i1" | "u1" => 1,
        _ => {
            let descr = &header.type_descriptor;
            return Err(format!("dtype {descr} is not read; save it as float32"));
        }
    };
    let count = header.shape.iter().try_fold(1_usize, |n, &e| n.checked_mul(e));
    let bytes = count.and_then(|n| n.checked_mul(size)).map(|n| n as u64);
    let has = length - head.len() as u64;
    // Before anything is allocated from the header's word.
    let (Some(count), Some(bytes)) = (count, bytes) else {
        return Err(format!("the header's shape {:?} is too large", header.shape));
    };
    if bytes != has {
        let what = if bytes > has { "truncated" } else { "too long" };
        return Err(format!("{what}: header promises {bytes} bytes of data, the file has {has}"));
    }
    let values = read_values(source, kind, &header, count)?;
    let shape = IxDyn(&header.shape).set_f(header.layout == Layout::Fortran);
    let array = ArrayD::from_shape_vec(shape, values).map_err(|e| e.to_string())?;
    Ok(array.as_standard_layout().into_owned())
}

#[expect(clippy::cast_possible_truncation, reason = "f32 is the precision of the crate")]
fn read_values(
    source: impl Read,
    kind: &str,
    header: &Header,
    count: usize,
) -> Result<Vec<f32>, String> {
    fn typed<T: ReadableElement>(
        source: impl Read,
        header: &Header,
        count: usize,
        to_f32: impl Fn(T) -> f32,
    ) -> Result<Vec<f32>, String> {
        let read = |error: ReadDataError| error.to_string();
        let values = T::read_to_end_exact_vec(source, &header.type_descriptor, count);
        Ok(values.map_err(read)?.into_iter().map(to_f32).collect())
    }
    match kind.trim_start_matches(['<', '>', '|', '=']) {
        // The crate has no 16-bit floats.
        "f2" => {
            let mut bytes = Vec::new();
            let mut source = source;
            source.read_to_end(&mut bytes).map_err(|e| format!("cannot read: {e}"))?;
            let from = if kind.starts_with('>') { f16::from_be_bytes } else { f16::from_le_bytes };
            let (pairs, _) = bytes.as_chunks::<2>();
            Ok(pairs.iter().map(|&pair| from(pair).to_f32()).collect())
        }
        "f4" => typed(source, header, count, |v: f32| v),
        "f8" => typed(source, header, count, |v: f64| v as f32),
        "i1" => typed(source, header, count, |v: i8| f32::from(v)),
        "i2" => typed(source, header, count, |v: i16| f32::from(v)),
        "i4" => typed(source, header, count, |v: i32| v as f32),
        "i8" => typed(source, header, count, |v: i64| v as f32),
        "u1" => typed(source, header, count, |v: u8| f32::from(v)),
        "u2" => typed(source, header, count, |v: u16| f32::from(v)),
        "u4" => typed(source, header, count, |v: u32| v as f32),
        "u8" => typed(source, header, count, |v: u64| v as f32),
        _ => typed(source, header, count, |v: bool| f32::from(u8::from(v))),
    }
}

/// The bytes up to the data, checked to be short and flat enough to parse.
fn read_header(source: &mut impl Read) -> Result<Vec<u8>, String> {
    let not_npy = || "not an .npy file: it does not start with \\x93NUMPY".to_owned();
    let mut head = Vec::new();
    let mut more = |head: &mut Vec<u8>, count: usize| -> Result<(), String> {
        let read = source.take(count as u64).read_to_end(head);
        match read.map_err(|e| format!("cannot read: {e}"))? {
            n if n == count => Ok(()),
            _ => Err("truncated: the file ends within its header".to_owned()),
        }
    };
    more(&mut head, 8)?;
    let &[0x93, b'N', b'U', b'M', b'P', b'Y', major, _] = head.as_slice() else {
        return Err(not_npy());
    };
    let count = if major == 1 { 2 } else { 4 };
    more(&mut head, count)?;
    let text_bytes = head[8..].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    if text_bytes > MAX_HEADER_BYTES {
        return Err(format!("the header has {text_bytes} bytes; {MAX_HEADER_BYTES} are the limit"));
    }
    more(&mut head, text_bytes)?;
    let mut depth = 0_usize;
    for byte in &head[8 + count..] {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err("the header is not that of an array of numbers".into());
        }
    }
    Ok(head)
}

/// Writes an array as `.npy`: f32 as it is, or 8 bits as `round(255·value)`.
///
/// # Errors
///
/// If the file cannot be written; an older file of that name is then still whole.
pub fn write_npy(path: impl AsRef<Path>, array: &ArrayD<f32>, dtype: MapType) -> Result<()> {
    let to_io = |error: ndarray_npy::WriteNpyError| std::io::Error::other(error.to_string());
    write::atomically(path.as_ref(), |file| match dtype {
        MapType::F32 => array.write_npy(file).map_err(to_io),
        MapType::U8 => array.mapv(to_u8).write_npy(file).map_err(to_io),
    })
}
