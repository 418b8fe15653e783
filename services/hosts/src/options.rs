//! The `[hosts]` section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where hosts reach the doors of control nodes, `https://control-1:8799`; empty: this node's alone, by the name
    /// in the endpoints' URLs.
    pub doors: Vec<String>,
    /// The message broker's addresses as hosts reach it; empty: as control nodes do.
    pub brokers: Vec<String>,
    /// Where hosts reach nova's metadata service; empty: this node by the name in the endpoints' URLs.
    pub metadata_address: String,
    /// How long a token to join is good for, when its maker does not say.
    pub token_minutes: u64,
    /// How long a host's certificate is good for; it is renewed when a third of that is left.
    pub certificate_hours: u64,
    /// A host that gave no sign of life for so long is shown as down.
    pub down_after_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            doors: Vec::new(),
            brokers: Vec::new(),
            metadata_address: String::new(),
            token_minutes: 60,
            certificate_hours: 7 * 24,
            down_after_seconds: 30,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "hosts";
}
