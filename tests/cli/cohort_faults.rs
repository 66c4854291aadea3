//! `medcam cohort` killed, interrupted, on a full disk, and fed with what is broken: nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ndarray::ArrayD;

use super::cohort::{cohort, ended, images, maps, run, statuses, table, wait_for};
use super::run::Workspace;

fn exited(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

#[test]
fn a_killed_run_goes_on_and_ends_with_the_same_bytes() {
    let workspace = Workspace::new();
    let (whole, killed) = (workspace.at("whole"), workspace.at("killed"));
    let scans = images(&workspace, 80);
    run(&[&scans], &whole, "").succeeded();
    let lines =
        || fs::read_to_string(killed.join("journal.jsonl")).map_or(0, |t| t.lines().count());
    let mut kills = 0;
    for round in 0..20_u64 {
        let before = lines();
        let mut child = cohort(&[&scans], &killed, "--resume")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // One in five is killed while it starts, the others in the midst of their work.
        let is_at_work = |child: &mut Child| lines() > before + 2 || exited(child);
        if round % 5 > 0 {
            wait_for(|| is_at_work(&mut child));
        }
        std::thread::sleep(Duration::from_millis(round * 37 % 61));
        kills += usize::from(!exited(&mut child));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 10, "{kills}");
    // Some cases were in flight at two deaths: set aside first, and then tried again.
    run(&[&scans], &killed, "--resume");
    let ran = run(&[&scans], &killed, "--resume --retry-failed").succeeded();
    assert!(ran.stderr.contains("80 done, 0 failed, 0 suspect, 0 not run"), "{}", ran.stderr);
    assert!(maps(&whole) == maps(&killed));
    assert_eq!(maps(&whole).len(), 80 * 3);
    let statuses = statuses(&killed);
    assert_eq!(statuses.len(), 80);
    assert!(statuses.values().all(|status| status == "done"), "{statuses:?}");
    assert_eq!(table(&whole), table(&killed));
}

#[test]
fn a_journal_cut_in_a_line_goes_on() {
    let workspace = Workspace::new();
    let (scans, maps_folder) = (images(&workspace, 4), workspace.at("maps"));
    run(&[&scans], &maps_folder, "").succeeded();
    let (journal, expected) = (maps_folder.join("journal.jsonl"), maps(&maps_folder));
    let text = fs::read(&journal).unwrap();
    for cut in [30, text.len() - 1, text.len() - 200] {
        fs::write(&journal, &text[..cut]).unwrap();
        run(&[&scans], &maps_folder, "--resume").succeeded();
        assert!(maps(&maps_folder) == expected);
        assert_eq!(statuses(&maps_folder).len(), 4);
    }
}

#[test]
fn each_broken_case_has_its_error_and_the_others_their_maps() {
    let workspace = Workspace::new();
    let (scans, folder) = (images(&workspace, 6), workspace.at("maps"));
    let whole = fs::read(workspace.volume("whole.nii.gz")).unwrap();
    fs::write(scans.join("truncated.nii.gz"), &whole[..whole.len() / 2]).unwrap();
    let mut nan = ArrayD::zeros(vec![1, 3, 120, 150]);
    nan[[0, 1, 2, 3]] = f32::NAN;
    workspace.array("scans/nan.npy", &nan);
    workspace.array("scans/channels.npy", &ArrayD::ones(vec![1, 5, 120, 150]));
    fs::write(scans.join("empty.png"), "").unwrap();
    // A folder is where the map of the second image goes.
    fs::create_dir_all(folder.join("features.5/x01.npy/blocked")).unwrap();
    let ran = run(&[&scans], &folder, "").failed(1, &["5 of 10 case(s) failed"]);
    let reasons: BTreeMap<_, _> = ended(&folder)
        .into_iter()
        .filter(|line| line["status"] == "failed")
        .map(|line| (line["id"].as_str().unwrap().to_owned(), line["reason"].to_string()))
        .collect();
    for (id, words) in [
        ("truncated", "truncated.nii.gz"),
        ("nan", "not finite"),
        ("channels", "has 5 channel(s)"),
        ("empty", "empty.png"),
        ("x01", "features.5/x01.npy"),
    ] {
        assert!(reasons[id].contains(words), "{id}: {reasons:?}");
        assert!(ran.stderr.contains(&format!("error: {id}: ")), "{}", ran.stderr);
    }
    assert_eq!(reasons.len(), 5);
    assert_eq!(statuses(&folder).values().filter(|status| *status == "done").count(), 5);

    // Nothing is done again, unless asked for: what is repaired has its maps then.
    fs::remove_dir_all(folder.join("features.5/x01.npy")).unwrap();
    let lines = ended(&folder).len();
    run(&[&scans], &folder, "--resume").failed(1, &["5 of 10 case(s) failed"]);
    assert_eq!(ended(&folder).len(), lines);
    run(&[&scans], &folder, "--resume --retry-failed").failed(1, &["4 of 10 case(s) failed"]);
    assert_eq!(statuses(&folder)["x01"], "done");
}

#[test]
#[expect(clippy::print_stderr, reason = "a skip says why")]
fn a_full_disk_stops_the_run_and_loses_nothing() {
    let workspace = Workspace::new();
    let (scans, folder) = (images(&workspace, 30), workspace.at("maps"));
    fs::create_dir_all(&folder).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "none"]).arg(&folder);
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !mount("size=3m") {
        eprintln!("skipped: this user cannot mount a small tmpfs to fill");
        return;
    }
    let stopped = run(&[&scans], &folder, "");
    let done = statuses(&folder);
    // No case is blamed, however often it is tried.
    for _ in 0..3 {
        run(&[&scans], &folder, "--resume");
    }
    assert!(mount("remount,size=100m"));
    let ran = run(&[&scans], &folder, "--resume");
    let (all, found) = (statuses(&folder), maps(&folder));
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());
    stopped.failed(1, &["o space left on device", "go on with --resume"]);
    assert!(!done.is_empty() && done.len() < 30, "{done:?}");
    assert!(done.values().all(|status| status == "done"), "{done:?}");
    ran.succeeded();
    assert_eq!((all.len(), found.len()), (30, 90));
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let workspace = Workspace::new();
    let scans = images(&workspace, 2);
    fs::write(workspace.at("file"), "").unwrap();
    run(&[&scans], &workspace.at("file/maps"), "").failed(1, &["file/maps"]);
}

#[test]
fn signals_finish_what_is_begun_or_stop_at_once() {
    let workspace = Workspace::new();
    let scans = images(&workspace, 60);
    for (second, number) in [(None, 15), (Some("INT"), 2)] {
        let folder = workspace.at(format!("maps{number}"));
        let mut child = cohort(&[&scans], &folder, "").stderr(Stdio::piped()).spawn().unwrap();
        wait_for(|| folder.join("journal.jsonl").exists() && !ended(&folder).is_empty());
        let signal = |name: &str| {
            Command::new("kill")
                .args([&format!("-{name}"), &child.id().to_string()])
                .status()
                .unwrap();
        };
        signal("TERM");
        if let Some(second) = second {
            std::thread::sleep(Duration::from_millis(2));
            signal(second);
        }
        let status = child.wait().unwrap();
        let text = fs::read_to_string(folder.join("journal.jsonl")).unwrap();
        let count = |kind: &str| text.matches(&format!(r#"{{"line":"{kind}""#)).count();
        match status.signal() {
            // Whatever was begun has ended, or was stopped by nobody's fault. Signals that wait together
            // arrive in the order of their numbers, so either may be the second.
            Some(2 | 15) if second.is_some() && count("stopped") > 0 => {}
            Some(15) => assert_eq!(count("begun"), count("ended"), "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(second.is_some() || status.signal() == Some(number));
        assert!(count("ended") < 60);
        // No case counts as one that killed the process.
        let ran = run(&[&scans], &folder, "--resume").succeeded();
        assert!(ran.stderr.contains("60 done, 0 failed, 0 suspect"), "{}", ran.stderr);
    }
}
