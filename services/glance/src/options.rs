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
    /// A container of an object store that speaks Swift.
    Swift,
    /// A pool of a Ceph cluster, by the tools of the package ceph-common.
    Rbd,
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
    /// `s3`: where the service is, `https://s3.example.org`. `swift`: where one signs in: `http://127.0.0.1:5000/v3`.
    pub url: String,
    /// `s3`: the bucket, which must exist.
    pub bucket: String,
    /// `s3`
    pub region: String,
    /// `s3`
    pub access_key: String,
    /// `s3`, and the password of `swift`.
    pub secret_key: Secret,
    /// `swift`: `3` or, for version 1, `1`. Empty: 3.
    pub auth_version: String,
    /// `swift`: `project:user`, or an account's user in version 1. `rbd`: as whom Ceph is asked, without `client.`;
    /// empty: as its configuration says.
    pub user: String,
    /// `swift`, version 3. Empty: `default`.
    pub user_domain_id: String,
    /// `swift`, version 3. Empty: `default`.
    pub project_domain_id: String,
    /// `swift`. Empty: `glance`.
    pub container: String,
    /// `swift`: makes the container when it is not there.
    pub create_container: bool,
    /// `swift`: images of so many MiB and more are cut into segments. 0: 5120.
    pub large_object_mib: u64,
    /// `swift`: how large they are. 0: 200.
    pub segment_mib: u64,
    /// `rbd`: the pool, which must exist. Empty: `images`.
    pub pool: String,
    /// `rbd`: the cluster's configuration. Empty: where Ceph looks for it.
    pub ceph_conf: String,
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
    /// Whether images whose bytes stay elsewhere are read there and hashed. Otherwise they are what is said of them.
    pub do_secure_hash: bool,
    /// Whether images must be what their `disk_format` says. Otherwise what does not agree is taken as it is, and its
    /// disk's size stays unknown.
    pub require_image_format_match: bool,
    /// Where others reach this process alone, when several serve one cloud: each has a cache of its own, and imports
    /// what it staged; the others pass on to it who asks them for that. Empty: the cache and what is staged are in
    /// directories that all of them share.
    pub worker_self_reference_url: String,
    /// Where bytes are staged that wait to be imported. Empty: `staged` beside the images.
    pub staging_directory: String,
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
    /// Whether deleted images keep their bytes for a while, for the scrubber to remove.
    pub delayed_delete: bool,
    /// How long the bytes of deleted images stay, with `delayed_delete`.
    pub scrub_time_seconds: u64,
    /// How often the scrubber looks.
    pub scrub_every_seconds: u64,
    /// Where the key manager is that has the certificates of signed images. Empty: as the caller's catalog says.
    pub key_manager_url: String,
    /// Where downloaded images are cached. Empty: `cache` beside the images, in a folder for each node that has a URL.
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
            do_secure_hash: true,
            require_image_format_match: true,
            worker_self_reference_url: String::new(),
            staging_directory: String::new(),
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
            delayed_delete: false,
            scrub_time_seconds: 0,
            scrub_every_seconds: 300,
            key_manager_url: String::new(),
            image_cache_directory: String::new(),
            image_cache_bytes_max: 10 << 30,
            image_cache_stall_seconds: 86400,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "glance";
}
