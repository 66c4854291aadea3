//! From the targets that were asked for to those that one output has: each is a map of its own.

use std::sync::Arc;

use ndarray::ArrayD;
use tch::Tensor;

use super::components::components;
use super::target::{Target, predicted_as};
use crate::bridge::to_array;
use crate::error::{Error, Result};
use crate::task::Task;

/// Maps of one target.
#[derive(Debug)]
pub(crate) struct NamedTarget {
    /// A name for files: `class2`, `component1`.
    pub label: String,
    what: What,
    /// What of the output has no map, as a warning says it.
    pub left_out: Option<String>,
}

#[derive(Debug)]
enum What {
    Given(Target),
    /// The `number`-th component of each sample, in `labels` `(B, [D,] H, W)`.
    Component {
        class: usize,
        labels: Arc<ArrayD<usize>>,
        number: usize,
    },
}

impl NamedTarget {
    /// The target, which stands for itself alone.
    pub(crate) fn target(&self) -> Target {
        match &self.what {
            What::Given(target) => target.clone(),
            What::Component { class, labels, number } => {
                let inside = |&label: &usize| if label == *number { 1.0 } else { 0.0 };
                let mask = Arc::new(labels.map(inside));
                Target::Region { class: Some(*class), mask }
            }
        }
    }
}

/// Components of one class that get a map each, the largest first.
const MOST_COMPONENTS: usize = 64;

/// The targets of one output, those that stand for several spelled out.
///
/// `logits` are `(B, K)` or `(B, K, [D,] H, W)`.
pub(crate) fn named_targets(
    targets: &[Target],
    task: Task,
    logits: &Tensor,
) -> Result<Vec<NamedTarget>> {
    let mut all: Vec<NamedTarget> = Vec::new();
    for target in targets {
        match target {
            Target::Each => {
                let classes = logits.size().get(1).map_or(1, |&n| usize::try_from(n).unwrap_or(1));
                all.extend((0..classes).map(|class| one(Target::Class(class))));
            }
            Target::Components(class) => all.extend(each_component(*class, task, logits)?),
            other => all.push(one(other.clone())),
        }
    }
    for index in 1..all.len() {
        if all[..index].iter().any(|earlier| earlier.label == all[index].label) {
            all[index].label = format!("{}_{}", all[index].label, index + 1);
        }
    }
    Ok(all)
}

fn one(target: Target) -> NamedTarget {
    let label = target.label();
    NamedTarget { label, what: What::Given(target), left_out: None }
}

/// A region for the k-th largest component of each sample, for each k that any sample has.
fn each_component(class: usize, task: Task, logits: &Tensor) -> Result<Vec<NamedTarget>> {
    if task == Task::Classification {
        return Err(Error::input(
            "target",
            format!(
                "components:{class}: a network that classifies has no voxels to be connected; take \
                 class {class}"
            ),
        ));
    }
    let mask = to_array(&predicted_as(class, logits)?)?;
    let mut labels = ArrayD::zeros(mask.raw_dim());
    let mut most = 0;
    for (sample, mut of_sample) in mask.outer_iter().zip(labels.outer_iter_mut()) {
        let (sizes, numbers) = components(&sample);
        most = most.max(sizes.len());
        of_sample.assign(&numbers);
    }
    let labels = Arc::new(labels);
    // Without any, the first is asked for all the same: its map is zero, and a warning says why.
    let numbers = 1..=most.clamp(1, MOST_COMPONENTS);
    let left_out = (most > MOST_COMPONENTS).then(|| {
        format!(
            "class {class} is predicted in {most} components; the {MOST_COMPONENTS} largest of each \
             sample have a map. predicted:{class} explains all of them in one"
        )
    });
    let components = numbers.map(|number| NamedTarget {
        label: format!("component{number}"),
        what: What::Component { class, labels: labels.clone(), number },
        left_out: left_out.clone().filter(|_| number == 1),
    });
    Ok(components.collect())
}
