//! Glance's section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A directory that keeps images' bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileStore {
    pub id: String,
    /// Empty: `images` in the state directory.
    pub directory: String,
    /// The heaviest of an image's stores serves its downloads.
    pub weight: i64,
    /// For people.
    pub description: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where images' bytes are kept.
    pub stores: Vec<FileStore>,
    /// The store of images for which none is asked.
    pub default_store: String,
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
    /// The ports from which `web-download` fetches images.
    pub web_download_ports: Vec<u16>,
    /// Hosts from which `web-download` fetches although their addresses are this machine's or a private network's.
    pub web_download_private_hosts: Vec<String>,
    /// How long tasks are shown after they ended.
    pub task_time_to_live_hours: u64,
}

impl Default for Options {
    fn default() -> Self {
        let file = FileStore { id: "file".into(), ..FileStore::default() };
        Self {
            stores: vec![file],
            default_store: "file".into(),
            image_size_cap_bytes: 1 << 40,
            limit_param_default: 25,
            api_limit_max: 1000,
            image_member_quota: 128,
            image_tag_quota: 128,
            image_property_quota: 128,
            web_download_ports: vec![80, 443],
            web_download_private_hosts: Vec::new(),
            task_time_to_live_hours: 48,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "glance";
}
