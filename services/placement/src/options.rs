//! Placement's section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The project of consumers that clients older than 1.8 make without one.
    pub incomplete_consumer_project_id: String,
    /// The user of such consumers.
    pub incomplete_consumer_user_id: String,
    /// The most combinations that are looked at for one tree of providers.
    pub max_allocation_candidates_per_tree: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            incomplete_consumer_project_id: "00000000-0000-0000-0000-000000000000".into(),
            incomplete_consumer_user_id: "00000000-0000-0000-0000-000000000000".into(),
            max_allocation_candidates_per_tree: 10_000,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "placement";
}
