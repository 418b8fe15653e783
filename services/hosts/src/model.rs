//! The nouns as tables.

use base::Timestamp;
use db::{Resource, Table, text_enum};

pub const TABLES: &[&Table] = &[HostRow::TABLE, TokenRow::TABLE, AuthorityRow::TABLE];

text_enum! {
    pub enum HostState {
        Active = "active",
        /// The operator empties it; what is there goes elsewhere.
        Draining = "draining",
        Removed = "removed",
    }
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "host")]
pub struct HostRow {
    #[field(key)]
    pub name: String,
    pub roles: Vec<String>,
    pub address: String,
    pub version: String,
    pub state: HostState,
    /// Of its certificates, the newest and the one before: the answer with the newest may have been lost.
    pub serial: String,
    pub serial_before: String,
    pub joined_at: Timestamp,
    pub last_seen_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "join_token")]
pub struct TokenRow {
    #[field(key)]
    pub id: String,
    /// SHA-256 of what its holder must know.
    pub hash: String,
    /// What a host that joins by it may be; empty: anything.
    pub roles: Vec<String>,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
}

/// There is one.
#[derive(Clone, Debug, Resource)]
#[resource(table = "authority")]
pub struct AuthorityRow {
    #[field(key)]
    pub id: String,
    pub certificate: String,
    pub private_key: String,
    pub made_at: Timestamp,
}
