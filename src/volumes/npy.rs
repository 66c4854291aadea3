//! Reads NumPy's `.npy` files of numbers as f32, and writes maps.

use std::io::{BufReader, Read};
use std::path::Path;

use half::f16;
use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::{Header, Layout};
use ndarray_npy::{ReadDataError, ReadableElement, WriteNpyExt};
use py_literal::Value;

use super::open;
use super::write::{self, MapType, to_u8};
use crate::error::{Error, Result};

/// The default of NumPy's `max_header_size`.
const MAX_HEADER_BYTES: usize = 10_000;

/// Deepest nesting of a header. An array of numbers has a tuple within a dictionary. Deeper text is
/// refused because the parser recurses and could overflow the stack.
const MAX_NESTING: usize = 4;

/// Reads an `.npy` array of booleans, integers or floats of 16 to 64 bits as f32.
///
/// C and Fortran order and both byte orders are read; the shape is as NumPy shows it. As in NumPy,
/// the header may come from Python 2 and use any type name that `numpy.dtype` accepts.
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

/// The shape in the header of an array's file.
pub(super) fn read_shape(path: &Path) -> Result<Vec<usize>> {
    let (file, length) = open(path)?;
    let header = checked_header(&mut BufReader::new(file), length);
    header.map(|(header, ..)| header.shape).map_err(|message| Error::file(path, message))
}

fn parse(text: &str) -> Result<Header, String> {
    Header::from_reader(&mut normalised_header(text).as_slice())
        .map_err(|error| format!("not an .npy file of numbers: {error}"))
}

fn decode(mut source: impl Read, length: u64) -> Result<ArrayD<f32>, String> {
    let (header, kind, count) = checked_header(&mut source, length)?;
    let values = read_values(source, &kind, &header, count)?;
    let shape = IxDyn(&header.shape).set_f(header.layout == Layout::Fortran);
    let array = ArrayD::from_shape_vec(shape, values).map_err(|e| e.to_string())?;
    Ok(array.as_standard_layout().into_owned())
}

/// The header of a file of `length` bytes, the type of its values, and their number, which the length bears out.
fn checked_header(source: &mut impl Read, length: u64) -> Result<(Header, String, usize), String> {
    if length == 0 {
        return Err("the file is empty".into());
    }
    let (text, start) = read_header(source)?;
    let mut header = parse(&text)?;
    let kind = match &header.type_descriptor {
        Value::String(name) => canonical(name),
        Value::Bytes(name) => std::str::from_utf8(name).ok().and_then(canonical),
        _ => None,
    };
    let Some((kind, size)) = kind else {
        let descr = &header.type_descriptor;
        let raw =
            if descr.to_string().contains('V') { " (raw bytes, such as bfloat16)" } else { "" };
        return Err(format!(
            "dtype {descr}{raw} is not read; save it as float32: array.astype(\"float32\")"
        ));
    };
    // Booleans are read as bytes: NumPy takes any byte but 0 as true, and Pillow's masks have 255.
    let element = if kind == "|b1" { "|u1" } else { &kind };
    header.type_descriptor = Value::String(element.to_owned());
    let count = header.shape.iter().try_fold(1_usize, |n, &e| n.checked_mul(e));
    let bytes = count.and_then(|n| n.checked_mul(size)).map(|n| n as u64);
    let has = length - start;
    // Checked before any allocation: the header may claim any size.
    let (Some(count), Some(bytes)) = (count, bytes) else {
        return Err(format!("the header's shape {:?} is too large", header.shape));
    };
    if bytes != has {
        let what = if bytes > has { "truncated" } else { "too long" };
        return Err(format!("{what}: header promises {bytes} bytes of data, the file has {has}"));
    }
    let kind = kind.to_string();
    Ok((header, kind, count))
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
    match &kind[1..] {
        // `ndarray-npy` does not read 16-bit floats.
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
        _ => typed(source, header, count, |v: u8| f32::from(u8::from(v != 0))),
    }
}

/// Reads the header's dictionary and returns it with the offset of the data, after checking that
/// the text is short and flat enough to parse.
fn read_header(source: &mut impl Read) -> Result<(String, u64), String> {
    let mut more = |count: usize| -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = source.take(count as u64).read_to_end(&mut bytes);
        match read.map_err(|e| format!("cannot read: {e}"))? {
            n if n == count => Ok(bytes),
            _ => Err("truncated: the file ends within its header".to_owned()),
        }
    };
    let magic = more(8)?;
    let &[0x93, b'N', b'U', b'M', b'P', b'Y', major, minor] = magic.as_slice() else {
        return Err("not an .npy file: it does not start with \\x93NUMPY".to_owned());
    };
    if !(1..=3).contains(&major) || minor != 0 {
        return Err(format!("npy version {major}.{minor}; versions 1.0, 2.0 and 3.0 are read"));
    }
    let size = more(if major == 1 { 2 } else { 4 })?;
    let text_bytes = size.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    if text_bytes > MAX_HEADER_BYTES {
        return Err(format!("the header has {text_bytes} bytes; {MAX_HEADER_BYTES} are the limit"));
    }
    let text = more(text_bytes)?;
    let mut depth = 0_usize;
    for byte in &text {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err("the header is not that of an array of numbers".into());
        }
    }
    let text = String::from_utf8(text).map_err(|_| "the header is not UTF-8 text".to_owned())?;
    Ok((text, (magic.len() + size.len() + text_bytes) as u64))
}

/// A version 3 header with this dictionary, in the syntax that `ndarray-npy` parses.
///
/// Python 2 wrote `5L` for a long integer and `u'descr'` for a Unicode string, and NumPy reads
/// both. `ndarray-npy` accepts neither, nor line breaks between values.
fn normalised_header(text: &str) -> Vec<u8> {
    let mut plain = String::new();
    // The quote that ends the current string.
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => {
                plain.push(character);
                plain.extend(characters.next());
                continue;
            }
            (Some(end), _) if character == end => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '\n' | '\r') => {
                plain.push(' ');
                continue;
            }
            (None, 'L') if plain.trim_end().ends_with(|c: char| c.is_ascii_digit()) => continue,
            (None, 'u' | 'U') if matches!(characters.peek(), Some('\'' | '"')) => continue,
            (None, _) => {}
        }
        plain.push(character);
    }
    let plain = format!("{}\n", plain.trim());
    // No overflow: the text is at most `MAX_HEADER_BYTES` long.
    let length = u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes();
    [b"\x93NUMPY\x03\x00", &length[..], plain.as_bytes()].concat()
}

/// The type that `numpy.dtype(name)` returns, spelled like `<f4`, and its size in bytes; `None` for
/// types that are not read.
fn canonical(name: &str) -> Option<(String, usize)> {
    let bare = name.strip_prefix(['<', '>', '|', '=']);
    let kind = match bare.unwrap_or(name) {
        "b1" | "?" => "b1",
        "i1" | "b" => "i1",
        "u1" | "B" => "u1",
        "i2" | "h" => "i2",
        "u2" | "H" => "u2",
        "i4" | "i" => "i4",
        "u4" | "I" => "u4",
        "i8" | "l" | "q" | "p" | "n" => "i8",
        "u8" | "L" | "Q" | "P" | "N" => "u8",
        "f2" | "e" => "f2",
        "f4" | "f" => "f4",
        "f8" | "d" => "f8",
        // NumPy accepts no byte order before the long names.
        _ if bare.is_some() => return None,
        "bool" | "bool_" => "b1",
        "int8" | "byte" => "i1",
        "uint8" | "ubyte" => "u1",
        "int16" | "short" => "i2",
        "uint16" | "ushort" => "u2",
        "int32" | "intc" => "i4",
        "uint32" | "uintc" => "u4",
        "int64" | "long" | "longlong" | "int" | "int_" | "intp" => "i8",
        "uint64" | "ulong" | "ulonglong" | "uint" | "uintp" => "u8",
        "float16" | "half" => "f2",
        "float32" | "single" => "f4",
        "float64" | "double" | "float" => "f8",
        _ => return None,
    };
    let size = usize::from(kind.as_bytes()[1] - b'0');
    let native = if cfg!(target_endian = "big") { '>' } else { '<' };
    let order = match name.chars().next() {
        _ if size == 1 => '|',
        Some(order @ ('<' | '>')) => order,
        _ => native,
    };
    Some((format!("{order}{kind}"), size))
}

/// Writes an array as `.npy`: f32 as it is, or 8 bits as `round(255·value)`.
///
/// # Errors
///
/// If the file cannot be written; an existing file of that name then stays intact.
pub fn write_npy(path: impl AsRef<Path>, array: &ArrayD<f32>, dtype: MapType) -> Result<()> {
    let to_io = |error: ndarray_npy::WriteNpyError| match error {
        ndarray_npy::WriteNpyError::Io(error) => error,
        other => std::io::Error::other(other.to_string()),
    };
    write::atomically(path.as_ref(), |file| match dtype {
        MapType::F32 => array.write_npy(file).map_err(to_io),
        MapType::U8 => array.mapv(to_u8).write_npy(file).map_err(to_io),
    })
}
