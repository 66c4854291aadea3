//! Expands the requested targets to those of one output, each of which has its own map.

use std::sync::Arc;

use ndarray::ArrayD;
use tch::Tensor;

use super::score::predicted_as;
use super::target::Target;
use crate::bridge::to_array;
use crate::components::components;
use crate::error::{Error, Result};
use crate::task::Task;

/// A target that has one map per sample.
#[derive(Debug)]
pub(crate) struct NamedTarget {
    /// A name for files: `class2`, `component1`.
    pub label: String,
    kind: Kind,
    /// Warning about parts of the output that have no map.
    pub left_out: Option<String>,
}

#[derive(Debug)]
enum Kind {
    Target(Target),
    /// The `number`-th component of each sample, in `labels` `(B, [D,] H, W)`.
    Component {
        class: usize,
        labels: Arc<ArrayD<usize>>,
        number: usize,
    },
}

impl NamedTarget {
    /// The target itself, which expands to no others.
    pub(crate) fn target(&self) -> Target {
        match &self.kind {
            Kind::Target(target) => target.clone(),
            Kind::Component { class, labels, number } => {
                let inside = |&label: &usize| if label == *number { 1.0 } else { 0.0 };
                let mask = Arc::new(labels.map(inside));
                Target::Region { class: Some(*class), mask }
            }
        }
    }
}

/// Greatest number of components of one class that have maps, the largest first.
const MOST_COMPONENTS: usize = 64;

/// The targets of one output, with [`Target::Each`] and [`Target::Components`] expanded.
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
                all.extend((0..classes).map(|class| single(Target::Class(class))));
            }
            Target::Components(class) => all.extend(each_component(*class, task, logits)?),
            other => all.push(single(other.clone())),
        }
    }
    for index in 1..all.len() {
        if all[..index].iter().any(|earlier| earlier.label == all[index].label) {
            all[index].label = format!("{}_{}", all[index].label, index + 1);
        }
    }
    Ok(all)
}

fn single(target: Target) -> NamedTarget {
    let label = target.label();
    NamedTarget { label, kind: Kind::Target(target), left_out: None }
}

/// One target for each k: the k-th largest component of each sample, up to the most that any sample
/// has.
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
    // If there is no component, the first is requested all the same: its map is zero, and a warning
    // says why.
    let numbers = 1..=most.clamp(1, MOST_COMPONENTS);
    let left_out = (most > MOST_COMPONENTS).then(|| {
        format!(
            "class {class} is predicted in {most} components; the {MOST_COMPONENTS} largest of each \
             sample have a map. predicted:{class} explains all of them in one"
        )
    });
    let components = numbers.map(|number| NamedTarget {
        label: format!("component{number}"),
        kind: Kind::Component { class, labels: labels.clone(), number },
        left_out: left_out.clone().filter(|_| number == 1),
    });
    Ok(components.collect())
}
