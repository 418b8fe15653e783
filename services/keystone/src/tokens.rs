//! Whether a token still holds and what it gives: its context for the other services, its body for callers.
//! A cache answers the many; a write empties it.

use crate::{
    Keystone,
    catalog::{self, Filling},
    fernet::{Payload, Scope},
    model::*,
    store,
};
use base::{Context, Error, Json, Result, Timestamp, id};
use db::{Filter, List, Tx};
use parking_lot::RwLock;
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// A token that holds.
pub struct Valid {
    pub payload: Payload,
    pub context: Context,
    /// The body of `GET /v3/auth/tokens`, with the catalog and without.
    pub body: String,
    pub body_without_catalog: String,
    pub roles: Vec<Role>,
}

impl Valid {
    /// Whether its holder acts by what somebody gave it, a trust or a stored secret, rather than by its own login.
    pub fn is_delegated(&self) -> bool {
        const DELEGATED: &[&str] = &["application_credential", "ec2credential", "oauth1"];
        matches!(self.payload.scope, Scope::Trust { .. })
            || self.payload.methods.is_empty()
            || self.payload.methods.iter().any(|method| DELEGATED.contains(method))
    }
}

#[derive(Default)]
pub struct Cache(RwLock<HashMap<String, Cached>>);

struct Cached {
    valid: Arc<Valid>,
    generation: u64,
    at: Timestamp,
}

/// Why a token does not hold is logged; callers learn only that.
fn invalid(why: &str) -> Error {
    tracing::debug!(why, "token refused");
    Error::not_found("Failed to validate token").code(INVALID)
}

fn foreign() -> Error {
    Error::not_found("Could not recognize Fernet token").code(INVALID)
}

const INVALID: &str = "keystone.token";

impl Keystone {
    /// A token that holds now; `NotFound` for one that does not.
    pub(crate) async fn valid(&self, token: &str) -> Result<Arc<Valid>> {
        let now = self.clock.now();
        if let Some(valid) = self.cached(token, now) {
            return Ok(valid);
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let valid = self.examine(token, Duration::ZERO).await?;
        self.remember(token, &valid, generation, now);
        Ok(valid)
    }

    fn seal_token(&self, payload: &Payload) -> Result<String> {
        match &self.signing {
            Some(keys) => keys.sign(payload),
            None => self.token_keys.seal(payload),
        }
    }

    fn open_token(&self, token: &str) -> Option<Payload> {
        match &self.signing {
            Some(keys) => keys.verify(token),
            None => self.token_keys.open_token(token),
        }
    }

    /// One that may have expired lately, for services that finish what it began.
    pub(crate) async fn valid_or_lately(&self, token: &str) -> Result<Arc<Valid>> {
        self.examine(token, Duration::from_secs(self.options.allow_expired_window_seconds)).await
    }

    async fn examine(&self, token: &str, grace: Duration) -> Result<Arc<Valid>> {
        let payload = self.open_token(token).ok_or_else(foreign)?;
        let now = self.clock.now();
        if payload.expires_at.plus(grace) <= now {
            return Err(invalid("expired"));
        }
        let believed = Duration::from_secs(self.options.ldap_cache_seconds);
        self.refresh_user(&payload.user_id, believed).await?;
        let lifetime = Duration::from_secs(self.options.token_expiration_seconds) + grace;
        let (text, horizon) = (token.to_string(), now.minus(lifetime));
        self.read(move |tx| {
            let events = store::revocations_since(tx, horizon)?;
            let valid = build(tx, &payload, &text, now)?;
            // By a trust one acts as another user, whose revocations count as well.
            let acting = Payload { user_id: valid.context.user_id.clone(), ..payload.clone() };
            if events.iter().any(|event| event.voids(&payload) || event.voids(&acting)) {
                return Err(invalid("revoked"));
            }
            Ok(Arc::new(valid))
        })
        .await
    }

    fn cached(&self, token: &str, now: Timestamp) -> Option<Arc<Valid>> {
        let entries = self.cache.0.read();
        let entry = entries.get(token)?;
        let fresh = entry.generation == self.generation.load(Ordering::SeqCst)
            && now.since(entry.at) < Duration::from_secs(self.options.token_cache_seconds);
        (fresh && entry.valid.payload.expires_at > now).then(|| entry.valid.clone())
    }

    fn remember(&self, token: &str, valid: &Arc<Valid>, generation: u64, now: Timestamp) {
        let mut entries = self.cache.0.write();
        if entries.len() >= self.options.token_cache_max {
            entries.retain(|_, entry| entry.generation == generation && entry.valid.payload.expires_at > now);
        }
        if entries.len() < self.options.token_cache_max {
            entries.insert(token.to_string(), Cached { valid: valid.clone(), generation, at: now });
        }
    }

    /// The token's text and all that an answer says of it.
    pub(crate) async fn issue(&self, payload: Payload) -> Result<(String, Arc<Valid>)> {
        let token = self.seal_token(&payload)?;
        let (text, now) = (token.clone(), self.clock.now());
        let generation = self.generation.load(Ordering::SeqCst);
        // A token for something its user has no role on is a failed authentication, not a missing token.
        let valid =
            self.read(move |tx| build(tx, &payload, &text, now).map(Arc::new)).await.map_err(|error| {
                if error.code.as_deref() == Some(INVALID) {
                    crate::authentication::unauthorized()
                } else {
                    error
                }
            })?;
        self.remember(&token, &valid, generation, now);
        Ok((token, valid))
    }

    /// Voids the tokens that match. Emptying the cache comes with the write.
    pub(crate) async fn revoke(&self, event: Revocation) -> Result<()> {
        let now = self.clock.now();
        let lifetime = self.options.token_expiration_seconds + self.options.allow_expired_window_seconds;
        let horizon = now.minus(Duration::from_secs(lifetime));
        self.write(move |tx| {
            store::forget_revocations_before(tx, horizon)?;
            tx.insert(&Revocation { id: id::hex(), revoked_at: now, issued_before: now, ..event.clone() })
        })
        .await
    }
}

impl Revocation {
    /// Every given field matches, and the token is not newer.
    fn voids(&self, payload: &Payload) -> bool {
        let credential = match &payload.scope {
            Scope::Application { credential_id, .. } => Some(credential_id),
            _ => None,
        };
        let matches = |wanted: &Option<String>, actual: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| actual == Some(wanted))
        };
        payload.issued_at <= self.issued_before
            && matches(&self.audit_id, payload.audit_ids.first())
            && matches(&self.user_id, Some(&payload.user_id))
            && matches(&self.application_credential_id, credential)
    }
}

/// The token as the database has it now.
fn build(tx: &mut Tx, payload: &Payload, token: &str, now: Timestamp) -> Result<Valid> {
    let refuse = invalid;
    let trust = match &payload.scope {
        Scope::Trust { trust_id, .. } => Some(living_trust(tx, trust_id, now)?),
        _ => None,
    };
    let user = tx.find::<User>(&payload.user_id)?.ok_or_else(|| refuse("no such user"))?;
    let user_domain = tx.find::<Project>(&user.domain_id)?.ok_or_else(|| refuse("no such domain"))?;
    if !user.enabled || !user_domain.enabled {
        return Err(refuse("user disabled"));
    }
    if let Some(federated) = &payload.federated {
        let provider = tx.find::<IdentityProvider>(&federated.idp_id)?.filter(|provider| provider.enabled);
        provider.ok_or_else(|| refuse("the identity provider is gone or disabled"))?;
    }
    let mut context = Context {
        user_id: user.id.clone(),
        user_name: user.name.clone(),
        user_domain_id: user_domain.id.clone(),
        user_domain_name: user_domain.name.clone(),
        token: token.to_string(),
        token_expires_at: Some(payload.expires_at),
        ..Context::default()
    };
    let mut shown = json!({
        "methods": payload.methods,
        "user": {
            "domain": {"id": user_domain.id, "name": user_domain.name},
            "id": user.id, "name": user.name,
            "password_expires_at": user.password_expires_at.map(Timestamp::micros),
        },
        "audit_ids": payload.audit_ids,
        "expires_at": payload.expires_at.micros_z(),
        "issued_at": payload.issued_at.micros_z(),
    });
    let mut holders = vec![user.id.clone()];
    if let Some(federated) = &payload.federated {
        let groups: Vec<Json> = federated.group_ids.iter().map(|id| json!({"id": id})).collect();
        shown["user"]["OS-FEDERATION"] = json!({
            "groups": groups, "identity_provider": {"id": federated.idp_id},
            "protocol": {"id": federated.protocol_id},
        });
        holders.extend(federated.group_ids.iter().cloned());
    }
    let roles = match &payload.scope {
        Scope::Unscoped => Vec::new(),
        Scope::System => {
            context.system_scope = "all".into();
            shown["system"] = json!({"all": true});
            store::role_ids_on(tx, &user.id, ScopeKind::System, "system")?
        }
        Scope::Domain(id) => {
            let domain = tx.find::<Project>(id)?.filter(|domain| domain.is_domain && domain.enabled);
            let domain = domain.ok_or_else(|| refuse("domain disabled"))?;
            shown["domain"] = json!({"id": domain.id, "name": domain.name});
            (context.domain_id, context.domain_name) = (domain.id, domain.name);
            held_by(&holders, |holder| store::role_ids_on(tx, holder, ScopeKind::Domain, id))?
        }
        Scope::Project(id)
        | Scope::Application { project_id: id, .. }
        | Scope::Trust { project_id: id, .. }
        | Scope::OAuth1 { project_id: id, .. } => {
            let project = tx.find::<Project>(id)?.filter(|project| project.enabled);
            let project = project.ok_or_else(|| refuse("project disabled"))?;
            let domain_id = if project.is_domain { &project.id } else { &project.domain_id };
            let domain = tx.find::<Project>(domain_id)?.filter(|domain| domain.enabled);
            let domain = domain.ok_or_else(|| refuse("domain disabled"))?;
            shown["project"] = json!({
                "domain": {"id": domain.id, "name": domain.name}, "id": project.id, "name": project.name,
            });
            shown["is_domain"] = project.is_domain.into();
            (context.project_id, context.project_name) = (project.id, project.name);
            (context.project_domain_id, context.project_domain_name) = (domain.id, domain.name);
            if let Some(trust) = &trust {
                holders = vec![trust.trustor_user_id.clone()];
            }
            held_by(&holders, |holder| store::role_ids_on_project(tx, holder, id))?
        }
    };
    let mut roles = store::with_implied(tx, roles)?;
    if let Scope::Application { credential_id, .. } = &payload.scope {
        let credential = tx.find::<ApplicationCredential>(credential_id)?;
        let credential = credential.ok_or_else(|| refuse("no such application credential"))?;
        if credential.expires_at.is_some_and(|moment| moment <= now) {
            return Err(refuse("application credential expired"));
        }
        let given = store::implied_closure(&store::implications(tx)?, credential.roles.clone());
        roles.retain(|role| given.contains(&role.id));
        shown["application_credential"] = json!({
            "id": credential.id, "name": credential.name, "restricted": credential.unrestricted != Some(true),
        });
        if credential.access_rules.as_array().is_some_and(|rules| !rules.is_empty()) {
            shown["application_credential"]["access_rules"] = credential.access_rules.clone();
        }
    }
    if let Scope::OAuth1 { access_token_id, .. } = &payload.scope {
        let token = tx.find::<AccessToken>(access_token_id)?;
        let token = token.filter(|token| token.expires_at.is_none_or(|moment| moment > now));
        let token = token.ok_or_else(|| refuse("no such access token"))?;
        let given = store::implied_closure(&store::implications(tx)?, token.roles.clone());
        roles.retain(|role| given.contains(&role.id));
        shown["OS-OAUTH1"] = json!({"access_token_id": token.id, "consumer_id": token.consumer_id});
    }
    if let Some(trust) = &trust {
        let given = store::implied_closure(&store::implications(tx)?, trust.roles.clone());
        // What the trustor no longer holds it cannot lend: then the trust gives nothing.
        if !given.iter().all(|id| roles.iter().any(|role| role.id == *id)) {
            return Err(refuse("the trustor lost a role"));
        }
        roles.retain(|role| given.contains(&role.id));
        act_for_trustor(tx, trust, &mut context, &mut shown)?;
    }
    if payload.scope != Scope::Unscoped {
        if roles.is_empty() {
            return Err(refuse("no roles left"));
        }
        shown["roles"] =
            roles.iter().map(|role| json!({"id": role.id, "name": role.name})).collect::<Vec<_>>().into();
    }
    let service_providers = tx.list::<ServiceProvider>(&List::all().eq("enabled", true))?;
    if !service_providers.is_empty() {
        let show =
            |one: &ServiceProvider| json!({"auth_url": one.auth_url, "id": one.id, "sp_url": one.sp_url});
        shown["service_providers"] = service_providers.iter().map(show).collect();
    }
    context.roles = roles.iter().map(|role| role.name.clone()).collect();
    let body_without_catalog = json!({"token": shown}).to_string();
    let body = if payload.scope == Scope::Unscoped {
        body_without_catalog.clone()
    } else {
        let filling = Filling { user_id: &user.id, project_id: &context.project_id };
        shown["catalog"] = catalog::entries(tx, &filling)?;
        json!({"token": shown}).to_string()
    };
    Ok(Valid { payload: payload.clone(), context, body, body_without_catalog, roles })
}

/// What any of them holds: a user and the groups that it is vouched to be in.
pub(crate) fn held_by<T: PartialEq>(
    holders: &[String],
    mut held: impl FnMut(&str) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for holder in holders {
        for one in held(holder)? {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    Ok(all)
}

fn living_trust(tx: &mut Tx, id: &str, now: Timestamp) -> Result<Trust> {
    let trust = tx.find::<Trust>(id)?.filter(|trust| trust.expires_at.is_none_or(|moment| moment > now));
    trust.ok_or_else(|| Error::not_found(format!("Could not find trust: {id}.")).code(INVALID))
}

/// Says whose trust it is; with impersonation the trustee appears as the trustor.
fn act_for_trustor(tx: &mut Tx, trust: &Trust, context: &mut Context, shown: &mut Json) -> Result<()> {
    let trustor = tx.find::<User>(&trust.trustor_user_id)?.filter(|user| user.enabled);
    let trustor = trustor.ok_or_else(|| invalid("the trustor is disabled"))?;
    let domain = tx.find::<Project>(&trustor.domain_id)?.filter(|domain| domain.enabled);
    let domain = domain.ok_or_else(|| invalid("the trustor's domain is disabled"))?;
    shown["OS-TRUST:trust"] = json!({
        "id": trust.id, "trustor_user": {"id": trust.trustor_user_id},
        "trustee_user": {"id": trust.trustee_user_id}, "impersonation": trust.impersonation,
    });
    if let Some(shown) = shown.as_object_mut() {
        shown.remove("is_domain");
    }
    if trust.impersonation {
        shown["user"] = json!({
            "domain": {"id": domain.id, "name": domain.name},
            "id": trustor.id, "name": trustor.name,
            "password_expires_at": trustor.password_expires_at.map(Timestamp::micros),
        });
        (context.user_id, context.user_name) = (trustor.id, trustor.name);
        (context.user_domain_id, context.user_domain_name) = (domain.id, domain.name);
    }
    Ok(())
}

/// Names for many ids at once, for lists that show names.
pub(crate) fn names<T: db::Resource>(
    tx: &mut Tx,
    ids: impl IntoIterator<Item = String>,
    show: impl Fn(&T) -> (String, Json),
) -> Result<HashMap<String, Json>> {
    let ids: Vec<String> = ids.into_iter().collect();
    let rows = tx.list::<T>(&List::all().filter(Filter::any("id", ids.iter().map(String::as_str))))?;
    Ok(rows.iter().map(show).collect())
}
