//! Which part of a cohort this process runs.

use crate::cohort::Part;
use crate::error::{Error, Result};

/// The part that is asked for, or that an array of SLURM or an indexed job of Kubernetes gives this task;
/// `None` for the whole cohort.
pub fn of(
    count: Option<usize>,
    id: Option<usize>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Part>> {
    let number = |name: &str| -> Result<Option<usize>> {
        let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let refuse = || Error::usage(format!("{name}={text}: expected a number"));
        text.parse().map(Some).map_err(|_| refuse())
    };
    let (task, index) = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX");
    let own = match number(task)? {
        Some(id) => Some((task, id)),
        None => number(index)?.map(|id| (index, id)),
    };
    let part = match (count, id, own) {
        (Some(count), Some(id), _) => Part::new(id, count)?,
        (Some(count), None, Some((name, id))) => {
            Part::new(id, count).map_err(|error| error.within(format!("{name}={id}")))?
        }
        (Some(_), None, None) => {
            return Err(Error::usage("--num-parts: which part is this? Give --part-id"));
        }
        (None, _, None) => return Ok(None),
        (None, _, Some((name, id))) if name == index => {
            return Err(Error::usage(format!(
                "{index}={id}: an indexed job, which does not say how many parts there are; give --num-parts (1, \
                 with --part-id 0, for everything)"
            )));
        }
        (None, _, Some((_, id))) => {
            let of_array = |what| number(&format!("SLURM_ARRAY_TASK_{what}"));
            let (Some(count), Some(min), Some(max)) =
                (of_array("COUNT")?, of_array("MIN")?, of_array("MAX")?)
            else {
                return Err(Error::usage(format!(
                    "{task}={id}: the array's extent is not known; give --num-parts and --part-id"
                )));
            };
            let is_whole = max.checked_sub(min).and_then(|last| last.checked_add(1)) == Some(count);
            if !is_whole || of_array("STEP")?.is_some_and(|step| step != 1) {
                return Err(Error::usage(format!(
                    "an array of {count} tasks from {min} to {max} is not contiguous with step 1; give --num-parts, \
                     of which each task then runs the part of its own number"
                )));
            }
            let place = id.checked_sub(min).unwrap_or(count);
            Part::new(place, count).map_err(|error| error.within(format!("{task}={id}")))?
        }
    };
    Ok(Some(part))
}

/// The file of `--profile`: a part has its own.
pub fn profile(part: Option<Part>) -> String {
    match part {
        Some(part) => format!("profile-{:05}-of-{:05}.json", part.id(), part.count()),
        None => "profile.json".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn said(count: Option<usize>, id: Option<usize>, variables: &[(&str, &str)]) -> String {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        match of(count, id, variable) {
            Ok(part) => part.map_or_else(|| "all".to_owned(), |part| part.to_string()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_part_is_that_of_the_task() {
        let array = |id, count, min, max, step| {
            vec![
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_COUNT", count),
                ("SLURM_ARRAY_TASK_MIN", min),
                ("SLURM_ARRAY_TASK_MAX", max),
                ("SLURM_ARRAY_TASK_STEP", step),
            ]
        };
        let kubernetes = [("JOB_COMPLETION_INDEX", "7")];
        for (count, id, variables, expected) in [
            (None, None, vec![], "all"),
            (Some(4), Some(3), vec![], "part 3 of 4"),
            (Some(4), Some(4), vec![], "part 4 of 4: parts are numbered from 0 to 3"),
            (Some(4), None, vec![], "--num-parts: which part is this?"),
            (None, None, array("3", "10", "0", "9", "1"), "part 3 of 10"),
            (None, None, array("1", "10", "1", "10", "1"), "part 0 of 10"),
            (None, None, array("10", "10", "1", "10", "1"), "part 9 of 10"),
            // A task of an array is run again, alone or with others.
            (None, None, array("7", "2", "3", "7", "1"), "not contiguous"),
            (None, None, array("8", "3", "4", "8", "2"), "not contiguous"),
            (Some(10), None, array("7", "2", "3", "7", "1"), "part 7 of 10"),
            (
                Some(10),
                None,
                array("10", "10", "1", "10", "1"),
                "SLURM_ARRAY_TASK_ID=10: part 10 of 10",
            ),
            (Some(2), Some(0), array("7", "2", "3", "7", "1"), "part 0 of 2"),
            (None, None, kubernetes.to_vec(), "give --num-parts"),
            (Some(9), None, kubernetes.to_vec(), "part 7 of 9"),
            (Some(9), None, vec![("JOB_COMPLETION_INDEX", "x")], "expected a number"),
            (None, None, vec![("SLURM_ARRAY_TASK_ID", "")], "all"),
            (Some(0), Some(0), vec![], "at least one"),
        ] {
            let said = said(count, id, &variables);
            assert!(said.contains(expected), "{said:?}, not {expected:?}");
        }
    }
}
