//! Maps against masks: the metrics, the masks they take, and the tables of a study.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod evaluation {
    pub mod curves;
    pub mod files;
    pub mod masks;
    pub mod means;
    pub mod metrics;
    pub mod pair;
}
