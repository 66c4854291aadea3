//! NIfTI headers with faults, NIfTI-2, pairs and colours are read as nibabel reads them.

use std::path::{Path, PathBuf};

use medcam::volumes::{MapType, Volume, read_npy};
use ndarray::{Array3, Ix4};

use super::fixtures::{oblique_header, ramp, write_nifti};
use super::nibabel::script;

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn what_nibabel_repairs_is_repaired_alike_and_noted() {
    let Ok(python) = std::env::var("MEDCAM_PYTHON") else {
        println!("skipped: MEDCAM_PYTHON names no Python with nibabel");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: String| folder.path().join(name);
    let names = script(&python, "nibabel_headers.py", "write", folder.path());
    let mut noted = 0;
    for name in names.split_whitespace() {
        let text = std::fs::read_to_string(at(format!("{name}.txt"))).unwrap();
        let [file, note, affine] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        let volume = Volume::read(at(file.to_owned())).unwrap_or_else(|error| panic!("{error}"));
        match note {
            "-" => assert!(volume.notes.is_empty(), "{name}: {:?}", volume.notes),
            part => {
                noted += 1;
                let found = volume.notes.iter().any(|note| note.contains(part));
                assert!(found, "{name}: {:?} without {part:?}", volume.notes);
            }
        }
        for (ours, theirs) in volume.affine.iter().flatten().zip(affine.split_whitespace()) {
            let theirs: f64 = theirs.parse().unwrap();
            // NIfTI-2 stores its affine in f64, maps store theirs in f32.
            assert!((ours - theirs).abs() <= 2e-6, "{name}: {:?} {affine}", volume.affine);
        }
        let data = read_npy(at(format!("{name}.npy"))).unwrap();
        assert_eq!(volume.data, data.into_dimensionality::<Ix4>().unwrap(), "{name}");

        let (_, i, j, k) = volume.data.dim();
        let map = Array3::from_elem((i, j, k), 0.5);
        volume.write_map(at(format!("{name}-map.nii.gz")), &map, MapType::F32).unwrap();
        let numbers: Vec<String> = volume.affine.iter().flatten().map(f64::to_string).collect();
        std::fs::write(at(format!("{name}-affine.txt")), numbers.join(" ")).unwrap();
    }
    assert_eq!(noted, 22);
    script(&python, "nibabel_headers.py", "check", folder.path());
}

/// Offsets in a header, each with the bytes that replace its own.
type Patches<'a> = &'a [(usize, &'a [u8])];

/// A small image with parts of its header replaced.
fn patched(folder: &Path, patches: Patches<'_>) -> PathBuf {
    let path = folder.join("patched.nii");
    write_nifti(&path, &oblique_header(), &ramp([5, 6, 7]));
    let mut bytes = std::fs::read(&path).unwrap();
    for &(offset, patch) in patches {
        bytes[offset..offset + patch.len()].copy_from_slice(patch);
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn an_image_without_a_usable_form_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (one, none) = (1_i16.to_le_bytes(), 0_i16.to_le_bytes());
    let (nan, two) = (f32::NAN.to_le_bytes(), 2_f32.to_le_bytes());
    let cases: [(Patches<'_>, &str); 5] = [
        (&[(280, &[0; 48])], "the sform has a column of zeros, and there is no qform; give it"),
        (
            &[(280, &[0; 48]), (252, &one), (256, &two)],
            "the sform has a column of zeros, and the qform has a quaternion longer than 1",
        ),
        (&[(254, &none), (252, &one), (256, &two)], "the qform has a quaternion longer than 1"),
        (&[(254, &none), (252, &one), (80, &nan)], "the qform needs pixdim[1] (the spacing)"),
        (&[(254, &none), (80, &nan)], "the grid without sform and qform needs pixdim[1]"),
    ];
    for (patches, part) in cases {
        let error = Volume::read(patched(folder.path(), patches)).unwrap_err();
        assert!(error.is_file() && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_is_not_read_says_how_to_convert_it() {
    let folder = tempfile::tempdir().unwrap();
    for (datatype, part) in [(32_i16, "abs("), (1792, "abs("), (1536, "get_fdata()"), (1, "1-bit")]
    {
        let error = Volume::read(patched(folder.path(), &[(70, &datatype.to_le_bytes())]));
        let message = error.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    // Analyze 7.5 has no magic code.
    let path = patched(folder.path(), &[(344, &[0; 4])]);
    std::fs::rename(&path, folder.path().join("old.hdr")).unwrap();
    std::fs::write(folder.path().join("old.img"), [0; 840]).unwrap();
    let message = Volume::read(folder.path().join("old.img")).unwrap_err().to_string();
    assert!(message.contains("old.hdr") && message.contains("Analyze 7.5"), "{message}");
}

#[test]
fn a_half_of_a_pair_that_is_cut_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = patched(folder.path(), &[(344, b"ni1\0"), (108, &[0; 4])]);
    let bytes = std::fs::read(&path).unwrap();
    let [header, data] = ["Scan.HDR", "Scan.IMG"].map(|name| folder.path().join(name));
    for (header_bytes, data_bytes, part) in [
        (&bytes[..348], &bytes[352..], ""),
        (&bytes[..347], &bytes[352..], "Scan.HDR: truncated"),
        (&bytes[..348], &bytes[353..], "Scan.IMG: truncated"),
    ] {
        std::fs::write(&header, header_bytes).unwrap();
        std::fs::write(&data, data_bytes).unwrap();
        for path in [&header, &data] {
            let message = Volume::read(path).err().map_or(String::new(), |error| error.to_string());
            assert!(message.contains(part) && message.is_empty() == part.is_empty(), "{message}");
        }
    }
}
