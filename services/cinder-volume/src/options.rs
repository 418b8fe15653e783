//! The `[cinder_volume]` section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The name by which this host is known; empty: the machine's host name.
    pub host: String,
    /// The address by which other services know this host.
    pub my_ip: String,
    /// The back end's name, by which volume types ask for it (`volume_backend_name`).
    pub volume_backend_name: String,
    pub availability_zone: String,
    /// How much more than there is may be promised to volumes that are not yet full.
    pub max_over_subscription_ratio: f64,
    /// How much of the space is never given to volumes, in percent.
    pub reserved_percentage: u32,
    /// How often the back end reports its space and gives a sign of life.
    pub report_interval_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: String::new(),
            my_ip: "127.0.0.1".into(),
            volume_backend_name: "files".into(),
            availability_zone: "nova".into(),
            max_over_subscription_ratio: 20.0,
            reserved_percentage: 0,
            report_interval_seconds: 10,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "cinder_volume";
}
