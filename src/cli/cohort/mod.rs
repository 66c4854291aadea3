//! `medcam cohort`.

mod meter;
mod part;
mod plan;
mod record;
mod run;
mod worker;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use bytesize::ByteSize;

use super::args::CohortArguments;
use super::evaluate::find_masks;
use super::interrupt::{end_by_name, on_interrupt};
use super::job::{Job, utf8};
use super::merge;
use super::model::load_models;
use super::terminal::complain;
use super::tracing::Profile;
use crate::cohort::{Cancel, Case, Journal, Left, Part, StageTimes, cases_of};
use crate::error::{Error, Result};
use crate::methods::Target;
use crate::outputs::{self, CaseTables, check_distinct};
use crate::record::MemoryPrediction;
use crate::torch::Model;
use meter::Meter;
use record::Files;
use run::Run;
pub use worker::run as work;

/// Why a case with labels of its own is refused.
const LABEL_OF_REGION: &str = "--target-mask explains one region of class --label in all images; leave the \
                               labels of cases out";

pub fn run(arguments: &CohortArguments, profile: Option<Profile>) -> Result<ExitCode> {
    let options = &arguments.options;
    let job = Job::new(options)?;
    let part = part_of(arguments)?;
    let all = cases(arguments, &job)?;
    let folder_path = options.output.as_path();
    outputs::prepare_folder(folder_path)?;
    let (card, models) = load_models(&options.model)?;
    let devices: Vec<_> = models.iter().map(Model::device).collect();
    let plan = plan::of(options, part, &all, &devices)?;
    let cases = match part {
        Some(part) => part.of(all),
        None => all,
    };
    let read_files = job.read_files(&cases, &arguments.sources);
    let tables = CaseTables::FILES.map(|name| folder_path.join(name));
    read_files.check(job.known_files(&cases).into_iter().chain(tables))?;
    let (journal, earlier) = Journal::open(folder_path, part, &plan, arguments.resume)?;
    let count = cases.len();
    let to_fit = if arguments.max_memory.is_some() { cases.clone() } else { Vec::new() };
    let left = earlier.left_of(cases, arguments.retry_failed);
    // A run that has nothing to do leaves the profile of the one before.
    if let Some(profile) = profile.as_ref().filter(|_| left.ended < count) {
        profile.write_to(folder_path.join(part::profile(part)));
    }
    drop(earlier);
    say_what_is_left(part, count, &left);

    let journal = Arc::new(journal);
    let cancel = Arc::new(Cancel::default());
    let signal = on_signals(&journal, &cancel)?;
    let files = Files::of(folder_path);
    let folder = job.folder().read_files(&read_files).card(card.clone().unwrap_or_default());
    let folder = folder.on_file(|index, file| files.wrote(index, &file));
    let folder = folder.volumes_above(job.scoring.threshold);
    let mut cohort = job.cohort(models, card)?.in_order(false);
    if let Some(limit) = arguments.max_memory {
        match cohort.max_memory(&to_fit, limit.as_u64()) {
            Ok(prediction) => {
                complain(summary_of(&prediction));
                journal.predict(prediction)?;
            }
            // Each case will say what is wrong with it.
            Err(error) if error.is_input() => complain(&error),
            Err(error) => return Err(error),
        }
    }
    let meter = Meter::new(count, left.ended, left.failed);
    let failed = left.failed;
    let mut run = Run::new(&files, &journal, &cancel, meter, arguments.json);
    let ended = run.all(cohort, &folder, left);
    run.meter.finish();
    let Run { warnings, times, .. } = run;
    let failed = failed + run.failed;
    if arguments.profile {
        print_times(&times);
    }
    if ended.is_err() {
        // What is in flight is not to blame. If even this cannot be written, the first error says more.
        let _ = journal.stop("error");
    }
    ended?;
    for (code, cases) in &warnings {
        complain(format!("warning[{code}]: in {cases} case(s); the journal has the words"));
    }
    if let Some(signal) = signal.get() {
        complain(format!("interrupted by {signal}; --resume goes on"));
        drop(profile);
        end_by_name(signal);
    }
    if part.is_none() {
        merge::write_tables(folder_path, false)?;
    }
    if failed > 0 {
        complain(format!(
            "error: {failed} of {count} case(s) failed; the journal says why, and --resume --retry-failed tries \
             them again"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what will be run.
fn say_what_is_left(part: Option<Part>, all: usize, left: &Left) {
    let part = part.map_or_else(String::new, |part| format!("{part}: "));
    let before = match left.ended {
        0 => String::new(),
        ended => format!(", {ended} of them ended before"),
    };
    complain(format!("{part}{all} case(s){before}"));
}

/// One line of a prediction.
fn summary_of(prediction: &MemoryPrediction) -> String {
    let MemoryPrediction { peak_bytes, limit_bytes, in_flight, too_large, .. } = prediction;
    let fail = match too_large {
        0 => String::new(),
        count => format!("; {count} case(s) are too large, and fail"),
    };
    let [peak, limit] = [peak_bytes, limit_bytes].map(|&bytes| ByteSize(bytes));
    format!("memory: about {peak} of {limit}, with {in_flight} case(s) in flight{fail}")
}

/// The first signal finishes what is begun, the second stops at once. Gives the name of the first.
fn on_signals(journal: &Arc<Journal>, cancel: &Arc<Cancel>) -> Result<Arc<OnceLock<String>>> {
    let signal = Arc::new(OnceLock::new());
    let (asked, cancel) = (signal.clone(), cancel.clone());
    let [first, last] = [journal.clone(), journal.clone()];
    let ask = move |name: &str| {
        let _ = asked.set(name.to_owned());
        cancel.cancel();
        // Noted now: where the grace is short, the process is killed before it has finished.
        let _ = first.stop(name);
        complain(format!("{name}: what is begun will be finished; once more to stop at once"));
    };
    on_interrupt(Some(Box::new(ask)), move |_, name| {
        let note = match last.stop(name) {
            Ok(()) => String::new(),
            Err(error) => format!("; {error}"),
        };
        complain(format!("interrupted by {name}; --resume goes on{note}"));
    })?;
    Ok(signal)
}

/// The part that this process runs; `None` for everything.
pub fn part_of(arguments: &CohortArguments) -> Result<Option<Part>> {
    part::of(arguments.num_parts, arguments.part_id, |name| std::env::var(name).ok())
}

/// All cases of the sources, whose files have different names.
pub fn cases(arguments: &CohortArguments, job: &Job<'_>) -> Result<Vec<Case>> {
    let options = &arguments.options;
    let mut cases = cases_of(&arguments.sources, Some(&options.output))?;
    find_masks(&mut cases, options.mask.as_deref())?;
    for case in &cases {
        utf8(&case.image)?;
        case.mask.as_deref().map(utf8).transpose()?;
    }
    if arguments.max_memory.is_some_and(|limit| limit.as_u64() < 1 << 20) {
        return Err(Error::usage("--max-memory: less than 1 MiB; give a unit, as in 8GiB"));
    }
    let scores = options.metric != ["wioa"] || options.mask_values != "detect";
    if scores && cases.iter().all(|case| case.mask.is_none()) {
        return Err(Error::usage(
            "--metric and --mask-values score maps against masks, and no case has one: give --mask, or a column \
             mask in a manifest",
        ));
    }
    let names = cases.iter().map(|case| (case.id.as_str(), case.image.as_path()));
    check_distinct(names, options.picture)?;
    if options.target_mask.is_some() && cases.iter().any(|case| case.targets.is_some()) {
        return Err(Error::usage(LABEL_OF_REGION));
    }
    check_targets(cases.iter(), &job.settings.targets)?;
    Ok(cases)
}

/// Refuses a case that is called as a file of another: `scan_class1` beside `scan` with several targets.
fn check_targets<'a>(
    cases: impl Iterator<Item = &'a Case> + Clone,
    default: &[Target],
) -> Result<()> {
    let targets = |case: &'_ Case| case.targets.clone().unwrap_or_else(|| default.to_vec());
    let of_several: HashMap<_, _> = cases
        .clone()
        .map(|case| (case.id.as_str(), targets(case)))
        .filter(|(_, targets)| !Target::is_single(targets))
        .collect();
    let single = cases.filter(|case| Target::is_single(&targets(case)));
    for case in single {
        let Some((other, rest)) = case.id.rsplit_once('_') else { continue };
        let Some(targets) = of_several.get(other) else { continue };
        let may_be = |target: &Target| {
            let label = target.label();
            rest == label || rest.starts_with("class") || rest.starts_with("component")
        };
        if targets.iter().any(may_be) {
            return Err(Error::usage(format!(
                "{} and {other} could write maps of the same name, as {other} has a map of each of its targets; \
                 give one another id",
                case.id
            )));
        }
    }
    Ok(())
}

/// Prints what the stages of a run did.
fn print_times(times: &StageTimes) {
    complain("stage  threads  cases  busy_s  waiting_s  s_per_case");
    for (name, stage) in [("read", times.read), ("infer", times.infer), ("write", times.write)] {
        let (busy, waiting) = (stage.busy.as_secs_f64(), stage.waiting.as_secs_f64());
        let each = busy / (stage.cases.max(1) as f64);
        let (threads, cases) = (stage.threads, stage.cases);
        complain(format!(
            "{name:<5}  {threads:>7}  {cases:>5}  {busy:>6.1}  {waiting:>9.1}  {each:>10.3}"
        ));
    }
}
