//! Attention methods, and the score that they explain.

mod backend;
mod components;
mod evidence;
mod explained;
mod target;

pub use backend::{Attention, Backend, Needs};
pub use evidence::Evidence;
pub(crate) use evidence::Guided;
pub(crate) use explained::{Explained, explained};
pub(crate) use target::Score;
pub use target::{ScoreAt, Target};
