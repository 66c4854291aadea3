//! Journals that a death cut off: nothing is lost, and nothing is done twice.

use std::fs::{self, OpenOptions};
use std::path::Path;

use medcam::cohort::{Case, Journal, output_file};
use medcam::record::{CaseRecord, JOURNAL, Plan, Status};
use proptest::prelude::*;
use serde_json::json;

fn plan(settings: &serde_json::Value) -> Plan {
    serde_json::from_value(json!({
        "medcam": "1", "libtorch": "2", "model_sha256": "aa", "device": "cpu", "threads": 2,
        "cases": 6, "cases_sha256": "bb", "settings": settings,
    }))
    .unwrap()
}

fn record(folder: &Path, id: &str, status: &str) -> CaseRecord {
    let file = folder.join("up2").join(format!("{id}.npy"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, id).unwrap();
    serde_json::from_value(json!({
        "id": id, "image": format!("{id}.png"), "status": status,
        "outputs": [output_file(folder, &file).unwrap()],
    }))
    .unwrap()
}

fn cases() -> Vec<Case> {
    (0..6).map(|n| Case::new(n.to_string(), format!("{n}.png"))).collect()
}

fn ids(cases: &[Case]) -> Vec<&str> {
    cases.iter().map(|case| case.id.as_str()).collect()
}

/// Begins all cases, of which the first four end; the last of these failed.
fn run(folder: &Path) {
    let (journal, earlier) =
        Journal::open(folder, None, &plan(&json!({"layer": "up2"})), true).unwrap();
    assert!(!earlier.is_resumed);
    for n in 0..6 {
        journal.begin(&n.to_string()).unwrap();
    }
    for n in 0..4 {
        let status = if n == 3 { "failed" } else { "done" };
        journal.end(record(folder, &n.to_string(), status)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_journal_may_end_at_any_byte(cut: prop::sample::Index) {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path());
        let path = folder.path().join(JOURNAL);
        let text = fs::read_to_string(&path).unwrap();
        let cut = cut.index(text.len());
        OpenOptions::new().write(true).open(&path).unwrap().set_len(cut as u64).unwrap();
        let whole = text[..cut].lines().count() - usize::from(!text[..cut].ends_with('\n') && cut > 0);
        let (journal, earlier) = Journal::open(folder.path(), None, &plan(&json!({"layer": "up2"})), true).unwrap();
        prop_assert_eq!(earlier.is_resumed, whole > 0);
        let left = earlier.left_of(cases(), false);
        // A line of the run, six that begin, four that end.
        prop_assert_eq!(left.ended, whole.saturating_sub(7));
        prop_assert_eq!(left.alone.len(), whole.saturating_sub(1).min(6) - left.ended);
        prop_assert_eq!(left.ended + left.alone.len() + left.cases.len(), 6);
        // What is written next begins a line of its own.
        journal.begin("5").unwrap();
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        prop_assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}

#[test]
fn a_resumed_run_has_left_what_has_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path());
    let open =
        || Journal::open(folder.path(), None, &plan(&json!({"layer": "up2"})), true).unwrap();
    let (journal, earlier) = open();
    let left = earlier.left_of(cases(), false);
    assert_eq!((left.ended, ids(&left.alone)), (4, vec!["4", "5"]));
    // A file that is gone, and one of another length.
    fs::remove_file(folder.path().join("up2/0.npy")).unwrap();
    fs::write(folder.path().join("up2/1.npy"), "longer").unwrap();
    assert_eq!(ids(&earlier.left_of(cases(), false).cases), ["0", "1"]);
    assert_eq!(ids(&earlier.left_of(cases(), true).cases), ["0", "1", "3"]);

    // The process dies during 4 once more: suspect. 5 ends.
    journal.begin("4").unwrap();
    journal.begin("5").unwrap();
    journal.end(record(folder.path(), "5", "done")).unwrap();
    drop(journal);
    let left = open().1.left_of(cases(), false);
    assert_eq!((ids(&left.suspects), left.alone.len(), left.ended), (vec!["4"], 0, 3));
    // Also where failed cases are tried again: what kills each run must not keep others from being run.
    assert_eq!(ids(&open().1.left_of(cases(), true).suspects), ["4"]);

    // It is written down as such, and stays so until it is tried again, alone.
    let mut suspect = record(folder.path(), "4", "failed");
    suspect.status = Status::Suspect;
    open().0.end(suspect).unwrap();
    let left = open().1.left_of(cases(), false);
    assert_eq!((left.suspects, left.alone, left.failed), (vec![], vec![], 2));
    let left = open().1.left_of(cases(), true);
    assert_eq!((ids(&left.alone), left.failed), (vec!["4"], 0));
}

/// What was in flight when a run was told to stop, or stopped by itself, has no death to its name; nor has a case
/// that waits for its turn alone.
#[test]
fn an_orderly_stop_is_no_death() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        || Journal::open(folder.path(), None, &plan(&json!({"layer": "up2"})), true).unwrap();
    for _ in 0..3 {
        let (journal, earlier) = open();
        let left = earlier.left_of(cases(), false);
        assert_eq!((left.alone, left.suspects, left.cases.len()), (vec![], vec![], 6));
        journal.begin("0").unwrap();
        journal.postpone("0").unwrap();
        journal.begin("1").unwrap();
        journal.stop("SIGTERM").unwrap();
        journal.stop("SIGTERM").unwrap();
    }
    let (journal, _) = open();
    journal.begin("2").unwrap();
    drop(journal);
    assert_eq!(ids(&open().1.left_of(cases(), false).alone), ["2"]);
    // A run that may not go on with it changes nothing.
    let text = || fs::read(folder.path().join(JOURNAL)).unwrap();
    let before = text();
    let refused = Journal::open(folder.path(), None, &plan(&json!({"layer": "up2"})), false);
    assert!(refused.unwrap_err().to_string().contains("--resume"));
    assert_eq!(text(), before);
}

#[test]
fn another_run_is_refused_by_name_of_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path());
    let refused =
        |plan: &Plan| Journal::open(folder.path(), None, plan, true).unwrap_err().to_string();
    let mut other = plan(&json!({"layer": "up3", "fuse": "max"}));
    other.threads = 3;
    let said = refused(&other);
    for words in ["threads: 2, now 3", r#"layer: "up2", now "up3""#, r#"fuse: null, now "max""#] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("model_sha256"), "{said}");
    let _open = Journal::open(folder.path(), None, &plan(&json!({"layer": "up2"})), true).unwrap();
    assert!(refused(&plan(&json!({"layer": "up2"}))).contains("another run writes"));
}

#[test]
fn a_damaged_journal_is_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path());
    let path = folder.path().join(JOURNAL);
    let text = fs::read_to_string(&path).unwrap();
    let refused = || {
        let opened = Journal::open(folder.path(), None, &plan(&json!({"layer": "up2"})), true);
        opened.unwrap_err().to_string()
    };
    fs::write(&path, text.replacen(r#"{"line":"begun","id":"2"}"#, r#"{"line":"beg"#, 1)).unwrap();
    assert!(refused().contains("line 4"), "{}", refused());
    fs::write(&path, text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    assert!(refused().contains("line 1"), "{}", refused());
    fs::write(&path, [text.as_bytes(), b"\xff\n"].concat()).unwrap();
    assert!(refused().contains("damaged"), "{}", refused());
}
