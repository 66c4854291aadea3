//! `medcam cohort` as a process: divided into parts, on two devices, from a manifest, as a worker.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ndarray::ArrayD;
use serde_json::{Value, json};

use super::run::{ProcessOutput, Workspace, network, program};

pub const LAYERS: &str = "features.0,features.5,features.10";

/// Images whose maps take a while to write.
pub fn images(workspace: &Workspace, count: usize) -> PathBuf {
    let folder = workspace.at("scans");
    fs::create_dir_all(&folder).unwrap();
    for i in 0..count {
        let values = ArrayD::from_shape_fn(vec![1, 3, 120, 150], |at| {
            ((at[1] * 3 + at[2] * (i + 3) + at[3] * 7) % 23) as f32
        });
        workspace.array(&format!("scans/x{i:02}.npy"), &values);
    }
    folder
}

pub fn cohort(sources: &[&Path], output: &Path, options: &str) -> Command {
    let mut command = program();
    command.arg("cohort").arg(network("plain2d.traced.pt")).args(sources).arg("-o").arg(output);
    command.args(["--layer", LAYERS, "--device", "cpu"]).args(options.split_whitespace());
    command
}

pub fn run(sources: &[&Path], output: &Path, options: &str) -> ProcessOutput {
    ProcessOutput::of(&mut cohort(sources, output, options))
}

/// The content of all maps below a folder, by their paths from it.
pub fn maps(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for layer in fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for file in fs::read_dir(layer.path()).unwrap().flatten() {
            let name = file.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read(file.path()).unwrap());
        }
    }
    found
}

/// The ended cases of all journals in a folder, in the order in which they ended.
pub fn ended(folder: &Path) -> Vec<Value> {
    let mut journals: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    journals.sort();
    let texts = journals.iter().map(|path| fs::read_to_string(path).unwrap());
    let lines: Vec<Value> = texts
        .flat_map(|text| {
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()
        })
        .collect();
    lines.into_iter().filter(|line| line["line"] == "ended").collect()
}

/// The last status of each case.
pub fn statuses(folder: &Path) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    ended(folder).iter().map(|line| (text(&line["id"]), text(&line["status"]))).collect()
}

/// `cases.csv` without its timings, sorted.
pub fn table(folder: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(folder.join("cases.csv")).unwrap();
    let columns = reader.headers().unwrap().clone();
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let is_time = |name: &str| name.ends_with("_s");
        columns
            .iter()
            .zip(&row)
            .filter(|(name, _)| !is_time(name))
            .map(|(_, v)| v.to_owned())
            .collect()
    });
    rows.collect()
}

pub fn wait_for(mut what: impl FnMut() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(120), "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The journal's last line is cut at any byte by a loss of power: the next run goes on before it.
#[test]
fn two_runs_into_one_folder_refuse_each_other() {
    let workspace = Workspace::new();
    let (scans, folder) = (images(&workspace, 60), workspace.at("maps"));
    let mut first = cohort(&[&scans], &folder, "").stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| folder.join("journal.jsonl").exists());
    run(&[&scans], &folder, "--resume").failed(75, &["another run writes into this folder"]);
    assert!(first.wait().unwrap().success());
    run(&[&scans], &folder, "").failed(2, &["has begun already", "--resume"]);
    run(&[&scans], &folder, "--resume --backend gcampp").failed(2, &[r#"backend: "gcam", now"#]);
    let other = network("plain2d.scripted.pt");
    let mut command = program();
    command.arg("cohort").arg(other).arg(&scans).arg("-o").arg(&folder);
    command.args(["--layer", LAYERS, "--device", "cpu", "--resume"]);
    ProcessOutput::of(&mut command).failed(2, &["model_sha256"]);
}

#[test]
fn parts_are_the_whole() {
    let workspace = Workspace::new();
    let (scans, whole, parts) =
        (images(&workspace, 7), workspace.at("whole"), workspace.at("parts"));
    run(&[&scans], &whole, "").succeeded();
    run(&[&scans], &parts, "--num-parts 2 --part-id 0").succeeded();
    run(&[&scans], &parts, "--num-parts 2 --part-id 1 --backend gcampp")
        .failed(2, &[r#"backend: "gcam", now "gcampp""#]);
    let merge = || ProcessOutput::of(program().arg("merge").arg(&parts));
    merge().failed(1, &["4 done, 0 failed, 0 suspect, 3 not run", "part 1 of 2: no journal"]);
    // As in an array of two tasks.
    let mut second = cohort(&[&scans], &parts, "--resume");
    for (name, value) in [("ID", "2"), ("COUNT", "2"), ("MIN", "1"), ("MAX", "2"), ("STEP", "1")] {
        second.env(format!("SLURM_ARRAY_TASK_{name}"), value);
    }
    ProcessOutput::of(&mut second).succeeded();
    let merged = merge().succeeded();
    assert!(merged.stderr.contains("7 done"), "{}", merged.stderr);
    assert!(maps(&whole) == maps(&parts));
    assert_eq!(ended(&parts).len(), 7);
    let lost = parts.join("features.5/x03.npy");
    let bytes = fs::read(&lost).unwrap();
    fs::write(&lost, &bytes[1..]).unwrap();
    merge().failed(1, &["6 done", "1 done whose files are gone or changed"]);
    let [first, rest @ ..] = &bytes[..] else { panic!() };
    fs::write(&lost, [&[!first], rest].concat()).unwrap();
    merge().succeeded();
    let verify = || ProcessOutput::of(program().arg("merge").arg(&parts).arg("--verify"));
    verify().failed(1, &["x03: features.5/x03.npy is gone or changed"]);
    fs::write(&lost, &bytes).unwrap();
    verify().succeeded();
    assert_eq!(table(&whole), table(&parts));
    run(&[&scans], &parts, "--num-parts 3 --part-id 0 --resume")
        .failed(2, &["was run in 2 parts, and would now be run in 3 parts"]);
    run(&[&scans], &parts, "--resume").failed(2, &["as a whole"]);
}

/// Two models at once give what one gives.
#[test]
fn two_devices_share_the_cases() {
    let workspace = Workspace::new();
    let (scans, one, two) = (images(&workspace, 9), workspace.at("one"), workspace.at("two"));
    run(&[&scans], &one, "").succeeded();
    let mut command = program();
    command.arg("cohort").arg(network("plain2d.traced.pt")).arg(&scans).arg("-o").arg(&two);
    command.args(["--layer", LAYERS, "--device", "cpu,cpu", "--profile"]);
    let ran = ProcessOutput::of(&mut command).succeeded();
    assert!(maps(&one) == maps(&two));
    assert!(ran.stderr.contains("infer        2      9"), "{}", ran.stderr);
    let profile = fs::read_to_string(two.join("profile.json")).unwrap();
    let events: Vec<Value> = serde_json::from_str(&profile).unwrap();
    for name in ["read", "infer", "write"] {
        let begins = |event: &&Value| event["name"] == name && event["ph"] == "B";
        assert_eq!(events.iter().filter(begins).count(), 9, "{name}");
    }
}

#[test]
fn a_manifest_says_what_is_explained_and_scored() {
    let workspace = Workspace::new();
    let (scans, folder) = (images(&workspace, 3), workspace.at("maps"));
    let mask = ArrayD::from_shape_fn(vec![120, 150], |at| f32::from(u8::from(at[0] < 60)));
    workspace.array("scans/mask.npy", &mask);
    let manifest = scans.join("cases.csv");
    fs::write(
        &manifest,
        "id,image,mask,label\none,x00.npy,mask.npy,1\ntwo,x01.npy,,\"0,2\"\nthree,x02.npy,,\n",
    )
    .unwrap();
    let ran = run(&[&manifest], &folder, "--metric ioa,iou --json").succeeded();
    let names: Vec<_> =
        maps(&folder).into_keys().filter(|name| name.contains("features.5/")).collect();
    let expected = ["one.npy", "three.npy", "two_class0.npy", "two_class2.npy"]
        .map(|n| format!("features.5/{n}"));
    assert_eq!(names, expected);
    let lines: Vec<Value> =
        ran.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let one = lines.iter().find(|line| line["id"] == "one").unwrap();
    assert!(one["done"]["scores"][0]["scores"]["iou"].is_number(), "{one}");
    assert_eq!(lines.len(), 3);
    fs::write(&manifest, "id,image\n../up,x00.npy\n").unwrap();
    run(&[&manifest], &workspace.at("other"), "").failed(1, &["cannot be part of a path"]);
}

#[test]
fn a_worker_answers_each_line() {
    let workspace = Workspace::new();
    let (scans, folder) = (images(&workspace, 2), workspace.at("maps"));
    let mut child = cohort(&[], &folder, "--worker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answer = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    writeln!(stdin).unwrap();
    stdin.write_all(b"\xff\n").unwrap();
    let mut ask = |line: String| writeln!(stdin, "{line}").unwrap();
    let hello = answer();
    assert_eq!((&hello["line"], &hello["medcam"]), (&json!("run"), &json!(medcam::VERSION)));
    assert_eq!(answer()["status"], "failed", "not UTF-8");
    let task = json!({"id": "a", "image": scans.join("x00.npy"), "label": "0,1"}).to_string();
    ask(task.clone());
    let first = answer();
    assert_eq!((&first["id"], &first["status"]), (&json!("a"), &json!("done")), "{first}");
    assert_eq!(first["outputs"].as_array().unwrap().len(), 6);
    // Once more: the recorded answer.
    ask(task);
    assert_eq!(answer(), first);
    for (line, id, words) in [
        (json!({"id": "../a", "image": "x"}).to_string(), "../a", "cannot be part of a path"),
        (json!({"id": "b", "image": scans.join("none.npy")}).to_string(), "b", "none.npy"),
        (json!({"id": "c", "image": "x", "label": "first"}).to_string(), "c", "first"),
        (
            json!({"id": "d", "image": folder.join("features.5/a_class0.npy")}).to_string(),
            "d",
            "outputs",
        ),
        ("{".to_owned(), "", "no case"),
        (json!({"id": "e"}).to_string(), "", "no case"),
        (json!({"id": "a", "image": scans.join("x01.npy")}).to_string(), "a", "given before"),
        (
            json!({"id": "a_class1", "image": scans.join("x01.npy")}).to_string(),
            "a_class1",
            "same name",
        ),
    ] {
        ask(line);
        let answer = answer();
        assert_eq!((&answer["id"], &answer["status"]), (&json!(id), &json!("failed")), "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains(words), "{answer}");
    }
    ask(json!({"id": "f", "image": scans.join("x01.npy"), "label": "1"}).to_string());
    drop(stdin);
    assert_eq!(answer()["id"], "f");
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn outputs_are_no_inputs_and_replace_none() {
    let workspace = Workspace::new();
    let scans = images(&workspace, 3);
    // The folder of the maps lies in that of the images.
    let folder = scans.join("maps");
    for options in ["", "--resume"] {
        run(&[&scans], &folder, options).succeeded();
        assert_eq!(statuses(&folder).len(), 3);
    }
    run(&[&scans], &scans, "").failed(2, &["in the folder of the outputs"]);
    // A manifest has the name of a table.
    let manifest = scans.join("cases.csv");
    let text = "id,image,label\na,x00.npy,\"0,1\"\na_class1,x01.npy,1\n";
    fs::write(&manifest, text).unwrap();
    run(&[&manifest], &scans, "").failed(2, &["a_class1 and a could write maps of the same name"]);
    fs::write(&manifest, "id,image\na,x00.npy\n").unwrap();
    run(&[&manifest], &scans, "").failed(2, &["would replace", "cases.csv"]);
    assert_eq!(fs::read_to_string(&manifest).unwrap(), "id,image\na,x00.npy\n");
    fs::write(&manifest, "id,image,label\na,x00.npy,1\n").unwrap();
    let region = format!("--label 1 --target-mask {}", scans.join("x01.npy").display());
    run(&[&manifest], &workspace.at("maps"), &region).failed(2, &["leave the labels of cases out"]);
}
