//! The ops against their references, on odd sizes, both layouts and all element types.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "ops/alpha_weights.rs"]
mod alpha_weights;
#[path = "ops/channel_weights.rs"]
mod channel_weights;
#[path = "ops/common.rs"]
mod common;
#[path = "ops/elementwise.rs"]
mod elementwise;
#[path = "ops/evaluation_sums.rs"]
mod evaluation_sums;
#[path = "ops/fused.rs"]
mod fused;
#[path = "ops/guided_activation.rs"]
mod guided_activation;
#[path = "ops/guided_product.rs"]
mod guided_product;
#[path = "ops/normalize.rs"]
mod normalize;
#[path = "ops/project.rs"]
mod project;
#[path = "ops/resample.rs"]
mod resample;
#[path = "ops/summary.rs"]
mod summary;
#[path = "ops/view.rs"]
mod view;
