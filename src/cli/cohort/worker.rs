//! `medcam cohort --worker`: cases come as lines on stdin, and go as lines of a journal on stdout. The journal is
//! kept by whoever drives the workers.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde::Deserialize;

use super::record::Files;
use super::{check_targets, plan};
use crate::cli::args::CohortArguments;
use crate::cli::interrupt::{end_by_name, on_interrupt};
use crate::cli::job::Job;
use crate::cli::model::load_models;
use crate::cli::terminal::{complain, print};
use crate::cohort::{Cancel, Case, Finished};
use crate::error::{Error, Result};
use crate::methods::Target;
use crate::outputs::{self, Names};
use crate::record::{CaseRecord, Line, Status};
use crate::torch::Model;

/// How often a worker without work looks whether a signal has asked it to end.
const LOOK: Duration = Duration::from_millis(100);

pub fn run(arguments: &CohortArguments) -> Result<ExitCode> {
    let options = &arguments.options;
    let job = Job::new(options)?;
    outputs::prepare_folder(&options.output)?;
    let (card, models) = load_models(&options.model)?;
    let devices: Vec<_> = models.iter().map(Model::device).collect();
    let plan = plan::of(options, None, &[], &devices)?;
    let cancel = Arc::new(Cancel::default());
    let signal = Arc::new(Mutex::new(None));
    let (asked, stop) = (signal.clone(), cancel.clone());
    let ask = move |name: &str| {
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
        stop.cancel();
    };
    on_interrupt(Some(Box::new(ask)), |_, name| complain(format!("interrupted by {name}")))?;

    let read_files = job.read_files(&[], &[]);
    let files = Files::of(&options.output);
    let folder = job.folder().read_files(&read_files).card(card.clone().unwrap_or_default());
    let folder = folder.on_file(|index, file| files.wrote(index, &file));
    let folder = folder.volumes_above(job.scoring.threshold);
    let answers = Answers {
        given: Mutex::default(),
        default: job.settings.targets.clone(),
        region: options.target_mask.is_some(),
    };
    let mut cohort = job.cohort(models, card)?.in_order(false);
    print(Line::Run(plan).to_json()?)?;
    let lines = lines_of_stdin();
    let taken = std::iter::from_fn(|| {
        loop {
            let line = next_line(&lines, &cancel)?;
            match answers.take(&line, &options.output) {
                Ok(Some(case)) => return Some(case),
                Ok(None) => {}
                Err(error) => {
                    complain(format!("error: {error}"));
                    return None;
                }
            }
        }
    });
    cohort.run(taken, &folder, &cancel, |finished| match finished.kept {
        // No case's fault: whoever drives this worker makes room.
        Err(error) if error.is_of_storage() => Err(error),
        kept => answers.give(files.record(Finished { kept, ..finished })?),
    })?;
    if let Some(name) = signal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        end_by_name(&name);
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines of stdin, read on a thread of their own: a read cannot be interrupted.
fn lines_of_stdin() -> Receiver<String> {
    let (to, lines) = bounded(1);
    thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n') {
            // What is not UTF-8 is no case, and is answered so.
            let line = line.map(|line| String::from_utf8_lossy(&line).into_owned());
            if line.map_or(true, |line| to.send(line).is_err()) {
                break;
            }
        }
    });
    lines
}

/// The next line; `None` at the end of input, or once a signal has come.
fn next_line(lines: &Receiver<String>, cancel: &Cancel) -> Option<String> {
    while !cancel.is_cancelled() {
        match lines.recv_timeout(LOOK) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}

/// A line of stdin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    id: String,
    image: PathBuf,
    mask: Option<PathBuf>,
    label: Option<String>,
}

/// How many answers are kept for those who ask again.
const KEPT: usize = 10_000;

/// The latest cases that were taken, with their answers.
struct Answers {
    given: Mutex<Given>,
    /// What is explained of a case without targets of its own.
    default: Vec<Target>,
    /// Whether a region is explained, which leaves no choice of labels.
    region: bool,
}

#[derive(Default)]
struct Given {
    /// By id; without an answer while the case is in flight.
    cases: HashMap<String, (Case, Option<String>)>,
    /// Ids that were answered, the oldest first.
    answered: VecDeque<String>,
}

impl Answers {
    /// The case of a line. What can be answered at once is: a case that was answered before, a line that is no
    /// case.
    fn take(&self, line: &str, folder: &Path) -> Result<Option<Case>> {
        if line.trim().is_empty() {
            return Ok(None);
        }
        let task: Task = match serde_json::from_str(line) {
            Ok(task) => task,
            Err(error) => {
                let reason = format!("no case: {error}; expected {{\"id\": ..., \"image\": ...}}");
                return refuse("", Path::new(""), reason);
            }
        };
        let (id, image) = (task.id.clone(), task.image.clone());
        let case = match task.case(folder, self.region) {
            Ok(case) => case,
            Err(error) => return refuse(&id, &image, error.to_string()),
        };
        let mut given = self.lock();
        match given.cases.get(&id) {
            Some((before, _)) if *before != case => {
                let reason = "this id was given before, with another image, mask or label";
                return refuse(&id, &image, reason.to_owned());
            }
            Some((_, Some(answer))) => return print(answer).map(|()| None),
            // It is in flight, and its answer is to come.
            Some((_, None)) => return Ok(None),
            None => {}
        }
        let others = given.cases.values().map(|(other, _)| other);
        if let Err(error) = check_targets(others.chain([&case]), &self.default) {
            return refuse(&id, &image, error.to_string());
        }
        given.cases.insert(id, (case.clone(), None));
        Ok(Some(case))
    }

    /// Answers a case that was taken.
    fn give(&self, record: CaseRecord) -> Result<()> {
        let id = record.id.clone();
        let answer = Line::Ended(record).to_json()?;
        let mut given = self.lock();
        print(&answer)?;
        if let Some((_, none)) = given.cases.get_mut(&id) {
            *none = Some(answer);
        }
        given.answered.push_back(id);
        if given.answered.len() > KEPT
            && let Some(oldest) = given.answered.pop_front()
        {
            given.cases.remove(&oldest);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a line that is not taken.
fn refuse(id: &str, image: &Path, reason: String) -> Result<Option<Case>> {
    let record = CaseRecord::without_maps(id, image, Status::Failed, reason);
    print(Line::Ended(record).to_json()?).map(|()| None)
}

impl Task {
    fn case(self, folder: &Path, region: bool) -> Result<Case> {
        Names::check_stem(&self.id)?;
        if region && self.label.is_some() {
            return Err(Error::usage(super::LABEL_OF_REGION));
        }
        let labels = self.label.iter().flat_map(|label| label.split(','));
        let targets = labels.map(|label| label.trim().parse()).collect::<Result<Vec<_>>>()?;
        let mut case = Case::new(self.id, self.image);
        case.mask = self.mask;
        case.targets = self.label.map(|_| targets);
        for file in [&case.image].into_iter().chain(&case.mask) {
            let is_inside = match (file.canonicalize(), folder.canonicalize()) {
                (Ok(file), Ok(folder)) => file.starts_with(folder),
                _ => false,
            };
            if is_inside {
                return Err(Error::usage(format!(
                    "{}: this file is in the folder of the outputs, which could replace it; take another folder",
                    file.display()
                )));
            }
        }
        Ok(case)
    }
}
