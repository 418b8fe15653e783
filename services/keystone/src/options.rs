//! Keystone's section of the configuration file.

use base::{Json, Secret, config::Section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

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
    /// `fernet`, or `jws`: tokens that are signed, longer, and readable by anybody.
    pub token_provider: TokenProvider,
    /// Fernet keys kept, the staged one included.
    pub max_active_keys: usize,
    /// The token keys are rotated so often, in hours. A key is kept for `max_active_keys` - 2 rotations more, which
    /// must be longer than a token lives. 0: only by `ferrostack identity rotate`.
    pub key_rotation_hours: u64,
    /// The cost of a password hash: each step doubles it.
    pub password_hash_rounds: u32,
    /// Levels of projects below a domain.
    pub max_project_tree_depth: usize,
    /// Whether the limits of a domain bound those of the projects below it: `flat` or `strict_two_level`. Under the
    /// latter a domain has two levels of projects at most.
    pub limit_model: LimitModel,
    /// The most entries that one list answers.
    pub list_limit_max: u64,
    /// How long an OAuth 1 request token may be authorized and traded in, in seconds. 0: for ever.
    pub oauth1_request_token_seconds: u64,
    /// How long an OAuth 1 access token is good, in seconds. 0: for ever.
    pub oauth1_access_token_seconds: u64,
    /// How to ask OpenID Connect providers, by the id of the identity provider:
    /// `openid.NAME = { issuer = "https://...", client_id = "...", client_secret = "..." }`.
    pub openid: BTreeMap<String, OpenId>,
    /// SAML 2 providers, by the id of the identity provider:
    /// `saml.NAME = { metadata = "/etc/.../idp.xml", public_url = "https://HOST:5000" }`.
    pub saml: BTreeMap<String, Saml>,
    /// Domains whose users live in a directory, by the domain's name, with upstream's options:
    /// `ldap.NAME = { url = "ldap://...", user_tree_dn = "..." }`. A domain's own configuration comes before it.
    pub ldap: BTreeMap<String, BTreeMap<String, Json>>,
    /// What a directory said of a token's user is believed for so long, in seconds.
    pub ldap_cache_seconds: u64,
    /// Pages to which browsers may be sent with a token, as `https://HOST/auth/websso/`.
    pub trusted_dashboards: Vec<String>,
    pub security_compliance: SecurityCompliance,
}

/// Rules for passwords and accounts. Unset ones do not apply.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityCompliance {
    /// Failed logins in a row after which an account is locked.
    pub lockout_failure_attempts: Option<i64>,
    /// How long an account stays locked, in seconds. Unset: 1800. 0: until it is enabled again.
    pub lockout_duration_seconds: Option<u64>,
    /// Days after which a password must be changed.
    pub password_expires_days: Option<u64>,
    /// How many passwords in a row, the new one included, must differ from each other.
    pub unique_last_password_count: usize,
    /// Days that a password must be used before its owner may change it.
    pub minimum_password_age_days: u64,
    /// A regular expression that new passwords must match from their beginning.
    pub password_regex: Option<String>,
    /// What the regular expression means, for whoever it turns down.
    pub password_regex_description: Option<String>,
    /// A password that an administrator gave must be changed before it is good for a login.
    pub change_password_upon_first_use: bool,
    /// Days without a login after which an account is disabled.
    pub disable_user_account_days_inactive: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token_expiration_seconds: 3600,
            allow_expired_window_seconds: 172_800,
            token_cache_seconds: 10,
            token_cache_max: 20_000,
            token_provider: TokenProvider::default(),
            max_active_keys: 3,
            key_rotation_hours: 0,
            password_hash_rounds: 12,
            max_project_tree_depth: 5,
            limit_model: LimitModel::default(),
            list_limit_max: 1000,
            oauth1_request_token_seconds: 28_800,
            oauth1_access_token_seconds: 86_400,
            openid: BTreeMap::new(),
            saml: BTreeMap::new(),
            ldap: BTreeMap::new(),
            ldap_cache_seconds: 60,
            trusted_dashboards: Vec::new(),
            security_compliance: SecurityCompliance::default(),
        }
    }
}

impl Options {
    /// Levels of projects below a domain.
    pub fn project_depth_max(&self) -> usize {
        match self.limit_model {
            LimitModel::Flat => self.max_project_tree_depth,
            LimitModel::StrictTwoLevel => self.max_project_tree_depth.min(2),
        }
    }
}

impl Section for Options {
    const NAME: &'static str = "keystone";
}

/// How limits of domains and of their projects belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitModel {
    #[default]
    Flat,
    StrictTwoLevel,
}

/// How tokens are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenProvider {
    #[default]
    Fernet,
    Jws,
}

/// An OpenID Connect provider, and what we are to it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OpenId {
    pub issuer: String,
    pub client_id: String,
    pub client_secret: Secret,
    pub scopes: Vec<String>,
    /// The claim that mappings know as `REMOTE_USER`.
    pub remote_user_claim: String,
}

impl Default for OpenId {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            client_id: String::new(),
            client_secret: Secret::default(),
            scopes: ["openid", "email", "profile"].map(String::from).to_vec(),
            remote_user_claim: "sub".into(),
        }
    }
}

/// A SAML 2 identity provider.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Saml {
    /// The file that the provider describes itself with: its name, certificates and login page.
    pub metadata: PathBuf,
    /// How the world reaches this keystone, without `/v3`: assertions must be meant for it.
    pub public_url: String,
    /// Signatures with SHA-1 are taken, as an upstream keystone still makes them.
    pub allow_sha1: bool,
}
