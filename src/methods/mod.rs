//! Attention methods, and the score that they explain.

mod backend;
pub(crate) mod compat;
mod components;
mod evidence;
mod explained;
mod target;

pub use backend::{Attention, Backend, Needs};
pub use compat::Compat;
pub use evidence::Evidence;
pub(crate) use evidence::{Finish, Guided};
pub(crate) use explained::{Explained, explained};
pub(crate) use target::Score;
pub use target::{ScoreAt, Target};
