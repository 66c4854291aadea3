//! Damaged files always give an error that names the file, never a panic or a huge allocation.

use std::io::Write;
use std::path::Path;

use medcam::volumes::{MapType, read, write_npy};
use proptest::prelude::*;

use super::fixtures::{oblique_header, ramp, write_nifti};

/// The bytes of a small valid file of each kind.
fn healthy(suffix: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("healthy{suffix}"));
    match suffix {
        ".npy" => write_npy(&path, &ramp([3, 4, 5]).into_dyn(), MapType::F32).unwrap(),
        ".png" | ".jpg" => {
            image::RgbImage::from_fn(9, 7, |x, y| {
                let shade = |n: u32| u8::try_from(9 * n).unwrap();
                image::Rgb([shade(x), shade(y), 50])
            })
            .save(&path)
            .unwrap();
        }
        _ => write_nifti(&path, &oblique_header(), &ramp([5, 6, 7])),
    }
    std::fs::read(path).unwrap()
}

/// The message with which these bytes are refused, if they are.
fn refusal(suffix: &str, bytes: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("scan{suffix}"));
    std::fs::write(&path, bytes).unwrap();
    read_refusal(&path)
}

fn read_refusal(path: &Path) -> Option<String> {
    let error = read(path).err()?;
    assert!(error.is_file(), "{error}");
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    Some(message)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn every_truncation_is_refused() {
    for suffix in [".nii", ".nii.gz", ".npy"] {
        let bytes = healthy(suffix);
        assert_eq!(refusal(suffix, &bytes), None);
        for length in 0..bytes.len() {
            let message = refusal(suffix, &bytes[..length]);
            assert!(message.is_some(), "{suffix} cut to {length} of {} bytes", bytes.len());
            // A .nii.gz ends with its checksum; cut there, it need not be reported as truncated.
            let said = length + 8 < bytes.len() || message.unwrap().contains("truncated");
            assert!(said, "{suffix} cut to {length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn messages_say_what_is_wrong() {
    let nii = healthy(".nii");
    let at = |offset: usize, patch: &[u8]| {
        let mut bytes = nii.clone();
        bytes[offset..offset + patch.len()].copy_from_slice(patch);
        bytes
    };
    let nan = f32::NAN.to_le_bytes();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (".nii", vec![], "empty"),
        (".nii", b"PK\x03\x04 this is a zip file".to_vec(), "not NIfTI"),
        (".nii", nii[..1000].to_vec(), "promises 1192 bytes, the file has 1000"),
        (".nii.gz", gzip(&nii[..1000]), "promises 1192 bytes, the decompressed file has 1000"),
        (".nii.gz", nii.clone(), "not gzip"),
        (".nii", gzip(&nii), "rename"),
        (".nii", at(0, &540_i32.to_le_bytes()), "NIfTI-2"),
        (".nii", at(344, b"ni1\0"), ".hdr/.img"),
        (".nii", at(344, b"nope"), "magic"),
        (".nii", at(40, &0_i16.to_le_bytes()), "0 dimensions"),
        (".nii", at(42, &(-5_i16).to_le_bytes()), "outside 1..=32767"),
        (".nii", at(42, &[0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]), "truncated"),
        (".nii.gz", gzip(&at(42, &[0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f])), "truncated"),
        (".nii", at(70, &1536_i16.to_le_bytes()), "128-bit"),
        (".nii", at(70, &32_i16.to_le_bytes()), "complex"),
        (".nii", at(108, &nan), "vox_offset"),
        (".nii", at(108, &20_f32.to_le_bytes()), "vox_offset"),
        (".nii", at(280, &nan), "the sform has values that are not finite"),
        (".nii", at(280, &[0; 48]), "column of zeros"),
        (".npy", vec![], "empty"),
        (".npy", b"hello, world".to_vec(), "NUMPY"),
        (".png", vec![], "not an image"),
        (".jpg", b"hello, world".to_vec(), "not an image"),
        (".txt", b"hello, world".to_vec(), "readable are"),
        (".mgz", b"hello, world".to_vec(), "mri_convert"),
        (".dcm", b"hello, world".to_vec(), "dcm2niix"),
        (".nrrd", b"hello, world".to_vec(), "SimpleITK"),
        (".mha", b"hello, world".to_vec(), "SimpleITK"),
        (".hdr", nii.clone(), "scan.img, is not beside it"),
        (".img.gz", nii.clone(), "scan.hdr.gz, is not beside it"),
    ];
    for (suffix, bytes, part) in cases {
        let message = refusal(suffix, &bytes).unwrap_or_default();
        assert!(message.contains(part), "{suffix}: {message:?} without {part:?}");
    }
    assert!(read_refusal(Path::new("missing.nii.gz")).unwrap().contains("cannot open"));
}

#[test]
fn numpy_headers_that_lie_are_refused() {
    let npy = |dict: &str, data: &[u8]| {
        let text = format!("{dict}\n");
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), data].concat()
    };
    let dict = |descr: &str, shape: &str| {
        format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")
    };
    let huge = "(4294967296, 4294967296, 4294967296, )";
    let cases = [
        (dict("'<f4'", "(1000000000000, )"), "truncated: header promises 4000000000000 bytes"),
        (dict("'<f4'", huge), "too large"),
        (dict("'<f4'", "(1, )"), "too long"),
        (dict("'|O'", "(2, )"), "dtype"),
        (dict("[('a', '<f4')]", "(2, )"), "dtype"),
        ("(".repeat(9000), "not that of an array"),
        ("{}".to_owned(), "not an .npy"),
    ];
    for (dict, part) in cases {
        let message = refusal(".npy", &npy(&dict, &[0; 8])).unwrap_or_default();
        assert!(message.contains(part), "{message:?} without {part:?}");
    }
}

#[test]
fn trailing_bytes_and_many_gzip_members_do_no_harm() {
    let nii = healthy(".nii");
    let padded = [&nii[..], &[0; 100]].concat();
    let two_members = [gzip(&nii[..500]), gzip(&nii[500..])].concat();
    assert_eq!(refusal(".nii", &padded), None);
    assert_eq!(refusal(".nii.gz", &gzip(&padded)), None);
    assert_eq!(refusal(".nii.gz", &[&gzip(&nii)[..], &[0; 100]].concat()), None);
    assert_eq!(refusal(".nii.gz", &two_members), None);
}

#[test]
fn a_wrong_checksum_is_found() {
    let mut bytes = gzip(&healthy(".nii"));
    let crc = bytes.len() - 8;
    bytes[crc] ^= 1;
    assert!(refusal(".nii.gz", &bytes).unwrap().contains("damaged"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn flipped_bytes_never_panic(
        suffix in prop::sample::select(vec![".nii", ".nii.gz", ".npy", ".png", ".jpg"]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        in_header in any::<bool>(),
    ) {
        let mut bytes = healthy(suffix);
        let zipped = suffix == ".nii.gz";
        if zipped && in_header {
            bytes = healthy(".nii");
        }
        let reach = if in_header { bytes.len().min(352) } else { bytes.len() };
        for (index, value) in flips {
            bytes[index.index(reach)] = value;
        }
        if zipped && in_header {
            bytes = gzip(&bytes);
        }
        // The bytes may be read or refused; `refusal` checks the error.
        let _ = refusal(suffix, &bytes);
    }
}
