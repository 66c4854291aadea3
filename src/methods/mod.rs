//! Attention methods, and the score that they explain.

mod backend;
pub(crate) mod compat;
mod evidence;
mod named_target;
mod score;
mod target;

pub use backend::{Attention, Backend, Needs};
pub use compat::Compat;
pub use evidence::Evidence;
pub(crate) use evidence::{Finish, Guided};
pub(crate) use named_target::{NamedTarget, named_targets};
pub(crate) use score::TargetScore;
pub use target::{ScoreAt, Target};
