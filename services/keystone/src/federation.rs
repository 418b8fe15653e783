//! Who somebody from an identity provider is here: asks the mapping, finds or makes the user, its groups and its
//! projects. Where the assertion came from and whether it is genuine is judged before, in `openid`.

use crate::{
    Keystone,
    api::{identity_providers::find_protocol, projects},
    authentication::{Asker, unauthorized},
    fernet::Federated,
    mapping::{self, Assertion, Domain, Mapped, UserKind},
    model::*,
    store,
};
use base::{Error, Result, id};
use db::{List, Tx};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use sha2::{Digest, Sha256};

/// What upstream leaves as it is in the unique ids of users.
const UNQUOTED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

fn refuse(error: Error) -> Error {
    tracing::info!(why = error.message, "federated login refused");
    unauthorized()
}

fn forbid(why: &str) -> Error {
    tracing::info!(why, "federated login refused");
    Error::forbidden("You are not authorized to perform the requested action.")
}

impl Keystone {
    /// Whether one may log in with the provider by the protocol at all.
    pub(crate) async fn check_provider(&self, idp_id: &str, protocol_id: &str) -> Result<()> {
        let (idp_id, protocol_id) = (idp_id.to_string(), protocol_id.to_string());
        self.read(move |tx| {
            let provider: IdentityProvider = store::find(tx, &idp_id)?;
            if !provider.enabled {
                return Err(forbid("the identity provider is disabled"));
            }
            find_protocol(tx, &idp_id, &protocol_id).map(drop)
        })
        .await
    }

    /// The user that a genuine assertion stands for.
    pub(crate) async fn vouched(
        &self,
        idp_id: &str,
        protocol_id: &str,
        assertion: Assertion,
    ) -> Result<Asker> {
        self.check_provider(idp_id, protocol_id).await?;
        let (idp_id, protocol_id) = (idp_id.to_string(), protocol_id.to_string());
        self.write(move |tx| {
            let provider: IdentityProvider = store::find(tx, &idp_id)?;
            let protocol = find_protocol(tx, &idp_id, &protocol_id)?;
            check_remote_id(&provider, &protocol, &assertion)?;
            let rules: Mapping = store::find(tx, &protocol.mapping_id)?;
            let mapped = mapping::map(&rules.rules, &rules.schema_version, &assertion).map_err(refuse)?;
            if mapped.user.kind == UserKind::Local {
                return Ok(Asker::new(local_user(tx, &mapped)?, "mapped"));
            }
            let group_ids = groups(tx, &mapped)?;
            let user = shadow(tx, &provider, &protocol, &mapped, assertion.get("REMOTE_USER"))?;
            give_projects(tx, &provider, &user, &mapped, rules.schema_version.as_str())?;
            let federated = Federated { group_ids, idp_id: provider.id, protocol_id: protocol.id };
            Ok(Asker { federated: Some(federated), ..Asker::new(user, "mapped") })
        })
        .await
    }
}

/// An assertion must come from the provider that it is used for.
fn check_remote_id(
    provider: &IdentityProvider,
    protocol: &FederationProtocol,
    assertion: &Assertion,
) -> Result<()> {
    let Some(attribute) = &protocol.remote_id_attribute else { return Ok(()) };
    if provider.remote_ids.is_empty() {
        return Ok(());
    }
    let named = assertion
        .get(attribute)
        .ok_or_else(|| Error::bad_request("Could not find Identity Provider identifier in environment"))?;
    match provider.remote_ids.contains(named) {
        true => Ok(()),
        false => Err(forbid("the assertion is another provider's")),
    }
}

fn domain_id(tx: &mut Tx, named: &Domain) -> Result<String> {
    if let Some(id) = &named.id {
        return Ok(store::domain(tx, id)?.id);
    }
    let name = named.name.as_deref().unwrap_or_default();
    let found = store::domain_by_name(tx, name)?;
    found.map(|domain| domain.id).ok_or_else(|| store::not_found("domain", name))
}

/// Somebody who is here anyway.
fn local_user(tx: &mut Tx, mapped: &Mapped) -> Result<User> {
    let user = match (&mapped.user.id, &mapped.user.name, &mapped.user.domain) {
        (Some(id), _, _) => tx.find::<User>(id)?,
        (None, Some(name), Some(domain)) => {
            let domain_id = domain_id(tx, domain).map_err(refuse)?;
            store::user_by_name(tx, name, &domain_id)?
        }
        _ => None,
    };
    user.filter(|user| user.enabled).ok_or_else(|| refuse(Error::not_found("no such local user")))
}

/// Groups that are named by id must be there; of those named otherwise, the ones that are.
fn groups(tx: &mut Tx, mapped: &Mapped) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for id in &mapped.group_ids {
        let group = tx.find::<Group>(id)?;
        let group =
            group.ok_or_else(|| refuse(Error::not_found(format!("no group {id}, which is mapped to"))))?;
        ids.push(group.id);
    }
    for named in &mapped.group_names {
        let domain_id = domain_id(tx, &named.domain)?;
        let wanted = List::all().eq("domain_id", domain_id).eq("name", named.name.as_str());
        ids.extend(tx.list::<Group>(&wanted)?.into_iter().map(|group| group.id));
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// The user that stands for somebody known elsewhere, made at its first login.
fn shadow(
    tx: &mut Tx,
    provider: &IdentityProvider,
    protocol: &FederationProtocol,
    mapped: &Mapped,
    remote_user: Option<&String>,
) -> Result<User> {
    let said = &mapped.user;
    let name = said.name.as_ref().or(remote_user).or(said.id.as_ref());
    let name = name.ok_or_else(|| refuse(Error::bad_request("the mapping names no user")))?.clone();
    let unique_id = utf8_percent_encode(said.id.as_ref().unwrap_or(&name), UNQUOTED).to_string();
    let domain_id = match &said.domain {
        Some(domain) => domain_id(tx, domain)?,
        None => provider.domain_id.clone(),
    };
    let wanted = List::all()
        .eq("idp_id", provider.id.as_str())
        .eq("protocol_id", protocol.id.as_str())
        .eq("unique_id", unique_id.as_str());
    if let Some(known) = tx.list::<FederatedUser>(&wanted)?.into_iter().next() {
        let mut user: User = store::find(tx, &known.user_id)?;
        if !user.enabled {
            return Err(refuse(Error::forbidden("the user is disabled")));
        }
        if user.name != name {
            user.name = name;
            tx.update(&user)?;
        }
        return Ok(user);
    }
    let user = User {
        id: public_id(&domain_id, "user", &unique_id),
        name,
        domain_id,
        enabled: true,
        default_project_id: None,
        password_hash: None,
        password_changed_at: None,
        password_expires_at: None,
        password_set_by_owner: false,
        failed_logins: 0,
        failed_login_at: None,
        last_active_at: None,
        options: json!({}),
        extra: said.email.as_ref().map_or_else(|| json!({}), |email| json!({"email": email})),
    };
    let (idp_id, protocol_id) = (provider.id.clone(), protocol.id.clone());
    let taken = tx.find::<User>(&user.id)?.is_some()
        || store::user_by_name(tx, &user.name, &user.domain_id)?.is_some();
    if taken {
        // Never somebody else's account, whatever a provider calls its users.
        return Err(Error::conflict(format!(
            "Conflict occurred attempting to store federated_user - Duplicate entry found with name {} at domain ID {}.",
            user.name, user.domain_id
        )));
    }
    tx.insert(&user)?;
    tx.insert(&FederatedUser { idp_id, protocol_id, unique_id, user_id: user.id.clone() })?;
    Ok(user)
}

/// As upstream makes the ids of users and groups from elsewhere.
pub(crate) fn public_id(domain_id: &str, kind: &str, local_id: &str) -> String {
    let digest = Sha256::digest(format!("{domain_id}{kind}{local_id}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Projects that the mapping names are made where they are missing, and their roles given. From version 3 what it
/// does not name any more is taken away.
fn give_projects(
    tx: &mut Tx,
    provider: &IdentityProvider,
    user: &User,
    mapped: &Mapped,
    version: &str,
) -> Result<()> {
    let syncs = version >= mapping::SYNCS_PROJECTS;
    if mapped.projects.is_empty() && !syncs {
        return Ok(());
    }
    let held: Vec<Assignment> =
        tx.list::<Assignment>(&List::all().eq("actor_id", user.id.as_str()).eq("scope", ScopeKind::Project))?;
    let mut wanted = Vec::new();
    for named in &mapped.projects {
        let domain_id = match &named.domain {
            Some(domain) => domain_id(tx, domain)?,
            None => provider.domain_id.clone(),
        };
        let project_id = match store::project_by_name(tx, &named.name, &domain_id)? {
            Some(project) => project.id,
            None => new_project(tx, &named.name, &domain_id)?,
        };
        for role in &named.roles {
            wanted.push(Assignment {
                actor: ActorKind::User,
                actor_id: user.id.clone(),
                scope: ScopeKind::Project,
                scope_id: project_id.clone(),
                role_id: role_id(tx, &role.name, &user.domain_id)?,
                inherited: false,
            });
        }
    }
    for assignment in wanted.iter().filter(|assignment| !held.contains(assignment)) {
        if tx.get::<Assignment>(&db::Resource::values(assignment))?.is_none() {
            tx.insert(assignment)?;
        }
    }
    for assignment in held.iter().filter(|assignment| syncs && !wanted.contains(assignment)) {
        tx.delete::<Assignment>(&db::Resource::values(assignment))?;
    }
    Ok(())
}

/// A role of the whole cloud, or of the user's domain.
fn role_id(tx: &mut Tx, name: &str, domain_id: &str) -> Result<String> {
    for domain_id in ["", domain_id] {
        let wanted = List::all().eq("domain_id", domain_id).eq("name", name);
        if let Some(role) = tx.list::<Role>(&wanted)?.into_iter().next() {
            return Ok(role.id);
        }
    }
    Err(store::not_found("role", name))
}

fn new_project(tx: &mut Tx, name: &str, domain_id: &str) -> Result<String> {
    let id = id::hex();
    let project = Project {
        id: id.clone(),
        name: name.into(),
        domain_id: domain_id.into(),
        parent_id: Some(domain_id.into()),
        description: String::new(),
        enabled: true,
        is_domain: false,
        tags: Vec::new(),
        options: json!({}),
        extra: json!({}),
    };
    projects::insert(tx, &project, 1)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_upstream_s() {
        let id = public_id("default", "user", "bob%40example.com");
        assert_eq!(id, "5328c48f85a665df59dad3e05f5094337cdb33b4cdbdc20b1a17d3c5cb1a0e01");
    }
}
