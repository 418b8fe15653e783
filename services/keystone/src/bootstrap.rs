//! What a new cloud begins with: a domain, roles that imply each other, an admin, a service project, a catalog.
//! Run at every start; what is there already is left as it is.

use crate::{
    Keystone,
    compliance::{Setter, set_password},
    model::*,
    password, store,
};
use base::{Error, Result, Secret, id};
use db::{List, Tx};
use serde_json::json;

/// What to begin with.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Taken only when there is no admin yet.
    pub admin_password: Secret,
    pub region: String,
    pub endpoints: Vec<EndpointUrls>,
    /// Made together with the admin, and never again.
    pub members: Vec<FirstMember>,
}

/// A user who is a member of a project of its own name.
#[derive(Clone, Debug)]
pub struct FirstMember {
    pub name: String,
    pub password: Secret,
}

/// A service and where it answers; a URL may hold `$(project_id)s`.
#[derive(Clone, Debug)]
pub struct EndpointUrls {
    pub service_type: String,
    pub service_name: String,
    pub public: String,
    pub internal: String,
    pub admin: String,
}

pub const DEFAULT_DOMAIN: &str = "default";

/// Each implies the next.
const ROLES: &[&str] = &["admin", "manager", "member", "reader"];

impl Keystone {
    /// The id of a project of the default domain: those of a new cloud own what it begins with.
    pub async fn project_named(&self, name: &str) -> Result<String> {
        let name = name.to_string();
        let found = self.read(move |tx| store::project_by_name(tx, &name, DEFAULT_DOMAIN)).await?;
        found.map(|project| project.id).ok_or_else(|| Error::internal("the project is gone"))
    }

    /// Whether an admin was made, and the given password is its.
    pub async fn bootstrap(&self, wanted: Bootstrap) -> Result<bool> {
        let has_admin = |tx: &mut Tx| Ok(store::user_by_name(tx, "admin", DEFAULT_DOMAIN)?.is_some());
        let hash = |password: Secret| password::hash(password, self.options.password_hash_rounds);
        let made = !self.read(has_admin).await?;
        let (hash, member_hashes) = match made {
            false => (None, Vec::new()),
            true => {
                let members = wanted.members.iter().map(|member| hash(member.password.clone()));
                let (admin, members) = tokio::try_join!(
                    hash(wanted.admin_password.clone()),
                    futures::future::try_join_all(members)
                )?;
                (Some(admin), members)
            }
        };
        self.write(move |tx| {
            domain(tx)?;
            let roles = roles(tx)?;
            region(tx, &wanted.region)?;
            let admin_project = project(tx, "admin", "Bootstrap project for initializing the cloud.")?;
            let service_project = project(tx, "service", "Project of the cloud's own services.")?;
            let admin = user(tx, "admin", hash.clone())?;
            grant(tx, &admin, ScopeKind::Project, &admin_project, &roles[0])?;
            grant(tx, &admin, ScopeKind::System, "system", &roles[0])?;
            let service_role = role(tx, "service")?;
            for urls in &wanted.endpoints {
                let service_user = user(tx, &urls.service_name, None)?;
                grant(tx, &service_user, ScopeKind::Project, &service_project, &service_role)?;
                grant(tx, &service_user, ScopeKind::Project, &service_project, &roles[0])?;
                endpoints(tx, urls, &wanted.region)?;
            }
            for (member, hash) in wanted.members.iter().zip(&member_hashes) {
                let project = project(tx, &member.name, "")?;
                let user = user(tx, &member.name, Some(hash.clone()))?;
                grant(tx, &user, ScopeKind::Project, &project, &roles[2])?;
            }
            Ok(())
        })
        .await?;
        Ok(made)
    }
}

impl Keystone {
    /// A way back in: the admin of the default domain gets this password, is enabled and unlocked, and holds its
    /// roles again. What it was logged in with is void.
    pub async fn reset_admin(&self, password: Secret) -> Result<()> {
        let hash = password::hash(password, self.options.password_hash_rounds).await?;
        let (compliance, now) = (self.options.security_compliance.clone(), self.clock.now());
        self.write(move |tx| {
            let admin = store::user_by_name(tx, "admin", DEFAULT_DOMAIN)?;
            let mut admin = admin.ok_or_else(|| store::not_found("user", "admin"))?;
            set_password(tx, &compliance, &mut admin, &hash, Setter::Owner, now)?;
            admin.enabled = true;
            admin.last_active_at = Some(now);
            admin.forget_failures();
            admin.options = json!({});
            tx.update(&admin)?;
            let role = role(tx, ROLES[0])?;
            let project = project(tx, "admin", "Bootstrap project for initializing the cloud.")?;
            grant(tx, &admin.id, ScopeKind::Project, &project, &role)?;
            grant(tx, &admin.id, ScopeKind::System, "system", &role)?;
            let user_id = Some(admin.id.clone());
            let id = id::hex();
            tx.insert(&Revocation {
                id,
                revoked_at: now,
                issued_before: now,
                user_id,
                ..Revocation::default()
            })
        })
        .await
    }
}

fn domain(tx: &mut Tx) -> Result<()> {
    if tx.find::<Project>(DEFAULT_DOMAIN)?.is_some() {
        return Ok(());
    }
    tx.insert(&Project {
        id: DEFAULT_DOMAIN.into(),
        name: "Default".into(),
        domain_id: String::new(),
        parent_id: None,
        description: "The default domain".into(),
        enabled: true,
        is_domain: true,
        tags: Vec::new(),
        options: json!({}),
        extra: json!({}),
    })
}

/// Ids in the order of [`ROLES`].
fn roles(tx: &mut Tx) -> Result<Vec<String>> {
    let ids = ROLES.iter().map(|name| role(tx, name)).collect::<Result<Vec<_>>>()?;
    for pair in ids.windows(2) {
        let edge = ImpliedRole { prior_role_id: pair[0].clone(), implied_role_id: pair[1].clone() };
        let key = [db::Value::Text(pair[0].clone()), db::Value::Text(pair[1].clone())];
        if tx.get::<ImpliedRole>(&key)?.is_none() {
            tx.insert(&edge)?;
        }
    }
    Ok(ids)
}

fn role(tx: &mut Tx, name: &str) -> Result<String> {
    let wanted = List::all().eq("domain_id", "").eq("name", name);
    if let Some(role) = tx.list::<Role>(&wanted)?.into_iter().next() {
        return Ok(role.id);
    }
    let options = json!({"immutable": true});
    let (id, name) = (id::hex(), name.to_string());
    let row =
        Role { id: id.clone(), name, domain_id: String::new(), description: None, options, extra: json!({}) };
    tx.insert(&row)?;
    Ok(id)
}

fn region(tx: &mut Tx, id: &str) -> Result<()> {
    if tx.find::<Region>(id)?.is_some() {
        return Ok(());
    }
    let description = String::new();
    tx.insert(&Region { id: id.into(), description, parent_region_id: None, extra: json!({}) })
}

fn project(tx: &mut Tx, name: &str, description: &str) -> Result<String> {
    if let Some(project) = store::project_by_name(tx, name, DEFAULT_DOMAIN)? {
        return Ok(project.id);
    }
    let id = id::hex();
    tx.insert(&Project {
        id: id.clone(),
        name: name.into(),
        domain_id: DEFAULT_DOMAIN.into(),
        parent_id: Some(DEFAULT_DOMAIN.into()),
        description: description.into(),
        enabled: true,
        is_domain: false,
        tags: Vec::new(),
        options: json!({}),
        extra: json!({}),
    })?;
    Ok(id)
}

fn user(tx: &mut Tx, name: &str, password_hash: Option<String>) -> Result<String> {
    if let Some(user) = store::user_by_name(tx, name, DEFAULT_DOMAIN)? {
        return Ok(user.id);
    }
    let id = id::hex();
    tx.insert(&User {
        id: id.clone(),
        name: name.into(),
        domain_id: DEFAULT_DOMAIN.into(),
        enabled: true,
        default_project_id: None,
        password_hash,
        password_changed_at: None,
        password_expires_at: None,
        password_set_by_owner: false,
        failed_logins: 0,
        failed_login_at: None,
        last_active_at: None,
        options: json!({}),
        extra: json!({}),
    })?;
    Ok(id)
}

fn grant(tx: &mut Tx, user_id: &str, scope: ScopeKind, scope_id: &str, role_id: &str) -> Result<()> {
    let row = Assignment {
        actor: ActorKind::User,
        actor_id: user_id.into(),
        scope,
        scope_id: scope_id.into(),
        role_id: role_id.into(),
        inherited: false,
    };
    match tx.get::<Assignment>(&db::Resource::values(&row))? {
        Some(_) => Ok(()),
        None => tx.insert(&row),
    }
}

/// Our own have ids that follow from what they are; they follow the configuration at every start.
fn endpoints(tx: &mut Tx, urls: &EndpointUrls, region: &str) -> Result<()> {
    let own_id = |parts: &[&str]| id::derived(parts).replace('-', "");
    let service_id = own_id(&["service", &urls.service_type, &urls.service_name]);
    if tx.find::<Service>(&service_id)?.is_none() {
        let (id, kind, name) = (service_id.clone(), urls.service_type.clone(), urls.service_name.clone());
        tx.insert(&Service { id, kind, name, enabled: true, extra: json!({}) })?;
    }
    for (interface, url) in [("public", &urls.public), ("internal", &urls.internal), ("admin", &urls.admin)] {
        let row = Endpoint {
            id: own_id(&["endpoint", &service_id, interface, region]),
            service_id: service_id.clone(),
            interface: interface.into(),
            region_id: Some(region.into()),
            url: url.clone(),
            enabled: true,
            extra: json!({}),
        };
        match tx.find::<Endpoint>(&row.id)? {
            None => tx.insert(&row)?,
            Some(found) => drop(tx.update(&Endpoint { url: row.url, ..found })?),
        }
    }
    Ok(())
}
