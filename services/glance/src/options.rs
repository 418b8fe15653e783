//! Glance's section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The largest image, in bytes.
    pub image_size_cap_bytes: u64,
    /// Images in a list that does not say how many.
    pub limit_param_default: u64,
    /// The most images in a list.
    pub api_limit_max: u64,
    /// The most members of an image.
    pub image_member_quota: i64,
    /// The most tags of an image.
    pub image_tag_quota: i64,
    /// The most properties of one's own of an image.
    pub image_property_quota: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            image_size_cap_bytes: 1 << 40,
            limit_param_default: 25,
            api_limit_max: 1000,
            image_member_quota: 128,
            image_tag_quota: 128,
            image_property_quota: 128,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "glance";
}
