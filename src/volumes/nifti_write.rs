//! Writes a map as a NIfTI-1 file that overlays the image that it explains.

use std::io::{self, Write};
use std::path::Path;

use libdeflater::{CompressionLvl, Compressor};
use ndarray::{ArrayView3, Axis};
use nifti::{NiftiHeader, NiftiType};

use super::affine::{self, Affine};
use super::write::{self, MapType, to_u8};
use crate::error::{Error, Result};

const DATA_OFFSET: usize = 352;
/// The greatest f32 slope with `255·slope <= 1`; the f32 nearest to 1/255 would give 1 + 6e-8.
const U8_SLOPE: f32 = (1.0_f32 / 255.0).next_down();
const DESCRIPTION: &[u8] = b"medcam attention map";

/// Writes `map`, which has the field of view and the voxel order of a grid with `header` and
/// extents `shape`.
pub(crate) fn write_map(
    path: &Path,
    header: &NiftiHeader,
    shape: [usize; 3],
    map: ArrayView3<'_, f32>,
    dtype: MapType,
) -> Result<()> {
    let head = head(header, shape, map, dtype).map_err(|message| Error::file(path, message))?;
    let bytes = head.len() + map.len() * size_of::<f32>();
    write::atomically(path, |file| {
        let zipped = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        if zipped {
            let mut body = Vec::new();
            body.try_reserve_exact(bytes)?;
            write_body(&mut body, &head, map, dtype)?;
            file.write_all(&gzipped(&body)?)
        } else {
            write_body(file, &head, map, dtype)
        }
    })
}

/// Level of compression: the lowest that makes a map smaller. Higher ones take half as long again for maps of the
/// same size (docs/performance.md).
const LEVEL: i32 = 1;

fn gzipped(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let level = CompressionLvl::new(LEVEL).unwrap_or_default();
    let mut compressor = Compressor::new(level);
    let bound = compressor.gzip_compress_bound(bytes.len());
    let mut zipped = Vec::new();
    zipped.try_reserve_exact(bound)?;
    zipped.resize(bound, 0);
    let length = compressor.gzip_compress(bytes, &mut zipped).map_err(io::Error::other)?;
    zipped.truncate(length);
    Ok(zipped)
}

/// The bytes before the voxels of `map`, of the file that [`write_map`] writes.
pub(crate) fn head(
    header: &NiftiHeader,
    shape: [usize; 3],
    map: ArrayView3<'_, f32>,
    dtype: MapType,
) -> Result<Vec<u8>, String> {
    let (i, j, k) = map.dim();
    let to = [i, j, k];
    let Some(dims) = to.iter().map(|&n| i16::try_from(n).ok().filter(|&n| n > 0)).collect() else {
        return Err(format!("NIfTI cannot hold a map of shape {to:?}"));
    };
    Ok(header_bytes(&on_grid(header, shape, to), dims, dtype))
}

fn write_body(
    out: &mut impl Write,
    head: &[u8],
    map: ArrayView3<'_, f32>,
    dtype: MapType,
) -> io::Result<()> {
    out.write_all(head)?;
    match dtype {
        MapType::F32 => {
            write_voxels(map, f32::to_le_bytes, |slice| out.write_all(slice.as_flattened()))
        }
        MapType::U8 => write_voxels(map, to_u8, |slice| out.write_all(slice)),
    }
}

/// Writes each value as it is stored. NIfTI's first axis varies fastest, so that the file holds one slice of the last
/// axis after the other.
fn write_voxels<T>(
    map: ArrayView3<'_, f32>,
    stored: impl Fn(f32) -> T,
    mut write: impl FnMut(&[T]) -> io::Result<()>,
) -> io::Result<()> {
    let mut values = Vec::new();
    for slice in map.axis_iter(Axis(2)) {
        values.clear();
        match slice.t().as_slice() {
            Some(slice) => values.extend(slice.iter().map(|&value| stored(value))),
            None => values.extend(slice.t().iter().map(|&value| stored(value))),
        }
        write(&values)?;
    }
    Ok(())
}

/// `header` with sform, qform and spacing adapted to a grid of `to` voxels.
fn on_grid(header: &NiftiHeader, from: [usize; 3], to: [usize; 3]) -> NiftiHeader {
    let mut header = header.clone();
    if from == to {
        return header;
    }
    #[expect(clippy::cast_possible_truncation, reason = "NIfTI stores its affines as f32")]
    let narrow = |affine: Affine| affine.map(|row| row.map(|x| x as f32));
    if header.sform_code > 0 {
        let sform = narrow(affine::resized(&affine::sform(&header), from, to));
        [header.srow_x, header.srow_y, header.srow_z] = [sform[0], sform[1], sform[2]];
    }
    if header.qform_code > 0 {
        match affine::qform(&header) {
            Some(qform) => {
                let origin = narrow(affine::resized(&qform, from, to)).map(|row| row[3]);
                [header.quatern_x, header.quatern_y, header.quatern_z, _] = origin;
            }
            // The sform places the image; an invalid qform has no affine to adapt.
            None => header.qform_code = 0,
        }
    }
    for axis in 0..3 {
        let scale = from[axis] as f64 / to[axis] as f64;
        #[expect(clippy::cast_possible_truncation, reason = "NIfTI stores its spacing as f32")]
        {
            header.pixdim[axis + 1] = (f64::from(header.pixdim[axis + 1]) * scale) as f32;
        }
    }
    header
}

/// The header of a map, little-endian, with the four empty bytes that say "no extensions".
///
/// Written here because the `nifti` crate's writer always stores a slope of 1.
fn header_bytes(geometry: &NiftiHeader, dims: Vec<i16>, dtype: MapType) -> Vec<u8> {
    let (kind, bits, slope) = match dtype {
        MapType::F32 => (NiftiType::Float32, 32_i16, 1.0_f32),
        MapType::U8 => (NiftiType::Uint8, 8, U8_SLOPE),
    };
    let mut head = vec![0_u8; DATA_OFFSET];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348_i32.to_le_bytes());
    put(40, &3_i16.to_le_bytes());
    for axis in 0..7 {
        let extent = dims.get(axis).copied().unwrap_or(1);
        put(42 + 2 * axis, &extent.to_le_bytes());
    }
    put(70, &(kind as i16).to_le_bytes());
    put(72, &bits.to_le_bytes());
    let pixdim = geometry.pixdim;
    let floats = [
        (76, &[pixdim[0], pixdim[1], pixdim[2], pixdim[3], 1.0, 1.0, 1.0, 1.0][..]),
        (108, &[DATA_OFFSET as f32, slope, 0.0]),
        // cal_max, cal_min
        (124, &[1.0, 0.0]),
        (256, &[geometry.quatern_b, geometry.quatern_c, geometry.quatern_d]),
        (268, &[geometry.quatern_x, geometry.quatern_y, geometry.quatern_z]),
        (280, &geometry.srow_x),
        (296, &geometry.srow_y),
        (312, &geometry.srow_z),
    ];
    for (at, values) in floats {
        for (index, value) in values.iter().enumerate() {
            put(at + 4 * index, &value.to_le_bytes());
        }
    }
    // The spatial unit only: a map has no time axis.
    put(123, &[geometry.xyzt_units & 0o7]);
    put(148, DESCRIPTION);
    put(252, &geometry.qform_code.to_le_bytes());
    put(254, &geometry.sform_code.to_le_bytes());
    put(344, b"n+1\0");
    head
}
