//! Where cases come from, and what they are called.

use std::fs;
use std::path::{Path, PathBuf};

use medcam::Target;
use medcam::cohort::{Case, cases_of};

/// Empty files in a new folder.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let file = folder.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    folder
}

fn called(cases: &[Case], folder: &Path) -> Vec<(String, PathBuf)> {
    let inside = |case: &Case| case.image.strip_prefix(folder).unwrap().to_owned();
    cases.iter().map(|case| (case.id.clone(), inside(case))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, PathBuf)> {
    pairs.iter().map(|(id, file)| ((*id).to_owned(), PathBuf::from(file))).collect()
}

#[test]
fn a_folder_gives_its_images_by_their_path() {
    let folder = folder(&[
        "b/anat/T1.nii.gz",
        "a/anat/T1.nii.gz",
        "a/anat/T1.json",
        "c.png",
        ".hidden/x.nii",
        "pair.hdr",
        "pair.img",
        "lone.img.gz",
    ]);
    let cases = cases_of(&[folder.path()], None).unwrap();
    assert_eq!(
        called(&cases, folder.path()),
        pairs(&[
            ("a_anat_T1", "a/anat/T1.nii.gz"),
            ("b_anat_T1", "b/anat/T1.nii.gz"),
            ("c", "c.png"),
            ("lone", "lone.img.gz"),
            ("pair", "pair.hdr"),
        ])
    );
}

#[test]
fn a_bids_dataset_gives_its_subjects_without_derivatives() {
    let folder = folder(&[
        "dataset_description.json",
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii",
        "derivatives/fs/sub-01/anat/sub-01_T1w.nii.gz",
        "sourcedata/x.nii.gz",
    ]);
    let cases = cases_of(&[folder.path()], None).unwrap();
    assert_eq!(
        called(&cases, folder.path()),
        pairs(&[
            ("sub-01_ses-1_T1w", "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"),
            ("sub-02_T1w", "sub-02/anat/sub-02_T1w.nii"),
        ])
    );
}

#[test]
fn files_of_one_name_are_told_apart() {
    let folder = folder(&["s/sub-01/anat/T1.nii.gz", "s/sub-02/anat/T1.nii.gz", "s/sub-02/T2.nii"]);
    let at = |file: &str| folder.path().join("s").join(file);
    let expected = pairs(&[
        ("sub-01_anat_T1", "s/sub-01/anat/T1.nii.gz"),
        ("T2", "s/sub-02/T2.nii"),
        ("sub-02_anat_T1", "s/sub-02/anat/T1.nii.gz"),
    ]);
    let named = [at("sub-01/anat/T1.nii.gz"), at("sub-02/T2.nii"), at("sub-02/anat/T1.nii.gz")];
    assert_eq!(called(&cases_of(&named, None).unwrap(), folder.path()), expected);
    let pattern = [at("*/anat/T1.nii.gz")];
    let expected = [expected[0].clone(), expected[2].clone()];
    assert_eq!(called(&cases_of(&pattern, None).unwrap(), folder.path()), expected);
}

#[test]
fn a_manifest_gives_its_lines() {
    let folder = folder(&[]);
    let manifest = folder.path().join("cases.csv");
    let text = "\u{feff}age,ID,image,mask,label\n61, p1 ,scans/1.nii.gz,masks/1.nii.gz,\"1,2\"\n\n\
                58,,/else/2.nii.gz,,predicted:1\n";
    fs::write(&manifest, text).unwrap();
    let cases = cases_of(&[&manifest], None).unwrap();
    let first = Case::new("p1", folder.path().join("scans/1.nii.gz"));
    let first = first.mask(folder.path().join("masks/1.nii.gz"));
    let second = Case::new("2", "/else/2.nii.gz").targets(["predicted:1".parse().unwrap()]);
    assert_eq!(cases, [first.targets([Target::Class(1), Target::Class(2)]), second]);
}

#[test]
fn what_gives_no_cases_is_refused() {
    let folder = folder(&["empty/notes.txt", "a/x.png", "b/x.npy", "a_x.png"]);
    let at = |file: &str| folder.path().join(file);
    let count = std::cell::Cell::new(0);
    let manifest = |text: &str| {
        count.set(count.get() + 1);
        let file = at(&format!("manifest{}.csv", count.get()));
        fs::write(&file, text).unwrap();
        file
    };
    let refused = |sources: &[PathBuf]| cases_of(sources, None).unwrap_err().to_string();
    for (sources, words) in [
        (vec![at("none.nii")], "none.nii: no such file"),
        (vec![at("empty")], "no image in this folder"),
        (vec![at("*/y.png")], "no image matches"),
        (vec![at("a"), at("b")], "would both be called 'x'"),
        (vec![folder.path().to_owned()], "would both be called 'a_x'"),
        (vec![manifest("id,file\n1,x.png\n")], "no column 'image', but id, file"),
        (vec![manifest("id,image\n1,\n")], "line 2: no image"),
        (vec![manifest("id,image\n")], "without a case"),
        (vec![manifest("image,label,Label\nx.png,1,2\n")], "two columns 'label'"),
        (vec![manifest("id,image\n../up,x.png\n")], "cannot be part of a path"),
        (vec![manifest("id,image\na,x.png\na,y.png\n")], "would both be called 'a'"),
        (vec![manifest("image,label\nx.png,what\n")], "line 2: "),
        (vec![manifest("image,label\nx.png\n")], "no manifest: "),
    ] {
        let said = refused(&sources);
        assert!(said.contains(words), "{said}");
    }
}
