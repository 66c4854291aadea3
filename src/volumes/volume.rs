//! NIfTI volumes: reading them from one file or from a pair.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use ndarray::{Array3, Array4, ArrayView3, Axis, ShapeBuilder, s};
use nifti::{InMemNiftiVolume, IntoNdArray, NiftiHeader, NiftiType};

use super::affine::{self, Affine, Orientation};
use super::nifti_header::{self, Contents};
use super::write::{check_memory, to_u8};
use super::{MapType, nifti_write, open};
use crate::error::{Error, Result};

/// The highest compression ratio of deflate. A header that promises more data must be wrong.
const DEFLATE_LIMIT: u64 = 1032;

/// A 3D image with its place in the scanner, read from a NIfTI file.
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
    /// with one time point, and so are red, green and blue, from 0 to 255.
    pub data: Array4<f32>,
    /// From `(i, j, k, 1)` to the scanner's RAS+ space, row-major, in the file's unit: the sform
    /// if its code is above 0 and it can be inverted, else the qform, else nibabel's centred grid.
    pub affine: [[f64; 4]; 4],
    /// The distance between neighbouring voxels along `i`, `j` and `k`, in millimetres.
    pub spacing_mm: [f64; 3],
    /// One sentence for each header field that was repaired because it was contradictory or
    /// invalid: the stored value, and the value used instead. Empty for a valid header.
    pub notes: Vec<String>,
    pub(crate) header: Box<NiftiHeader>,
}

impl Volume {
    /// Reads a NIfTI-1 or NIfTI-2 image: a `.nii` or `.nii.gz` file, or the pair that a `.hdr` or a
    /// `.img` file (each also `.gz`) belongs to.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened, is not NIfTI, is truncated or damaged, has no usable affine, or
    /// holds voxels that are neither numbers nor colours (complex numbers, say). No header, however
    /// wrong, makes this allocate more than the file can hold.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let pair = pair_of(path)?;
        let [header_path, data_path] = match &pair {
            Some([header_path, data_path]) => [header_path, data_path].map(|p| p.as_path()),
            None => [path; 2],
        };
        let mut source = Source::open(header_path)?;
        let contents = source.contents(pair.is_some());
        let contents = contents.map_err(|message| Error::file(header_path, message))?;
        if pair.is_some() {
            source = Source::open(data_path)?;
        }
        source
            .voxels(&contents)
            .and_then(|raw| build(contents, raw))
            .map_err(|message| Error::file(data_path, message))
    }

    /// A volume from its voxels `(C, i, j, k)`; `affine` goes from `(i, j, k, 1)` to the scanner's
    /// RAS+ space in mm.
    ///
    /// # Errors
    ///
    /// If there are no voxels, or as [`Grid::of_volume_shape`](super::Grid::of_volume_shape).
    ///
    /// # Example
    ///
    /// ```
    /// use medcam::volumes::Volume;
    ///
    /// let affine = [[-1., 0., 0., 0.], [0., -1., 0., 0.], [0., 0., 2., 0.], [0., 0., 0., 1.]];
    /// let volume = Volume::new(ndarray::Array4::zeros((1, 4, 5, 6)), &affine)?;
    /// assert_eq!(volume.axis_codes(), ['L', 'P', 'S']);
    /// assert_eq!(volume.spacing_mm, [1.0, 1.0, 2.0]);
    /// # Ok::<(), medcam::Error>(())
    /// ```
    pub fn new(data: Array4<f32>, affine: &[[f64; 4]; 4]) -> Result<Self> {
        if data.is_empty() {
            return Err(Error::input("volume", format!("shape {:?} has no voxels", data.shape())));
        }
        let header =
            affine::header_of(Some(affine)).map_err(|fault| Error::input("affine", fault))?;
        let affine = affine::sform(&header);
        let spacing_mm = affine::spacing(&affine);
        Ok(Self { data, affine, spacing_mm, notes: Vec::new(), header: Box::new(header) })
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
        nifti_write::write_map(path.as_ref(), &self.header, self.shape(), map.view(), dtype)
    }

    /// What a reader gets of a map's file: `head` is what comes before its voxels.
    pub(crate) fn of_map(
        head: &[u8],
        map: ArrayView3<'_, f32>,
        dtype: MapType,
    ) -> Result<Self, String> {
        check_memory(map.len())?;
        let contents = nifti_header::parse(head, false)?;
        let scaling = contents.scaling;
        let voxels = match dtype {
            MapType::F32 => map.to_owned(),
            MapType::U8 => map.mapv(|value| scaled(f64::from(to_u8(value)), scaling)),
        };
        Ok(of_data(contents, voxels.insert_axis(Axis(0))))
    }

    pub(crate) fn shape(&self) -> [usize; 3] {
        let (_, i, j, k) = self.data.dim();
        [i, j, k]
    }

    /// The volume of a voxel in cubic millimetres, also where the axes are not at right angles.
    pub(crate) fn voxel_mm3(&self) -> f64 {
        affine::voxel_volume(&self.affine) * self.unit_mm().powi(3)
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

/// A file that is read from front to back, decompressed where its name says so.
struct Source {
    reader: Box<dyn Read>,
    /// Size of the file on disk, in bytes.
    length: u64,
    gzipped: bool,
    /// Number of bytes read, after decompression.
    position: usize,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let (file, length) = open(path)?;
        let mut file = BufReader::new(file);
        let gzipped = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let refuse = |message: &str| Error::file(path, message.to_owned());
        if length == 0 {
            return Err(refuse("the file is empty"));
        }
        let start = file.fill_buf().map_err(|e| refuse(&format!("cannot read: {e}")))?;
        match (gzipped, start.starts_with(&[0x1f, 0x8b])) {
            (true, false) => return Err(refuse("named .gz, but not gzip-compressed")),
            (false, true) => return Err(refuse("gzip-compressed; rename it to end in .gz")),
            _ => {}
        }
        let reader: Box<dyn Read> = match gzipped {
            true => Box::new(Gunzip { member: Some(GzDecoder::new(file)) }),
            false => Box::new(file),
        };
        Ok(Self { reader, length, gzipped, position: 0 })
    }

    /// The next `count` bytes, or what is left.
    fn next(&mut self, count: usize) -> Result<Vec<u8>, String> {
        let bytes = read_up_to(&mut *self.reader, count)?;
        self.position += bytes.len();
        Ok(bytes)
    }

    fn contents(&mut self, pair: bool) -> Result<Contents, String> {
        let mut head = self.next(4)?;
        let needed = head.first_chunk().map_or(4, |&start| nifti_header::bytes_needed(start));
        head.extend(self.next(needed - 4)?);
        nifti_header::parse(&head, pair)
    }

    /// Refuses a file that is too short for what its header promises, as far as its length tells.
    fn check_length(&self, contents: &Contents) -> Result<(), String> {
        let end = (contents.offset + contents.bytes) as u64;
        if !self.gzipped && self.length < end {
            return Err(self.truncated(contents, self.length));
        }
        if self.gzipped && end / DEFLATE_LIMIT > self.length {
            let (bytes, length) = (contents.bytes, self.length);
            return Err(format!(
                "truncated: the header promises {bytes} bytes of data, far more than \
                 {length} compressed bytes can hold"
            ));
        }
        Ok(())
    }

    fn truncated(&self, contents: &Contents, has: u64) -> String {
        let plain = if self.gzipped { "decompressed file" } else { "file" };
        let end = contents.offset + contents.bytes;
        format!("truncated: the header promises {end} bytes, the {plain} has {has}")
    }

    /// The bytes of all voxels.
    fn voxels(mut self, contents: &Contents) -> Result<Vec<u8>, String> {
        self.check_length(contents)?;
        self.next(contents.offset - self.position)?;
        let raw = self.next(contents.bytes)?;
        if raw.len() < contents.bytes {
            return Err(self.truncated(contents, self.position as u64));
        }
        // gzip's checksum comes last: only reading to the end detects damage.
        if self.gzipped {
            io::copy(&mut self.reader, &mut io::sink()).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => "truncated: the gzip data ends early".to_owned(),
                _ => format!("damaged gzip data: {e}"),
            })?;
        }
        Ok(raw)
    }
}

/// What a file's header says of its size: channels, shape, affine and spacing.
pub(super) fn read_size(path: &Path) -> Result<(usize, [usize; 3], Affine, [f64; 3])> {
    let pair = pair_of(path)?;
    let file = pair.as_ref().map_or(path, |[header, _]| header);
    let mut source = Source::open(file)?;
    let refuse = |message| Error::file(file, message);
    let contents = source.contents(pair.is_some()).map_err(refuse)?;
    if pair.is_none() {
        source.check_length(&contents).map_err(refuse)?;
    }
    let Contents { shape, channels, samples, affine, header, .. } = contents;
    // As in `build`: of colours, three are kept.
    let channels = if samples > 1 { 3 } else { channels };
    Ok((channels, shape, affine, spacing_mm(&affine, &header)))
}

/// The header's and the voxels' file, if `path` names one of a pair: `.hdr` and `.img`, each with
/// or without `.gz`.
fn pair_of(path: &Path) -> Result<Option<[PathBuf; 2]>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lower = name.to_ascii_lowercase();
    let (bare, gz) = match lower.ends_with(".gz") {
        true => name.split_at(name.len() - 3),
        false => (&name[..], ""),
    };
    let is_header = bare.to_ascii_lowercase().ends_with(".hdr");
    if !is_header && !bare.to_ascii_lowercase().ends_with(".img") {
        return Ok(None);
    }
    let (stem, own) = bare.split_at(bare.len() - 3);
    let other = if is_header { "img" } else { "hdr" };
    let other =
        if own == own.to_ascii_uppercase() { other.to_ascii_uppercase() } else { other.into() };
    let other_gz = if gz.is_empty() { ".gz" } else { "" };
    let candidates = [gz, other_gz].map(|gz| path.with_file_name(format!("{stem}{other}{gz}")));
    let Some(partner) = candidates.iter().find(|candidate| candidate.is_file()) else {
        let missing = candidates[0].file_name().unwrap_or_default().to_string_lossy();
        return Err(Error::file(
            path,
            format!("one half of a .hdr/.img pair; the other, {missing}, is not beside it"),
        ));
    };
    let (own, partner) = (path.to_owned(), partner.clone());
    Ok(Some(if is_header { [own, partner] } else { [partner, own] }))
}

fn build(contents: Contents, raw: Vec<u8>) -> Result<Volume, String> {
    let Contents { shape: [i, j, k], channels, samples, scaling, .. } = contents;
    let mut header = contents.header.clone();
    // The samples of a colour voxel are adjacent, so their axis varies fastest and comes first.
    let axes = if samples > 1 { [samples, i, j, k] } else { [i, j, k, channels] };
    header.dim = [4, 0, 0, 0, 0, 1, 1, 1];
    for (stored, axis) in header.dim[1..].iter_mut().zip(axes) {
        *stored = u16::try_from(axis).map_err(|e| e.to_string())?;
    }
    if samples > 1 {
        (header.datatype, header.bitpix) = (NiftiType::Uint8 as i16, 8);
    }
    (header.scl_slope, header.scl_inter) = (0.0, 0.0);
    let kind = header.data_type().map_err(|e| e.to_string())?;
    // Types that f32 represents exactly are converted directly. Other types, and all scaling, go
    // through f64, as in nibabel.
    let exact = matches!(
        kind,
        NiftiType::Uint8
            | NiftiType::Int8
            | NiftiType::Uint16
            | NiftiType::Int16
            | NiftiType::Float32
    ) && scaling.is_none();
    check_memory(raw.len() / kind.size_of().max(1))?;
    let volume = InMemNiftiVolume::from_raw_data(&header, raw).map_err(|e| e.to_string())?;
    let voxels = if exact {
        volume.into_ndarray::<f32>().map_err(|e| e.to_string())?
    } else {
        let wide = volume.into_ndarray::<f64>().map_err(|e| e.to_string())?;
        wide.mapv(|v| scaled(v, scaling))
    };
    let (voxels, _) = voxels.into_raw_vec_and_offset();
    let data = Array4::from_shape_vec(axes.f(), voxels).map_err(|e| e.to_string())?;
    let data = match samples {
        1 => data.permuted_axes([3, 0, 1, 2]),
        // Drops the alpha channel.
        _ => data.slice_move(s![..3, .., .., ..]),
    };
    Ok(of_data(contents, data))
}

/// The value of a voxel that is stored as `v`.
#[expect(clippy::cast_possible_truncation, reason = "f32 is the precision of the crate")]
fn scaled(v: f64, scaling: Option<[f64; 2]>) -> f32 {
    match scaling {
        Some([slope, intercept]) => (v * slope + intercept) as f32,
        None => v as f32,
    }
}

fn of_data(contents: Contents, data: Array4<f32>) -> Volume {
    let Contents { header, affine, notes, .. } = contents;
    let spacing_mm = spacing_mm(&affine, &header);
    Volume { data, affine, spacing_mm, notes, header: Box::new(header) }
}

fn spacing_mm(affine: &Affine, header: &NiftiHeader) -> [f64; 3] {
    affine::spacing(affine).map(|spacing| spacing * unit_mm(header))
}

/// The next `count` bytes, or what is left of the stream.
///
/// Memory grows with the bytes that arrive, not with the size that a header claims.
fn read_up_to(source: &mut dyn Read, count: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match source.take(count as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // A gzip stream that ends early: the caller reports how much is missing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(bytes),
        Err(error) => Err(format!("cannot read: {error}")),
    }
}

/// Decompresses every gzip member in turn and ignores trailing bytes that are not gzip.
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
