//! Names, sizes and pipes that a program meets sooner or later.

use std::io::Read;
use std::process::Stdio;

use super::run::{Bench, network, program};

#[test]
fn a_size_beyond_memory_is_an_error() {
    let bench = Bench::new();
    let model = network("interpolating3d.traced.pt");
    let input = [bench.volume("v.nii")];
    for size in ["100000,100000,100000", "1048576,1048576,1048576"] {
        let ran = bench.map(&model, &input, &format!("--size {size}"));
        ran.failed(1, &["v.nii", "layer 'down2'", "no memory"]);
        assert_eq!(bench.report()["failed"], 1);
    }
    let most = "18446744073709551615";
    let ran = bench.map(&model, &input, &format!("--size {most},{most},{most}"));
    ran.failed(1, &["the limit is 2147483647"]);
    bench.map(&model, &input, "--size 40000,1,1").failed(1, &["NIfTI cannot hold", "40000"]);
    let ran = bench.map(&network("plain2d.traced.pt"), &[bench.picture("p.png")], "--size 3,9,9");
    ran.failed(1, &["p.png", "depth of 3 for a 2D network"]);
}

#[cfg(unix)]
#[test]
fn names_of_all_kinds() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    let model = network("plain2d.traced.pt");
    bench.picture("photo.png");
    std::os::unix::fs::symlink("photo.png", bench.at("link.png")).unwrap();
    std::os::unix::fs::symlink("nothing.png", bench.at("dangling.png")).unwrap();
    std::fs::copy(bench.at("photo.png"), bench.at("SCAN.V1.PNG")).unwrap();
    let inputs = ["link.png", "SCAN.V1.PNG", "dangling.png"].map(|name| bench.at(name));
    bench.map(&model, &inputs, "").failed(1, &["dangling.png", "1 of 3"]);
    assert_eq!(bench.npy("features/link.npy"), bench.npy("features/SCAN.V1.npy"));

    // run.json could not name it.
    let name = bench.at(std::ffi::OsStr::from_bytes(b"bad\xff.png"));
    std::fs::copy(bench.at("photo.png"), &name).unwrap();
    bench.map(&model, &[bench.at("photo.png"), name], "").failed(2, &["not UTF-8"]);

    let out = bench.at("ö ü/a b");
    let mut command = program();
    command.arg("map").arg(&model).arg(bench.at("photo.png")).arg("-o").arg(&out);
    super::run::Ran::of(&mut command).succeeded();
    assert!(out.join("features/photo.png").is_file() && out.join("run.json").is_file());
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let bench = Bench::new();
    let (model, input) = (network("resnet18.traced.pt"), network("resnet18.input.npy"));
    let layers = ["layers", model.to_str().unwrap(), "--shape", "1,3,64,64"];
    let out = bench.at("maps");
    let map =
        ["map", model.to_str().unwrap(), input.to_str().unwrap(), "-o", out.to_str().unwrap()];
    for arguments in [&layers[..], &map[..]] {
        let mut command = program();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(child.wait().unwrap().success() && stderr.is_empty(), "{stderr}");
    }
}

#[test]
fn a_second_run_replaces_the_first() {
    let bench = Bench::new();
    let model = network("plain2d.traced.pt");
    let input = [bench.picture("p.png")];
    bench.map(&model, &input, "--label 0").succeeded();
    let first = bench.npy("features/p.npy");
    bench.map(&model, &input, "--label 3").succeeded();
    assert_ne!(first, bench.npy("features/p.npy"));
    assert_eq!(bench.report()["options"]["label"][0], "3");
    let left: Vec<_> = walk(&bench.at("maps"));
    assert_eq!(left.len(), 3, "{left:?}");
}

/// The files in a folder, those of its folders too.
pub fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
