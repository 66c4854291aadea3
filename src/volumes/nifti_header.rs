//! NIfTI headers, versions 1 and 2: every field is checked before use, and fields that nibabel
//! repairs are repaired in the same way.

use nifti::{Endianness, NiftiHeader};

use super::affine::{self, Affine};

/// Size of a NIfTI-1 header with the four bytes that flag extensions.
const BYTES_1: usize = 352;
/// Size of a NIfTI-2 header with the four bytes that flag extensions.
const BYTES_2: usize = 544;

/// A checked header, with the layout of the voxels in the file.
pub(super) struct Contents {
    /// The repaired header. Of a NIfTI-2 header, only voxel type, geometry, units and byte order
    /// are kept.
    pub(super) header: NiftiHeader,
    pub(super) affine: Affine,
    pub(super) shape: [usize; 3],
    pub(super) channels: usize,
    /// Numbers per voxel: 3 and 4 for colours, else 1.
    pub(super) samples: usize,
    /// `[slope, intercept]` of the values `slope·voxel + intercept`; `None` if the voxels are the
    /// values.
    pub(super) scaling: Option<[f64; 2]>,
    /// Offset of the voxels in their file, in bytes.
    pub(super) offset: usize,
    /// Size of all voxels, in bytes.
    pub(super) bytes: usize,
    /// One sentence for each repair.
    pub(super) notes: Vec<String>,
}

/// A NIfTI-1 header, with the fields whose types differ in NIfTI-2 held in the wider type.
struct Fields {
    header: NiftiHeader,
    dim: [i64; 8],
    offset: f64,
    scaling: [f64; 2],
    /// Smallest offset of the voxels in a file that holds both header and voxels.
    least_offset: usize,
}

/// Number of leading bytes that [`parse`] needs, judging by the first four.
pub(super) fn bytes_needed(start: [u8; 4]) -> usize {
    if is_version_2(start) { BYTES_2 } else { BYTES_1 }
}

fn is_version_2(start: [u8; 4]) -> bool {
    [i32::from_le_bytes(start), i32::from_be_bytes(start)].contains(&540)
}

/// Parses the leading bytes of a header's file; `pair` means that the voxels are in another file.
pub(super) fn parse(head: &[u8], pair: bool) -> Result<Contents, String> {
    let mut notes = Vec::new();
    let fields = match head.first_chunk::<4>() {
        None => return Err(format!("not NIfTI: {} bytes, a header has 348", head.len())),
        Some(&start) if is_version_2(start) => version_2(head, pair)?,
        Some(&start) => version_1(head, start, pair, &mut notes)?,
    };
    let Fields { mut header, dim, offset, scaling: [slope, intercept], least_offset } = fields;
    let (rank, extents) = extents(dim)?;
    let [i, j, k, channels] = extents;
    let (samples, size) = voxel(header.datatype)?;
    let count = [samples, i, j, k, channels].iter().try_fold(size, |n, &e| n.checked_mul(e));
    let bytes = count.filter(|&n| n < isize::MAX as usize / 2);
    let bytes = bytes.ok_or("the header's shape is too large")?;
    if samples > 1 && channels > 1 {
        return Err(format!("{channels} channels of colours; split the file into one of each"));
    }
    let bits = 8 * samples * size;
    if usize::try_from(header.bitpix) != Ok(bits) {
        notes.push(format!(
            "bitpix is {}, but datatype {} has {bits} bits: the datatype was believed",
            header.bitpix, header.datatype
        ));
        header.bitpix = i16::try_from(bits).map_err(|e| e.to_string())?;
    }
    repair_codes(&mut header, &mut notes);
    repair_spacing(&mut header, rank, &mut notes);
    let offset = offset_of(offset, if pair { 0 } else { least_offset }, &mut notes)?;
    // Colours are not scaled.
    let plain = slope == 0.0 || !slope.is_finite() || (slope == 1.0 && intercept == 0.0);
    let scaling = if plain || samples > 1 { None } else { Some([slope, intercept]) };
    if scaling.is_some() && !intercept.is_finite() {
        return Err(format!("scl_inter is {intercept} beside a valid scl_slope"));
    }
    let affine = affine::best(&mut header, [i, j, k], &mut notes)?;
    let contents = Contents {
        header,
        affine,
        shape: [i, j, k],
        channels,
        samples,
        scaling,
        offset,
        bytes,
        notes,
    };
    Ok(contents)
}

fn version_1(
    head: &[u8],
    start: [u8; 4],
    pair: bool,
    notes: &mut Vec<String>,
) -> Result<Fields, String> {
    let sized = [i32::from_le_bytes(start), i32::from_be_bytes(start)].contains(&348);
    let magic = head.get(344..348);
    let is_nifti = matches!(magic, Some(b"n+1\0" | b"ni1\0"));
    if !sized && !is_nifti {
        return Err("not NIfTI: the file does not start with the header's size, 348".into());
    }
    // The header file of a pair may end before the four bytes that flag extensions.
    let needed = if pair { 348 } else { BYTES_1 };
    if head.len() < needed {
        let has = head.len();
        return Err(format!("truncated: a NIfTI header has {needed} bytes, the file has {has}"));
    }
    if !is_nifti {
        return Err(
            "not NIfTI-1: the magic code at byte 344 is not \"n+1\"; an Analyze 7.5 file does \
                    not say which side is left, so decide that and save it as NIfTI: python -c \
                    \"import nibabel as n; n.save(n.Nifti1Image.from_image(n.load('IN.img')), \
                    'OUT.nii.gz')\""
                .into(),
        );
    }
    if !pair && magic == Some(b"ni1\0") {
        return Err(
            "the header of a .hdr/.img pair; let its name end in .hdr, with the .img beside \
                    it"
            .into(),
        );
    }
    let header = NiftiHeader::from_reader(head).map_err(|e| format!("not NIfTI-1: {e}"))?;
    if header.sizeof_hdr != 348 {
        notes.push(format!(
            "sizeof_hdr is {}, not 348: the magic code was believed",
            header.sizeof_hdr
        ));
    }
    // NIfTI's `dim` is signed; the `nifti` crate declares it unsigned.
    let dim = header.dim.map(|extent| i64::from(extent.cast_signed()));
    let offset = f64::from(header.vox_offset);
    let scaling = [header.scl_slope, header.scl_inter].map(f64::from);
    Ok(Fields { header, dim, offset, scaling, least_offset: BYTES_1 })
}

/// Converts a NIfTI-2 header to NIfTI-1, the format of the written maps, with geometry in f32.
#[expect(clippy::cast_possible_truncation, reason = "NIfTI-1 has its geometry in f32")]
fn version_2(head: &[u8], pair: bool) -> Result<Fields, String> {
    let needed = if pair { 540 } else { BYTES_2 };
    if head.len() < needed {
        let has = head.len();
        return Err(format!("truncated: a NIfTI-2 header has {needed} bytes, the file has {has}"));
    }
    match &head[4..12] {
        [b'n', b'i', b'2', 0, ..] if !pair => {
            return Err("the header of a .hdr/.img pair; let its name end in .hdr, with the .img \
                        beside it"
                .into());
        }
        [b'n', b'+' | b'i', b'2', 0, 13, 10, 26, 10] | [b'n', b'+' | b'i', b'2', 0, 0, 0, 0, 0] => {
        }
        [b'n', b'+' | b'i', b'2', 0, ..] => {
            return Err(
                "damaged: its line ends were converted, as by a transfer as text; copy it \
                        again as binary"
                    .into(),
            );
        }
        _ => return Err("not NIfTI-2: the magic code at byte 4 is not \"n+2\"".into()),
    }
    let little = head[..4] == 540_i32.to_le_bytes();
    fn at<const N: usize>(head: &[u8], little: bool, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&head[offset..offset + N]);
        if !little {
            bytes.reverse();
        }
        bytes
    }
    let short = |offset| i16::from_le_bytes(at(head, little, offset));
    let code = |offset| i32::from_le_bytes(at(head, little, offset));
    let double = |offset| f64::from_le_bytes(at(head, little, offset));
    let single = |offset| double(offset) as f32;
    let row = |offset: usize| [0, 1, 2, 3].map(|i| single(offset + 8 * i));
    let form = |offset| i16::try_from(code(offset)).unwrap_or(-1);
    let mut header = NiftiHeader {
        datatype: short(12),
        bitpix: short(14),
        pixdim: [0, 1, 2, 3, 4, 5, 6, 7].map(|i| single(104 + 8 * i)),
        qform_code: form(344),
        sform_code: form(348),
        quatern_b: single(352),
        quatern_c: single(360),
        quatern_d: single(368),
        quatern_x: single(376),
        quatern_y: single(384),
        quatern_z: single(392),
        srow_x: row(400),
        srow_y: row(432),
        srow_z: row(464),
        xyzt_units: u8::try_from(code(500)).unwrap_or(0),
        endianness: if little { Endianness::Little } else { Endianness::Big },
        ..NiftiHeader::default()
    };
    // Near a half turn, a quaternion rounded to f32 is too imprecise: its real part is the root of
    // the small difference `1 - b² - c² - d²`. The matrix, computed in f64, is stored as the sform
    // instead.
    if header.sform_code == 0 && (1..=5).contains(&header.qform_code) {
        let [qfac, x, y, z] = [0, 1, 2, 3].map(|i| double(104 + 8 * i));
        let qfac = if qfac == -1.0 { -1.0 } else { 1.0 };
        let step = [x, y, z].map(|step| if step == 0.0 { 1.0 } else { step.abs() });
        let quaternion = [double(352), double(360), double(368)];
        let origin = [double(376), double(384), double(392)];
        let step = [step[0], step[1], step[2] * qfac];
        let tolerance = 3.0 * f64::EPSILON;
        if let Some(affine) = affine::rotated(quaternion, step, origin, tolerance) {
            let [x, y, z, _] = affine.map(|row| row.map(|v| v as f32));
            (header.srow_x, header.srow_y, header.srow_z) = (x, y, z);
            header.sform_code = header.qform_code;
        }
    }
    let dim = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| i64::from_le_bytes(at(head, little, 16 + 8 * i)));
    let offset = i64::from_le_bytes(at(head, little, 168)) as f64;
    let scaling = [double(176), double(184)];
    Ok(Fields { header, dim, offset, scaling, least_offset: BYTES_2 })
}

/// The number of axes, and the extents of `i`, `j`, `k` and the channels.
fn extents(dim: [i64; 8]) -> Result<(usize, [usize; 4]), String> {
    let rank = usize::try_from(dim[0]).ok().filter(|rank| (1..=7).contains(rank));
    let rank =
        rank.ok_or_else(|| format!("the header says {} dimensions; 1 to 7 are possible", dim[0]))?;
    let stored = &dim[1..=rank];
    let mut extents = [1_usize; 7];
    for (extent, &stored_extent) in extents.iter_mut().zip(stored) {
        *extent = usize::try_from(stored_extent)
            .ok()
            .filter(|extent| (1..=32767).contains(extent))
            .ok_or_else(|| {
                format!(
                    "the header's shape {stored:?} has an extent outside 1..=32767, which are those \
                     of the NIfTI-1 files that maps are written as; crop or resample the image"
                )
            })?;
    }
    let [i, j, k, four, five, six, seven] = extents;
    match (four, five) {
        (channels, 1) | (1, channels) if six * seven == 1 => Ok((rank, [i, j, k, channels])),
        _ => {
            let shape = &extents[..rank];
            Err(format!(
                "shape {shape:?}: up to 3 axes and one of channels are read; split the file"
            ))
        }
    }
}

/// Numbers per voxel, and bytes per number.
fn voxel(datatype: i16) -> Result<(usize, usize), String> {
    match datatype {
        2 | 256 => Ok((1, 1)),
        4 | 512 => Ok((1, 2)),
        8 | 16 | 768 => Ok((1, 4)),
        64 | 1024 | 1280 => Ok((1, 8)),
        128 => Ok((3, 1)),
        2304 => Ok((4, 1)),
        32 | 1792 | 2048 => Err(format!(
            "voxels of datatype {datatype} (complex) are not read; save their magnitude: {}",
            one_liner("n.Nifti1Image(abs(i.dataobj[...]).astype('f4'), i.affine)")
        )),
        1536 => Err(format!(
            "voxels of datatype 1536 (128-bit float) are not read; save them as 64-bit floats: {}",
            one_liner("n.Nifti1Image(i.get_fdata(), i.affine)")
        )),
        other => {
            let name = if other == 1 { "1-bit" } else { "unknown" };
            Err(format!(
                "voxels of datatype {other} ({name}) are not read; save them as integers of 8 to \
                 64 bits or floats of 32 or 64, in the program that made them"
            ))
        }
    }
}

/// A command that loads `IN.nii.gz` as `i` and saves the result of the Python expression `image`.
pub(super) fn one_liner(image: &str) -> String {
    format!(
        "python -c \"import nibabel as n; i = n.load('IN.nii.gz'); n.save({image}, 'OUT.nii.gz')\""
    )
}

fn offset_of(stored: f64, least: usize, notes: &mut Vec<String>) -> Result<usize, String> {
    // An offset of 0 means "right after the header".
    let offset = if stored == 0.0 { least as f64 } else { stored };
    if !(least as f64..1e9).contains(&offset) {
        return Err(format!("vox_offset is {offset}, not a number of bytes from {least} on"));
    }
    if offset.fract() != 0.0 {
        notes.push(format!("vox_offset is {offset}: the fraction was dropped"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..1e9")]
    Ok(offset as usize)
}

/// Repairs `pixdim`, except values that are not finite: [`affine::best`] knows whether they are
/// used.
fn repair_spacing(header: &mut NiftiHeader, rank: usize, notes: &mut Vec<String>) {
    for axis in 1..4 {
        let stored = header.pixdim[axis];
        let repaired = if stored == 0.0 { 1.0 } else { stored.abs() };
        // Axes beyond the rank often have a spacing of 0, which deserves no note.
        if stored <= 0.0 && axis <= rank {
            notes.push(format!("pixdim[{axis}] (the spacing) is {stored}: {repaired} was taken"));
        }
        header.pixdim[axis] = repaired;
    }
    if header.sform_code == 0 && header.qform_code == 0 {
        // Without sform and qform, nibabel uses a spacing of 1 along axes beyond the rank.
        header.pixdim[rank.min(3) + 1..4].fill(1.0);
    }
    let qfac = header.pixdim[0];
    if ![-1.0, 0.0, 1.0].contains(&qfac) {
        notes.push(format!("pixdim[0] (qfac) is {qfac}: 1 was taken"));
    }
    header.pixdim[0] = if qfac == -1.0 { -1.0 } else { 1.0 };
}

fn repair_codes(header: &mut NiftiHeader, notes: &mut Vec<String>) {
    for (name, code) in
        [("qform_code", &mut header.qform_code), ("sform_code", &mut header.sform_code)]
    {
        if !(0..=5).contains(code) {
            notes.push(format!("{name} is {code}, which is not one of 0 to 5: 0 was taken"));
            *code = 0;
        }
    }
}
