//! NIfTI volumes: reading, with every field of the header checked before it is believed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use ndarray::{Array3, Array4, ShapeBuilder};
use nifti::{InMemNiftiVolume, IntoNdArray, NiftiHeader, NiftiType};

use super::affine::{self, Affine, Orientation};
use super::{MapType, nifti_write, open};
use crate::error::{Error, Result};

/// The header and the four bytes that say whether extensions follow.
const HEADER_BYTES: usize = 352;

/// deflate shrinks data to a 1032nd at best, so a file that promises more lies.
const DEFLATE_LIMIT: u64 = 1032;

/// A 3D image with its place in the scanner, read from a NIfTI-1 file.
///
/// # Example
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("image.nii");
/// # nifti::writer::WriterOptions::new(&path)
/// #     .write_nifti(&ndarray::Array3::<f32>::ones((4, 5, 6))).unwrap();
/// use medcam::volumes::Volume;
///
/// let volume = Volume::read(&path).unwrap();
/// assert_eq!(volume.data.dim(), (1, 4, 5, 6));
/// assert_eq!(volume.axis_codes(), ['R', 'A', 'S']);
/// ```
#[derive(Debug, Clone)]
pub struct Volume {
    /// `(C, i, j, k)`: the voxels in the order in which nibabel shows them, with `scl_slope` and
    /// `scl_inter` applied. The fourth axis of a 4D file is `C`; so is the fifth of a 5D file
    /// with one time point.
    pub data: Array4<f32>,
    /// From `(i, j, k, 1)` to the scanner's RAS+ space, row-major, in the file's unit: the sform
    /// if its code is above 0, else the qform, else nibabel's centred grid.
    pub affine: [[f64; 4]; 4],
    /// The distance between neighbouring voxels along `i`, `j` and `k`, in millimetres.
    pub spacing_mm: [f64; 3],
    pub(crate) header: Box<NiftiHeader>,
}

impl Volume {
    /// Reads a `.nii` or `.nii.gz` file.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, is not NIfTI-1, is truncated or damaged, or holds a type of
    /// voxel that is not a number (RGB, complex). No header, however wrong, makes this allocate
    /// more than the file can hold.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, length) = open(path)?;
        let gzipped = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        decode(BufReader::new(file), length, gzipped).map_err(|message| Error::file(path, message))
    }

    /// The letters towards which the voxel axes run, like nibabel's `aff2axcodes`.
    pub fn axis_codes(&self) -> [char; 3] {
        Orientation::of(&self.affine).codes()
    }

    /// Writes `map` as a NIfTI file that lies over this volume (`.gz` compresses).
    ///
    /// The map is in this volume's voxel order. Where its extents differ, it covers the same
    /// field of view, and the affine and spacing are those of a half-pixel resize. Affine, form
    /// codes and units are this volume's; [`MapType::U8`] stores a `scl_slope` just below 1/255, so
    /// that readers see values within `0..=1` again.
    ///
    /// # Errors
    ///
    /// If the map is empty or the file cannot be written.
    pub fn write_map(
        &self,
        path: impl AsRef<Path>,
        map: &Array3<f32>,
        dtype: MapType,
    ) -> Result<()> {
        nifti_write::write_map(path.as_ref(), &self.header, self.shape(), map, dtype)
    }

    pub(crate) fn shape(&self) -> [usize; 3] {
        let (_, i, j, k) = self.data.dim();
        [i, j, k]
    }

    /// Millimetres per unit of the affine.
    pub(crate) fn unit_mm(&self) -> f64 {
        unit_mm(&self.header)
    }
}

fn unit_mm(header: &NiftiHeader) -> f64 {
    match header.xyzt_units & 0o7 {
        1 => 1e3,
        3 => 1e-3,
        _ => 1.0,
    }
}

/// What a checked header says about the data that follows it.
struct Contents {
    shape: [usize; 3],
    channels: usize,
    /// Where the voxels start.
    offset: usize,
    /// How many bytes they take.
    bytes: usize,
}

fn decode(mut file: BufReader<File>, length: u64, gzipped: bool) -> Result<Volume, String> {
    if length == 0 {
        return Err("the file is empty".into());
    }
    let start = file.fill_buf().map_err(|e| format!("cannot read: {e}"))?;
    match (gzipped, start.starts_with(&[0x1f, 0x8b])) {
        (true, false) => return Err("named .gz, but not gzip-compressed".into()),
        (false, true) => return Err("gzip-compressed; rename it to end in .nii.gz".into()),
        _ => {}
    }
    let mut source: Box<dyn Read> = if gzipped {
        Box::new(Gunzip { member: Some(GzDecoder::new(file)) })
    } else {
        Box::new(file)
    };

    let head = read_up_to(&mut source, HEADER_BYTES)?;
    let mut header = parse_header(&head)?;
    let contents = check_header(&mut header)?;
    let end = contents.offset + contents.bytes;
    let truncated = |has: u64| {
        let plain = if gzipped { "decompressed file" } else { "file" };
        format!("truncated: the header promises {end} bytes, the {plain} has {has}")
    };
    if !gzipped && length < end as u64 {
        return Err(truncated(length));
    }
    if gzipped && end as u64 / DEFLATE_LIMIT > length {
        let bytes = contents.bytes;
        return Err(format!(
            "truncated: the header promises {bytes} bytes of data, far more than \
             {length} compressed bytes can hold"
        ));
    }

    let gap = read_up_to(&mut source, contents.offset - HEADER_BYTES)?;
    let raw = read_up_to(&mut source, contents.bytes)?;
    if raw.len() < contents.bytes {
        return Err(truncated((HEADER_BYTES + gap.len() + raw.len()) as u64));
    }
    // gzip's checksum comes last; reading on to it finds damage.
    if gzipped {
        io::copy(&mut source, &mut io::sink()).map_err(|e| format!("damaged gzip data: {e}"))?;
    }
    drop(source);
    build(header, &contents, raw)
}

fn build(header: NiftiHeader, contents: &Contents, raw: Vec<u8>) -> Result<Volume, String> {
    let Contents { shape, channels, .. } = *contents;
    let affine: Affine = affine::best(&header, shape)?;
    let kind = header.data_type().map_err(|e| e.to_string())?;
    // Types that f32 holds exactly are converted directly; the others and all scaling in f64,
    // as nibabel does.
    let exact = matches!(
        kind,
        NiftiType::Uint8
            | NiftiType::Int8
            | NiftiType::Uint16
            | NiftiType::Int16
            | NiftiType::Float32
    ) && header.scl_slope == 0.0;
    let volume = InMemNiftiVolume::from_raw_data(&header, raw).map_err(|e| e.to_string())?;
    let voxels = if exact {
        volume.into_ndarray::<f32>().map_err(|e| e.to_string())?
    } else {
        let wide = volume.into_ndarray::<f64>().map_err(|e| e.to_string())?;
        #[expect(clippy::cast_possible_truncation, reason = "f32 is the precision of the crate")]
        wide.mapv(|v| v as f32)
    };
    let [i, j, k] = shape;
    let (voxels, _) = voxels.into_raw_vec_and_offset();
    let data =
        Array4::from_shape_vec((i, j, k, channels).f(), voxels).map_err(|e| e.to_string())?;
    let spacing_mm = affine::spacing(&affine).map(|s| s * unit_mm(&header));
    let data = data.permuted_axes([3, 0, 1, 2]);
    Ok(Volume { data, affine, spacing_mm, header: Box::new(header) })
}

fn parse_header(head: &[u8]) -> Result<NiftiHeader, String> {
    let Some(&size) = head.first_chunk::<4>() else {
        return Err(format!("not NIfTI: {} bytes, a header has 348", head.len()));
    };
    let size = [i32::from_le_bytes(size), i32::from_be_bytes(size)];
    if size.contains(&540) {
        return Err("a NIfTI-2 file; only NIfTI-1 is read (save it again as NIfTI-1)".into());
    }
    if !size.contains(&348) {
        return Err("not NIfTI: the file does not start with the header's size, 348".into());
    }
    if head.len() < HEADER_BYTES {
        let has = head.len();
        return Err(format!(
            "truncated: a NIfTI header has {HEADER_BYTES} bytes, the file has {has}"
        ));
    }
    if &head[344..348] == b"ni1\0" {
        return Err("the header of a .hdr/.img pair; save it as a single .nii file".into());
    }
    NiftiHeader::from_reader(head)
        .map_err(|_| "not NIfTI-1: the magic code at byte 344 is not \"n+1\"".to_owned())
}

/// Checks what the header says and repairs what nibabel repairs (`pixdim`, scaling).
fn check_header(header: &mut NiftiHeader) -> Result<Contents, String> {
    let rank = usize::from(header.dim[0]);
    if !(1..=7).contains(&rank) {
        return Err(format!("the header says {rank} dimensions; 1 to 7 are possible"));
    }
    let mut extents = [1_usize; 7];
    for (extent, &stored) in extents.iter_mut().zip(&header.dim[1..=rank]) {
        // The field is a signed 16-bit integer.
        if stored == 0 || stored > 0x7fff {
            let shape = &header.dim[1..=rank];
            return Err(format!("the header's shape {shape:?} has an extent outside 1..=32767"));
        }
        *extent = usize::from(stored);
    }
    let [i, j, k, four, five, six, seven] = extents;
    let channels = match (four, five) {
        (channels, 1) | (1, channels) if six * seven == 1 => channels,
        _ => {
            let shape = &extents[..rank];
            return Err(format!(
                "shape {shape:?}: up to 3 axes and one of channels are read; split the file"
            ));
        }
    };
    let size = voxel_bytes(header.datatype)?;
    let bytes = [i, j, k, channels].iter().try_fold(size, |n, &e| n.checked_mul(e));
    let bytes =
        bytes.filter(|&n| n < isize::MAX as usize / 2).ok_or("the header's shape is too large")?;

    // 0 is written for "right after the header".
    let offset = if header.vox_offset == 0.0 { HEADER_BYTES as f32 } else { header.vox_offset };
    if !(HEADER_BYTES as f32..1e9).contains(&offset) || offset.fract() != 0.0 {
        return Err(format!("vox_offset is {offset}, not a whole number from {HEADER_BYTES} on"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 352..1e9")]
    let offset = offset as usize;

    for step in &mut header.pixdim[1..4] {
        if !step.is_finite() {
            return Err(format!("pixdim (the spacing) has a value of {step}"));
        }
        *step = if *step == 0.0 { 1.0 } else { step.abs() };
    }
    header.pixdim[0] = if header.pixdim[0] == -1.0 { -1.0 } else { 1.0 };
    let plain = header.scl_slope == 0.0
        || !header.scl_slope.is_finite()
        || (header.scl_slope == 1.0 && header.scl_inter == 0.0);
    if plain {
        (header.scl_slope, header.scl_inter) = (0.0, 0.0);
    } else if !header.scl_inter.is_finite() {
        return Err(format!("scl_inter is {} beside a valid scl_slope", header.scl_inter));
    }
    // Checked extents only: what lies behind `rank` may be anything.
    let stored = header.dim;
    header.dim = [4, stored[1], 1, 1, 1, 1, 1, 1];
    for (axis, extent) in [i, j, k, channels].into_iter().enumerate() {
        header.dim[axis + 1] = u16::try_from(extent).map_err(|e| e.to_string())?;
    }
    Ok(Contents { shape: [i, j, k], channels, offset, bytes })
}

fn voxel_bytes(datatype: i16) -> Result<usize, String> {
    match datatype {
        2 | 256 => Ok(1),
        4 | 512 => Ok(2),
        8 | 16 | 768 => Ok(4),
        64 | 1024 | 1280 => Ok(8),
        other => {
            let name = match other {
                32 | 1792 | 2048 => "complex",
                128 | 2304 => "RGB",
                1536 => "128-bit float",
                1 => "1-bit",
                _ => "unknown",
            };
            Err(format!(
                "voxels of datatype {other} ({name}) are not read; save them as integers of 8 to \
                 64 bits or floats of 32 or 64"
            ))
        }
    }
}

/// The next `count` bytes, or what is left of the stream.
///
/// Memory grows with what really arrives, not with what a header promises.
fn read_up_to(source: &mut dyn Read, count: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match source.take(count as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // A gzip stream that ends early: the caller says what is missing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(bytes),
        Err(error) => Err(format!("cannot read: {error}")),
    }
}

/// Decompresses every gzip member in turn and ignores what is not gzip behind the last.
struct Gunzip {
    /// `None` only while one member is exchanged for the next.
    member: Option<GzDecoder<BufReader<File>>>,
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            let ended = count == 0 && !buffer.is_empty();
            if !ended || member.get_mut().fill_buf()?.first() != Some(&0x1f) {
                return Ok(count);
            }
            self.member = self.member.take().map(|m| GzDecoder::new(m.into_inner()));
        }
        Ok(0)
    }
}
