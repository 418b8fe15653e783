//! The nouns of identity as tables. Domains are projects that act as domains, as upstream has them.

use base::{Json, Timestamp};
use db::Resource;

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "users",
    singular = "user",
    unique = "domain_id, name",
    index = "name",
    index = "domain_id, id"
)]
pub struct User {
    #[field(key, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub name: String,
    #[field(filter)]
    pub domain_id: String,
    #[field(filter)]
    pub enabled: bool,
    pub default_project_id: Option<String>,
    #[field(hidden)]
    pub password_hash: Option<String>,
    #[field(hidden)]
    pub password_changed_at: Option<Timestamp>,
    /// Set with the password, from what was configured then.
    pub password_expires_at: Option<Timestamp>,
    #[field(hidden)]
    pub password_set_by_owner: bool,
    #[field(hidden)]
    pub failed_logins: i64,
    #[field(hidden)]
    pub failed_login_at: Option<Timestamp>,
    /// The last login, or the creation: who stays away too long may not come back.
    #[field(hidden)]
    pub last_active_at: Option<Timestamp>,
    pub options: Json,
    pub extra: Json,
}

/// A password that a user had, kept while it may not be used again. The newest is the one in force.
#[derive(Clone, Debug, Resource)]
#[resource(table = "old_passwords", singular = "old_password", index = "user_id")]
pub struct OldPassword {
    #[field(key)]
    pub id: String,
    pub user_id: String,
    #[field(sort)]
    pub set_at: Timestamp,
    pub password_hash: String,
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "projects",
    singular = "project",
    unique = "domain_id, name",
    index = "parent_id",
    index = "name",
    index = "domain_id, id"
)]
pub struct Project {
    #[field(key, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub name: String,
    /// Empty for one that acts as a domain.
    #[field(filter)]
    pub domain_id: String,
    #[field(filter)]
    pub parent_id: Option<String>,
    pub description: String,
    #[field(filter)]
    pub enabled: bool,
    #[field(filter)]
    pub is_domain: bool,
    pub tags: Vec<String>,
    pub options: Json,
    pub extra: Json,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "user_groups", singular = "group", unique = "domain_id, name", index = "domain_id, id")]
pub struct Group {
    #[field(key, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub name: String,
    #[field(filter)]
    pub domain_id: String,
    pub description: String,
    pub extra: Json,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "membership", index = "group_id")]
pub struct Membership {
    #[field(key)]
    pub user_id: String,
    #[field(key)]
    pub group_id: String,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "roles", singular = "role", unique = "domain_id, name")]
pub struct Role {
    #[field(key, sort)]
    pub id: String,
    #[field(filter, sort)]
    pub name: String,
    /// Empty for a role of the whole cloud.
    #[field(filter)]
    pub domain_id: String,
    pub description: Option<String>,
    pub options: Json,
    pub extra: Json,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "implied_roles", singular = "role_inference")]
pub struct ImpliedRole {
    #[field(key)]
    pub prior_role_id: String,
    #[field(key)]
    pub implied_role_id: String,
}

db::text_enum! { pub enum ActorKind { User = "user", Group = "group" } }
db::text_enum! { pub enum ScopeKind { Project = "project", Domain = "domain", System = "system" } }

/// Who holds which role on what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Resource)]
#[resource(
    table = "assignments",
    singular = "role_assignment",
    index = "scope_id",
    index = "role_id",
    index = "actor_id"
)]
pub struct Assignment {
    #[field(key)]
    pub actor: ActorKind,
    #[field(key)]
    pub actor_id: String,
    #[field(key)]
    pub scope: ScopeKind,
    /// `system` for the system.
    #[field(key)]
    pub scope_id: String,
    #[field(key)]
    pub role_id: String,
    /// Holds on the projects below, not on the target itself.
    #[field(key)]
    pub inherited: bool,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "services", singular = "service")]
pub struct Service {
    #[field(key, sort)]
    pub id: String,
    #[field(filter, json = "type")]
    pub kind: String,
    #[field(filter)]
    pub name: String,
    pub enabled: bool,
    pub extra: Json,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "endpoints", singular = "endpoint", index = "service_id", index = "region_id")]
pub struct Endpoint {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub service_id: String,
    #[field(filter)]
    pub interface: String,
    #[field(filter)]
    pub region_id: Option<String>,
    pub url: String,
    pub enabled: bool,
    pub extra: Json,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "regions", singular = "region", index = "parent_region_id")]
pub struct Region {
    #[field(key, sort)]
    pub id: String,
    pub description: String,
    #[field(filter)]
    pub parent_region_id: Option<String>,
    pub extra: Json,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "credentials", singular = "credential", index = "user_id")]
pub struct Credential {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub user_id: String,
    #[field(filter)]
    pub project_id: Option<String>,
    #[field(filter, json = "type")]
    pub kind: String,
    /// Encrypted with the credential keys.
    #[field(hidden)]
    pub blob: String,
    pub extra: Json,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "application_credentials", singular = "application_credential", unique = "user_id, name")]
pub struct ApplicationCredential {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub name: String,
    #[field(filter)]
    pub user_id: String,
    pub project_id: String,
    pub description: Option<String>,
    #[field(hidden)]
    pub secret_hash: String,
    pub expires_at: Option<Timestamp>,
    pub unrestricted: Option<bool>,
    /// Ids of roles.
    pub roles: Vec<String>,
    pub access_rules: Json,
}

/// A user lets another act for it.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "trusts",
    singular = "trust",
    index = "trustor_user_id",
    index = "trustee_user_id",
    index = "expires_at"
)]
pub struct Trust {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub trustor_user_id: String,
    #[field(filter)]
    pub trustee_user_id: String,
    pub project_id: Option<String>,
    pub impersonation: bool,
    pub expires_at: Option<Timestamp>,
    /// None: as often as wanted.
    pub remaining_uses: Option<i64>,
    /// Ids of roles.
    pub roles: Vec<String>,
}

/// What an application credential may call; shared by those of one user.
#[derive(Clone, Debug, Resource)]
#[resource(table = "access_rules", singular = "access_rule", unique = "user_id, service, path, method")]
pub struct AccessRule {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub user_id: String,
    #[field(filter)]
    pub service: String,
    #[field(filter)]
    pub path: String,
    #[field(filter)]
    pub method: String,
}

/// A statement that tokens which match every given field and were issued until a moment are void.
#[derive(Clone, Debug, Default, Resource)]
#[resource(table = "revocations", singular = "event", index = "revoked_at")]
pub struct Revocation {
    #[field(key)]
    pub id: String,
    pub revoked_at: Timestamp,
    pub issued_before: Timestamp,
    pub audit_id: Option<String>,
    pub user_id: Option<String>,
    pub application_credential_id: Option<String>,
}

/// The limit of a resource where no project or domain has one of its own.
#[derive(Clone, Debug, Resource)]
#[resource(
    table = "registered_limits",
    singular = "registered_limit",
    unique = "service_id, region_id, resource_name"
)]
pub struct RegisteredLimit {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub service_id: String,
    /// Empty for all regions.
    #[field(filter)]
    pub region_id: String,
    #[field(filter)]
    pub resource_name: String,
    pub default_limit: i64,
    pub description: Option<String>,
}

/// The limit of one project or domain.
#[derive(Clone, Debug, Resource)]
#[resource(table = "limits", singular = "limit", unique = "registered_limit_id, project_id, domain_id")]
pub struct Limit {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub registered_limit_id: String,
    /// Empty for a domain's.
    #[field(filter)]
    pub project_id: String,
    /// Empty for a project's.
    #[field(filter)]
    pub domain_id: String,
    #[field(filter)]
    pub service_id: String,
    #[field(filter)]
    pub region_id: String,
    #[field(filter)]
    pub resource_name: String,
    pub resource_limit: i64,
    pub description: Option<String>,
}

/// A text that services may fetch as their policy.
#[derive(Clone, Debug, Resource)]
#[resource(table = "policies", singular = "policy")]
pub struct Policy {
    #[field(key, sort)]
    pub id: String,
    pub blob: String,
    #[field(filter, json = "type")]
    pub kind: String,
    pub extra: Json,
}

/// For which endpoints a policy is meant: one, those of a service, or those of a service in a region.
#[derive(Clone, Debug, Resource)]
#[resource(table = "policy_associations", singular = "policy_association", index = "policy_id")]
pub struct PolicyAssociation {
    /// Empty where it does not matter; so are the next two.
    #[field(key)]
    pub endpoint_id: String,
    #[field(key)]
    pub service_id: String,
    #[field(key)]
    pub region_id: String,
    pub policy_id: String,
}

/// Endpoints chosen by what they have in common.
#[derive(Clone, Debug, Resource)]
#[resource(table = "endpoint_groups", singular = "Endpoint Group")]
pub struct EndpointGroup {
    #[field(key, sort)]
    pub id: String,
    #[field(filter)]
    pub name: String,
    pub description: Option<String>,
    pub filters: Json,
}

/// A project that sees chosen endpoints in its catalog sees no others.
#[derive(Clone, Debug, Resource)]
#[resource(table = "project_endpoints", singular = "project_endpoint", index = "project_id")]
pub struct ProjectEndpoint {
    #[field(key)]
    pub endpoint_id: String,
    #[field(key)]
    pub project_id: String,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "project_endpoint_groups", singular = "project_endpoint_group", index = "project_id")]
pub struct ProjectEndpointGroup {
    #[field(key)]
    pub endpoint_group_id: String,
    #[field(key)]
    pub project_id: String,
}

/// One option of one domain's own configuration.
#[derive(Clone, Debug, Resource)]
#[resource(table = "domain_options", singular = "domain_option")]
pub struct DomainOption {
    #[field(key)]
    pub domain_id: String,
    #[field(key)]
    pub section: String,
    #[field(key, sort)]
    pub name: String,
    pub value: Json,
    /// Never shown; the value is text encrypted with the credential keys.
    pub sensitive: bool,
}

/// A program that acts for users by OAuth 1.
#[derive(Clone, Debug, Resource)]
#[resource(table = "consumers", singular = "consumer")]
pub struct Consumer {
    #[field(key, sort)]
    pub id: String,
    pub description: Option<String>,
    /// Encrypted with the credential keys: signatures need it as it is.
    #[field(hidden)]
    pub secret: String,
    pub extra: Json,
}

/// What a consumer asks a user to authorize, and once authorized trades for an access token.
#[derive(Clone, Debug, Resource)]
#[resource(table = "request_tokens", singular = "request_token", index = "consumer_id", index = "expires_at")]
pub struct RequestToken {
    #[field(key)]
    pub id: String,
    #[field(hidden)]
    pub secret: String,
    pub verifier: Option<String>,
    pub authorizing_user_id: Option<String>,
    pub requested_project_id: String,
    /// Ids of roles.
    pub roles: Vec<String>,
    pub consumer_id: String,
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(
    table = "access_tokens",
    singular = "access_token",
    index = "authorizing_user_id",
    index = "consumer_id",
    index = "expires_at"
)]
pub struct AccessToken {
    #[field(key, sort)]
    pub id: String,
    #[field(hidden)]
    pub secret: String,
    #[field(filter)]
    pub authorizing_user_id: String,
    pub project_id: String,
    /// Ids of roles.
    pub roles: Vec<String>,
    #[field(filter)]
    pub consumer_id: String,
    pub expires_at: Option<Timestamp>,
}

/// Who vouches for users that log in from elsewhere.
#[derive(Clone, Debug, Resource)]
#[resource(table = "identity_providers", singular = "Identity Provider")]
pub struct IdentityProvider {
    #[field(key, sort, filter)]
    pub id: String,
    #[field(filter)]
    pub domain_id: String,
    #[field(filter)]
    pub enabled: bool,
    pub description: Option<String>,
    /// How it calls itself; of all identity providers no two have one in common.
    pub remote_ids: Vec<String>,
    /// Minutes for which groups of its users hold beyond their tokens.
    pub authorization_ttl: Option<i64>,
}

/// A way to log in with an identity provider, and how what it says is understood.
#[derive(Clone, Debug, Resource)]
#[resource(table = "federation_protocols", singular = "federation_protocol")]
pub struct FederationProtocol {
    #[field(key)]
    pub idp_id: String,
    #[field(key, sort)]
    pub id: String,
    pub mapping_id: String,
    pub remote_id_attribute: Option<String>,
}

/// Rules that make of an assertion a user with groups and projects.
#[derive(Clone, Debug, Resource)]
#[resource(table = "mappings", singular = "mapping")]
pub struct Mapping {
    #[field(key, sort)]
    pub id: String,
    pub schema_version: String,
    pub rules: Json,
}

/// Another cloud that trusts our assertions.
#[derive(Clone, Debug, Resource)]
#[resource(table = "service_providers", singular = "Service Provider")]
pub struct ServiceProvider {
    #[field(key, sort, filter)]
    pub id: String,
    #[field(filter)]
    pub enabled: bool,
    pub description: Option<String>,
    pub auth_url: String,
    pub sp_url: String,
    pub relay_state_prefix: String,
}

/// The user that somebody from an identity provider is here.
#[derive(Clone, Debug, Resource)]
#[resource(table = "federated_users", singular = "federated_user", index = "user_id")]
pub struct FederatedUser {
    #[field(key)]
    pub idp_id: String,
    #[field(key)]
    pub protocol_id: String,
    #[field(key)]
    pub unique_id: String,
    pub user_id: String,
}

/// A SAML assertion that was taken: never again while it holds, and once good for a login.
#[derive(Clone, Debug, Resource)]
#[resource(table = "taken_assertions", singular = "taken_assertion", index = "session", index = "until")]
pub struct TakenAssertion {
    #[field(key)]
    pub idp_id: String,
    #[field(key)]
    pub id: String,
    pub protocol_id: String,
    /// A digest of the cookie that logs in with it; empty afterwards.
    pub session: String,
    pub in_response_to: Option<String>,
    pub said: Json,
    pub taken_at: Timestamp,
    pub until: Timestamp,
}

/// A signed request that was taken; the same again is somebody else's copy of it.
#[derive(Clone, Debug, Resource)]
#[resource(table = "used_signatures", singular = "used_signature", index = "at")]
pub struct UsedSignature {
    /// Of the consumer and the signature.
    #[field(key)]
    pub digest: String,
    pub at: Timestamp,
}

db::text_enum! { pub enum EntryKind { User = "user", Group = "group" } }

/// What a user or group is in the directory of its domain.
#[derive(Clone, Debug, Resource)]
#[resource(table = "directory_entries", singular = "directory_entry", index = "domain_id")]
pub struct DirectoryEntry {
    #[field(key)]
    pub id: String,
    pub domain_id: String,
    pub kind: EntryKind,
    pub local_id: String,
    pub dn: String,
    pub read_at: Timestamp,
}

pub const TABLES: &[&db::Table] = &[
    User::TABLE,
    OldPassword::TABLE,
    Project::TABLE,
    Group::TABLE,
    Membership::TABLE,
    Role::TABLE,
    ImpliedRole::TABLE,
    Assignment::TABLE,
    Service::TABLE,
    Endpoint::TABLE,
    Region::TABLE,
    Credential::TABLE,
    ApplicationCredential::TABLE,
    AccessRule::TABLE,
    Trust::TABLE,
    Revocation::TABLE,
    RegisteredLimit::TABLE,
    Limit::TABLE,
    Policy::TABLE,
    PolicyAssociation::TABLE,
    EndpointGroup::TABLE,
    ProjectEndpoint::TABLE,
    ProjectEndpointGroup::TABLE,
    DomainOption::TABLE,
    Consumer::TABLE,
    RequestToken::TABLE,
    AccessToken::TABLE,
    IdentityProvider::TABLE,
    FederationProtocol::TABLE,
    Mapping::TABLE,
    ServiceProvider::TABLE,
    FederatedUser::TABLE,
    TakenAssertion::TABLE,
    DirectoryEntry::TABLE,
    UsedSignature::TABLE,
];
