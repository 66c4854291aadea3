//! `medcam merge`: the tables of a cohort, from its journals.

use std::path::Path;
use std::process::ExitCode;

use super::args::MergeArguments;
use super::interrupt::on_interrupt;
use super::terminal::{complain, print};
use crate::cohort::{Records, output_file};
use crate::error::Result;
use crate::outputs::CaseTables;
use crate::record::{OutputFile, Status};

pub fn run(arguments: &MergeArguments) -> Result<ExitCode> {
    on_interrupt(None, |_, name| complain(format!("interrupted by {name}")))?;
    let is_whole = write_tables(&arguments.folder, arguments.verify)?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the tables of a folder's cohort, prints their paths, and says how its cases ended. Returns whether all
/// of them have their maps.
/// With `verify`, files are read again.
pub fn write_tables(folder: &Path, verify: bool) -> Result<bool> {
    let records = Records::of(folder)?;
    let metrics: Vec<_> = records.metrics().map(str::to_owned).collect();
    let mut tables = CaseTables::create(folder, &metrics)?;
    let (mut done, mut failed, mut suspect, mut lost) = (0, 0, 0, 0);
    let is_there = |output: &OutputFile| {
        output.is_in(folder)
            && (!verify
                || output_file(folder, &folder.join(&output.file)).is_ok_and(|now| now == *output))
    };
    for record in records.iter() {
        let record = record?;
        match record.status {
            Status::Done => match record.outputs.iter().find(|output| !is_there(output)) {
                Some(output) => {
                    lost += 1;
                    complain(format!(
                        "{}: {} is gone or changed",
                        record.id,
                        output.file.display()
                    ));
                }
                None => done += 1,
            },
            Status::Failed => failed += 1,
            Status::Suspect => suspect += 1,
        }
        tables.add(&record)?;
    }
    for file in tables.finish()? {
        print(file.display())?;
    }
    let all = records.plan().cases;
    let not_ended = all.saturating_sub(records.len());
    let lost = match lost {
        0 => String::new(),
        _ => format!(", {lost} done whose files are gone or changed"),
    };
    complain(format!(
        "{all} case(s): {done} done, {failed} failed, {suspect} suspect, {not_ended} not run{lost}"
    ));
    for part in records.parts_without_journal() {
        complain(format!("{part}: no journal"));
    }
    Ok(done == all)
}
