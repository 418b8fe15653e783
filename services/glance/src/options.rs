//! Glance's section of the configuration file.

use base::{Secret, config::Section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What keeps images' bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A directory of this machine.
    #[default]
    File,
    /// Other people's web servers: images are added by their URL and read, never written.
    Http,
    /// A bucket of an S3 service.
    S3,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreOptions {
    pub id: String,
    pub kind: StoreKind,
    /// The heaviest of an image's stores serves its downloads.
    pub weight: i64,
    /// For people.
    pub description: String,
    /// `file`: where. Empty: `images` in the state directory.
    pub directory: String,
    /// `s3`: where the service is, `https://s3.example.org`.
    pub url: String,
    /// `s3`: the bucket, which must exist.
    pub bucket: String,
    /// `s3`
    pub region: String,
    /// `s3`
    pub access_key: String,
    /// `s3`
    pub secret_key: Secret,
}

/// Who may do what with properties of some names. The first that matches a name decides; when there is one, a name that
/// none matches is nobody's.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PropertyProtection {
    /// A regular expression that matches from the name's beginning.
    pub name: String,
    /// Roles; `@` is everybody, `!` nobody.
    pub create: Vec<String>,
    pub read: Vec<String>,
    pub update: Vec<String>,
    pub delete: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where images' bytes are kept.
    pub stores: Vec<StoreOptions>,
    /// The store of images for which none is asked.
    pub default_store: String,
    /// Whether images tell where their bytes are, and their owners may say so.
    pub show_multiple_locations: bool,
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
    /// The most locations of an image.
    pub image_location_quota: i64,
    /// Whether keystone's limits bound a project's images: `image_size_total`, `image_stage_total`,
    /// `image_count_total` and `image_count_uploading`, registered for the image service.
    pub use_keystone_limits: bool,
    /// Who may do what with which properties. Empty: owners as they like.
    pub property_protections: Vec<PropertyProtection>,
    /// How bytes may come, besides being uploaded.
    pub enabled_import_methods: Vec<String>,
    /// The ports from which `web-download` fetches images.
    pub web_download_ports: Vec<u16>,
    /// Hosts from which `web-download` fetches although their addresses are this machine's or a private network's.
    pub web_download_private_hosts: Vec<String>,
    /// The disk format that imported images are converted to. Empty: they stay as they are.
    pub import_conversion_format: String,
    /// Properties that imported images get, unless an administrator imports them.
    pub import_properties: BTreeMap<String, String>,
    /// How long tasks are shown after they ended.
    pub task_time_to_live_hours: u64,
    /// Where downloaded images are cached. Empty: `cache` beside the images.
    pub image_cache_directory: String,
    /// Pruning leaves so many bytes in the cache.
    pub image_cache_bytes_max: u64,
    /// Cleaning removes what has been half cached for so long.
    pub image_cache_stall_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        let file = StoreOptions { id: "file".into(), ..StoreOptions::default() };
        Self {
            stores: vec![file],
            default_store: "file".into(),
            show_multiple_locations: false,
            image_size_cap_bytes: 1 << 40,
            limit_param_default: 25,
            api_limit_max: 1000,
            image_member_quota: 128,
            image_tag_quota: 128,
            image_property_quota: 128,
            image_location_quota: 10,
            use_keystone_limits: false,
            property_protections: Vec::new(),
            enabled_import_methods: crate::api::import::METHODS.map(String::from).to_vec(),
            web_download_ports: vec![80, 443],
            web_download_private_hosts: Vec::new(),
            import_conversion_format: String::new(),
            import_properties: BTreeMap::new(),
            task_time_to_live_hours: 48,
            image_cache_directory: String::new(),
            image_cache_bytes_max: 10 << 30,
            image_cache_stall_seconds: 86400,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "glance";
}
