//! Swift's section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Where objects' bytes are. Empty: `objects` in the state directory. Several control nodes share one.
    pub directory: String,
    /// Who has one of these roles in a project owns its account.
    pub operator_roles: Vec<String>,
    /// Who has one of these roles in a project reads its account.
    pub project_reader_roles: Vec<String>,
    /// Who has one of these roles anywhere reads every account.
    pub system_reader_roles: Vec<String>,
    /// Who has this role anywhere owns every account.
    pub reseller_admin_role: String,
    /// The beginning of accounts' names; a project's id follows.
    pub reseller_prefix: String,
    /// Whether access lists may name users and projects of the domain `default` instead of giving their ids.
    pub allow_names_in_acls: bool,
    /// Whether reseller admins may make and delete accounts.
    pub allow_account_management: bool,
    pub max_file_size: u64,
    pub max_meta_name_length: usize,
    pub max_meta_value_length: usize,
    pub max_meta_count: usize,
    pub max_meta_overall_size: usize,
    pub max_header_size: usize,
    pub max_object_name_length: usize,
    pub max_container_name_length: usize,
    pub max_account_name_length: usize,
    pub container_listing_limit: usize,
    pub account_listing_limit: usize,
    /// Containers of one account; 0: without end.
    pub max_containers_per_account: i64,
    /// Seconds between two looks for objects whose time has come.
    pub expirer_interval_seconds: u64,
    /// An upload that sends nothing for so long is given up.
    pub client_timeout_seconds: u64,
    /// Files without an object that are older are removed at start.
    pub orphan_age_seconds: u64,
    /// Segments of a static large object.
    pub max_manifest_segments: usize,
    pub max_manifest_bytes: usize,
    /// Objects that one request deletes, containers that one archive makes.
    pub max_deletes_per_request: usize,
    pub max_containers_per_extraction: usize,
    pub max_failed_extractions: usize,
    /// What a temporary URL may be for.
    pub tempurl_methods: Vec<String>,
    /// Hashes with which temporary URLs and forms may be signed.
    pub allowed_digests: Vec<String>,
    /// Links that are followed, one to the next.
    pub symloop_max: usize,
    /// Origins that every container answers, besides its own list.
    pub cors_allow_origin: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
        Self {
            directory: String::new(),
            operator_roles: words(&["admin", "swiftoperator", "member"]),
            project_reader_roles: Vec::new(),
            system_reader_roles: Vec::new(),
            reseller_admin_role: "ResellerAdmin".into(),
            reseller_prefix: "AUTH_".into(),
            allow_names_in_acls: true,
            allow_account_management: false,
            max_file_size: 5_368_709_122,
            max_meta_name_length: 128,
            max_meta_value_length: 256,
            max_meta_count: 90,
            max_meta_overall_size: 4096,
            max_header_size: 8192,
            max_object_name_length: 1024,
            max_container_name_length: 256,
            max_account_name_length: 256,
            container_listing_limit: 10_000,
            account_listing_limit: 10_000,
            max_containers_per_account: 0,
            expirer_interval_seconds: 60,
            client_timeout_seconds: 60,
            orphan_age_seconds: 3600,
            max_manifest_segments: 1000,
            max_manifest_bytes: 8 << 20,
            max_deletes_per_request: 10_000,
            max_containers_per_extraction: 10_000,
            max_failed_extractions: 1000,
            tempurl_methods: words(&["GET", "HEAD", "PUT", "POST", "DELETE"]),
            allowed_digests: words(&["sha1", "sha256", "sha512"]),
            symloop_max: 2,
            cors_allow_origin: Vec::new(),
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "swift";
}
