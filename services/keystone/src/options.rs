//! Keystone's section of the configuration file.

use base::config::Section;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long a token lives, in seconds.
    pub token_expiration_seconds: u64,
    /// How long an expired token is still shown to services that ask for it with `allow_expired`, in seconds.
    pub allow_expired_window_seconds: u64,
    /// How long a validated token is believed when another process may have revoked it, in seconds.
    /// A revocation by this process counts at once.
    pub token_cache_seconds: u64,
    /// Tokens kept in the cache.
    pub token_cache_max: usize,
    /// Fernet keys kept, the staged one included.
    pub max_active_keys: usize,
    /// The cost of a password hash: each step doubles it.
    pub password_hash_rounds: u32,
    /// Levels of projects below a domain.
    pub max_project_tree_depth: usize,
    /// The most entries that one list answers.
    pub list_limit_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token_expiration_seconds: 3600,
            allow_expired_window_seconds: 172_800,
            token_cache_seconds: 10,
            token_cache_max: 20_000,
            max_active_keys: 3,
            password_hash_rounds: 12,
            max_project_tree_depth: 5,
            list_limit_max: 1000,
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "keystone";
}
