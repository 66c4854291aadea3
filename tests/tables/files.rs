//! Reads the tables of a cohort back: all three say the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use calamine::{Data, Reader, Xlsx, open_workbook};
use medcam::outputs::CaseTables;
use medcam::record::CaseRecord;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};

const METRICS: [&str; 2] = ["wioa", "iou"];

const HEAD: &str = "id,image,status,reason,target,layer,sample,class,class_name,threshold,\
                    share_above,volume_ml_above,wioa,iou,warnings,read_s,discovery_s,inference_s,\
                    maps_s,write_s";

fn record(value: Value) -> CaseRecord {
    serde_json::from_value(value).unwrap()
}

fn volume(target: &str, layer: &str, sample: usize, share: f64) -> Value {
    json!({
        "layer": layer, "target": target, "sample": sample, "class": 2, "threshold": 0.5,
        "share": share, "volume_ml": share * 8.0,
    })
}

fn scores(target: &str, layer: &str, sample: usize, scores: &Value) -> Value {
    json!({
        "layer": layer, "target": target, "sample": sample, "class": 2, "name": "x", "scores": scores,
    })
}

/// `more` goes into the part of a case that is done.
fn done(id: &str, more: Value) -> CaseRecord {
    let mut done = json!({
        "explained": [{"target": "best", "classes": [{"index": 2, "name": "liver"}]}],
        "warnings": [],
        "seconds": {"read": 0.5, "discovery": 0.0, "inference": 1.0, "maps": 0.25, "write": 2.0},
    });
    let Value::Object(more) = more else { panic!("{more}") };
    done.as_object_mut().unwrap().extend(more);
    record(json!({
        "id": id, "image": format!("scans/{id}.nii.gz"), "status": "done", "outputs": [], "done": done,
    }))
}

/// A cohort with what can happen.
fn cohort() -> Vec<CaseRecord> {
    let warning = |code: &str, layer: &str, sample: Value| json!({"code": code, "layer": layer, "sample": sample, "message": "..."});
    vec![
        done(
            "0001",
            json!({
                "volumes": [volume("best", "up1", 0, 0.25), volume("best", "up2", 0, 0.5)],
                // In another order, and one without its volume.
                "scores": [
                    scores("best", "up3", 0, &json!({"wioa": 1.0, "iou": 0.125})),
                    scores("best", "up2", 0, &json!({"wioa": null, "iou": 0.0, "other": 3.0})),
                    scores("best", "up1", 0, &json!({"iou": 0.75})),
                ],
                "warnings": [
                    warning("HEADER_REPAIRED", "", json!(null)),
                    warning("HEADER_REPAIRED", "", json!(null)),
                    warning("ZERO_MAP", "up2", json!(0)),
                    warning("NO_IMAGE", "elsewhere", json!(null)),
                ],
            }),
        ),
        record(json!({
            "id": "=1+1", "image": "a,b\n\"c\" <&> ä\u{1}.nii", "status": "failed",
            "reason": "@SUM(A1): the file is empty", "outputs": [],
        })),
        record(json!({"id": "x_x0041_", "image": " x", "status": "suspect", "outputs": []})),
        done(
            "0002",
            json!({
                "explained": [
                    {"target": "class2", "classes": [{"index": 2, "name": null}, null]},
                    {"target": "component1", "classes": []},
                ],
                "warnings": [warning("ZERO_MAP", "up1", json!(1))],
            }),
        ),
        done(
            "0003",
            json!({
                "explained": [
                    {"target": "class2", "classes": [{"index": 2, "name": "liver"}, {"index": 2, "name": "liver"}]},
                    {"target": "class7", "classes": [{"index": 7, "name": "heart"}, {"index": 7, "name": "heart"}]},
                ],
                "volumes": [volume("class2", "up1", 0, 0.1), volume("class2", "up1", 1, 1e-7)],
            }),
        ),
        done("0004", json!({"explained": []})),
    ]
}

fn write(folder: &Path, records: &[CaseRecord]) -> Vec<PathBuf> {
    let mut tables = CaseTables::create(folder, &METRICS.map(str::to_owned)).unwrap();
    records.iter().for_each(|record| tables.add(record).unwrap());
    tables.finish().unwrap()
}

fn of_csv(file: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(file).unwrap();
    let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
    rows.collect()
}

/// Each cell as it is in the CSV file.
fn of_xlsx(file: &Path) -> Vec<Vec<String>> {
    let mut workbook: Xlsx<_> = open_workbook(file).unwrap();
    assert_eq!(workbook.sheet_names(), ["Cases"]);
    let range = workbook.worksheet_range("Cases").unwrap();
    let text = |cell: &Data| match cell {
        Data::Empty => String::new(),
        Data::String(text) => text.clone(),
        Data::Float(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    range.rows().map(|row| row.iter().map(text).collect()).collect()
}

fn of_parquet(file: &Path) -> Vec<Vec<String>> {
    let reader = SerializedFileReader::new(File::open(file).unwrap()).unwrap();
    let schema = reader.metadata().file_metadata().schema();
    let names = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let text = |field: &Field| match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Long(count) => count.to_string(),
        Field::Double(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        row.get_column_iter().map(|(_, field)| text(field)).collect()
    });
    std::iter::once(names).chain(rows).collect()
}

#[test]
fn a_cohort_is_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made/for it");
    let files = write(&folder, &cohort());
    assert_eq!(files, CaseTables::FILES.map(|name| folder.join(name)));
    let rows = of_csv(&files[1]);
    assert_eq!(rows, of_parquet(&files[2]));
    assert_eq!(rows, of_xlsx(&files[0]));

    assert_eq!(rows[0].join(","), HEAD);
    let found: Vec<String> = rows[1..].iter().map(|row| row[2..].join(",")).collect();
    let seconds = "0.5,0,1,0.25,2";
    let expected = [
        format!("done,,best,up1,0,2,liver,0.5,0.25,2,,0.75,HEADER_REPAIRED;NO_IMAGE,{seconds}"),
        format!(
            "done,,best,up2,0,2,liver,0.5,0.5,4,NaN,0,HEADER_REPAIRED;ZERO_MAP;NO_IMAGE,{seconds}"
        ),
        format!("done,,best,up3,0,2,liver,,,,1,0.125,HEADER_REPAIRED;NO_IMAGE,{seconds}"),
        "failed,@SUM(A1): the file is empty,,,,,,,,,,,,,,,,".to_owned(),
        "suspect,,,,,,,,,,,,,,,,,".to_owned(),
        format!("done,,class2,,0,2,,,,,,,,{seconds}"),
        format!("done,,class2,,1,,,,,,,,ZERO_MAP,{seconds}"),
        format!("done,,component1,,,,,,,,,,ZERO_MAP,{seconds}"),
        format!("done,,class2,up1,0,2,liver,0.5,0.1,0.8,,,,{seconds}"),
        format!("done,,class2,up1,1,2,liver,0.5,0.0000001,0.0000008,,,,{seconds}"),
        format!("done,,class7,,0,7,heart,,,,,,,{seconds}"),
        format!("done,,class7,,1,7,heart,,,,,,,{seconds}"),
        format!("done,,,,,,,,,,,,,{seconds}"),
    ];
    assert_eq!(found, expected);
    let ids: Vec<_> = [3, 4, 5].map(|row| (rows[row + 1][0].as_str(), &rows[row + 1][1])).into();
    assert_eq!(ids[0], ("=1+1", &"a,b\n\"c\" <&> ä\u{1}.nii".to_owned()));
    assert_eq!((ids[1].0, ids[1].1.as_str()), ("x_x0041_", " x"));

    // The same records at another time replace the files by the same bytes.
    let bytes = |files: &[PathBuf]| files.iter().map(|f| fs::read(f).unwrap()).collect::<Vec<_>>();
    let before = bytes(&files);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(bytes(&write(&folder, &cohort())), before);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
}

#[test]
fn nothing_is_there_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let count = || fs::read_dir(folder.path()).unwrap().count();
    let mut tables = CaseTables::create(folder.path(), &[]).unwrap();
    cohort().iter().for_each(|record| tables.add(record).unwrap());
    assert!(!folder.path().join("cases.csv").exists());
    drop(tables);
    assert_eq!(count(), 0);
    // A cohort without cases has tables without rows.
    let files = CaseTables::create(folder.path(), &[]).unwrap().finish().unwrap();
    assert_eq!(of_csv(&files[1]), of_parquet(&files[2]));
    assert_eq!(of_xlsx(&files[0]), of_csv(&files[1]));
}

#[test]
fn many_rows_fill_several_groups() {
    let folder = tempfile::tempdir().unwrap();
    let cohort = cohort();
    let many: Vec<_> = cohort.iter().cycle().take(10_000).cloned().collect();
    let files = write(folder.path(), &many);
    let reader = SerializedFileReader::new(File::open(&files[2]).unwrap()).unwrap();
    assert_eq!(reader.num_row_groups(), 3);
    assert_eq!(of_csv(&files[1]), of_parquet(&files[2]));
}

#[test]
fn a_long_reason_is_cut_in_the_spreadsheet_only() {
    let folder = tempfile::tempdir().unwrap();
    let reason = "😀".repeat(20_000);
    let failed =
        json!({"id": "a", "image": "a", "status": "failed", "reason": reason, "outputs": []});
    let files = write(folder.path(), &[record(failed)]);
    let (csv, parquet) = (of_csv(&files[1]), of_parquet(&files[2]));
    assert_eq!((&csv[1][3], &parquet[1][3]), (&reason, &reason));
    assert_eq!(of_xlsx(&files[0])[1][3], format!("{}…", "😀".repeat(16_383)));
}

#[test]
fn what_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let create = |metrics: &[&str]| {
        let metrics: Vec<_> = metrics.iter().map(|&name| name.to_owned()).collect();
        CaseTables::create(folder.path().join("new"), &metrics).unwrap_err()
    };
    for metrics in [&["iou", "iou"], &["iou", "id"]] {
        let error = create(metrics);
        assert!(error.is_input() && error.to_string().contains(metrics[1]), "{error}");
    }
    assert!(!folder.path().join("new").exists());

    // A folder has the file's name.
    fs::create_dir(folder.path().join("cases.csv")).unwrap();
    let tables = CaseTables::create(folder.path(), &[]).unwrap();
    let error = tables.finish().unwrap_err();
    assert!(error.is_file() && error.to_string().contains("cases.csv: cannot write"), "{error}");
}
