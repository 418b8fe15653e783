//! `POST /v3/auth/tokens`: who asks (by password, token or application credential) and for what scope.
//! Whatever is wrong with either, the answer is the same 401; the reason goes to the log.

use crate::{
    Keystone,
    compliance::Refusal,
    fernet::{self, Federated, Payload, Scope},
    model::*,
    oauth1::Signed,
    options::OpenId,
    password,
    receipts::{self, Receipt},
    schemas, store,
    tokens::Valid,
    totp,
};
use base::{Error, Json, Result, Secret, Timestamp};
use db::{List, Tx};
use std::{sync::Arc, time::Duration};
use web::Request;

const REQUIRES: &str = "The request you have made requires authentication.";

pub fn unauthorized() -> Error {
    Error::unauthorized(REQUIRES)
}

pub(crate) fn refuse(why: &str) -> Error {
    tracing::info!(why, "authentication refused");
    unauthorized()
}

/// Upstream's sentence for what a body lacks.
pub fn expecting(attribute: &str, target: &str) -> Error {
    Error::bad_request(format!(
        "Expecting to find {attribute} in {target}. The server could not comply with the request since it is \
         either malformed or otherwise incorrect. The client is assumed to be in error."
    ))
}

/// What a login is answered with.
pub enum Answer {
    Token(String, Arc<Valid>),
    /// Right so far, but the user's rules ask for another method.
    More(Receipt),
}

/// Who was found to ask.
pub(crate) struct Asker {
    pub user: User,
    pub methods: Vec<&'static str>,
    /// A token made from a token does not outlive it, and belongs to its chain.
    pub expires_at: Option<Timestamp>,
    pub chain: Option<String>,
    pub application: Option<ApplicationCredential>,
    /// What it may have and nothing else, whatever it asks for.
    pub fixed: Option<Scope>,
    pub federated: Option<Federated>,
}

impl Asker {
    pub fn new(user: User, method: &'static str) -> Self {
        let (expires_at, chain, application, fixed, federated) = (None, None, None, None, None);
        Self { user, methods: vec![method], expires_at, chain, application, fixed, federated }
    }
}

impl Keystone {
    /// The token and what it is, for the body of a request.
    pub(crate) async fn authenticate(&self, request: &Request, body: &Json) -> Result<Answer> {
        let auth = body.get("auth").ok_or_else(|| expecting("auth", "request body"))?;
        schemas::TOKEN_ISSUE.resource(auth)?;
        check_references(auth)?;
        check_scope(auth)?;
        let mut asker = self.asker(request, &auth["identity"]).await?;
        let scope = self.scope(auth, &asker).await?;
        if let Some(receipt) = request.header("openstack-auth-receipt") {
            let before = self.receipted(receipt, &asker.user.id, self.clock.now())?;
            asker.methods = receipts::union(&asker.methods, before);
        }
        if !receipts::suffices(&asker.user, &asker.methods) {
            return Ok(Answer::More(self.receipt(asker.user, asker.methods).await?));
        }
        self.grant(asker, scope).await
    }

    /// A token without a scope.
    pub(crate) async fn admit(&self, asker: Asker) -> Result<Answer> {
        if !receipts::suffices(&asker.user, &asker.methods) {
            return Ok(Answer::More(self.receipt(asker.user, asker.methods).await?));
        }
        self.grant(asker, Scope::Unscoped).await
    }

    async fn grant(&self, asker: Asker, scope: Scope) -> Result<Answer> {
        let federated = match (&scope, asker.federated) {
            // Upstream has no form of token for it.
            (Scope::System, Some(_)) => return Err(refuse("a federated user asked for the system")),
            (Scope::Unscoped | Scope::Project(_) | Scope::Domain(_), federated) => federated,
            // What somebody lent does not depend on who vouched for the borrower.
            _ => None,
        };
        let issued_at = fernet::issue_time(&self.clock);
        let lifetime = Duration::from_secs(self.options.token_expiration_seconds);
        let payload = Payload {
            user_id: asker.user.id,
            methods: asker.methods,
            scope,
            federated,
            expires_at: asker.expires_at.unwrap_or(issued_at.plus(lifetime)),
            audit_ids: [Some(fernet::audit_id()), asker.chain].into_iter().flatten().collect(),
            issued_at,
        };
        self.issue(payload).await.map(|(token, valid)| Answer::Token(token, valid))
    }

    async fn asker(&self, request: &Request, identity: &Json) -> Result<Asker> {
        let methods: Vec<&str> =
            identity["methods"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        if let Some(missing) = methods.iter().find(|method| identity.get(**method).is_none()) {
            return Err(expecting(missing, "identity"));
        }
        let mut found: Option<Asker> = None;
        for method in &methods {
            let given = &identity[*method];
            let next = match *method {
                "password" => self.by_password(given).await?,
                "token" => self.by_token(given).await?,
                "application_credential" => self.by_application_credential(given).await?,
                "totp" => self.by_totp(given).await?,
                "oauth1" => self.by_oauth1(request).await?,
                "mapped" => self.by_provider(request, given).await?,
                _ => {
                    return Err(Error::unauthorized("Attempted to authenticate with an unsupported method."));
                }
            };
            found = Some(match found {
                None => next,
                Some(before) if before.user.id == next.user.id => before.and(next),
                Some(_) => return Err(refuse("methods name different users")),
            });
        }
        found.ok_or_else(|| refuse("no method"))
    }

    async fn by_password(&self, given: &Json) -> Result<Asker> {
        let named = given.get("user").cloned().ok_or_else(|| expecting("user", "password"))?;
        let password = named.get("password").and_then(Json::as_str).map(Secret::new);
        let password = password.ok_or_else(|| expecting("password", "user"))?;
        let domain_id = self
            .read({
                let named = named.clone();
                move |tx| domain_of_named(tx, &named)
            })
            .await?;
        let by_directory = match domain_id {
            Some(domain_id) => self.by_directory(&domain_id, &named, &password).await?,
            None => None,
        };
        let user = match by_directory {
            Some(user) => user,
            None => {
                let user = self.read(move |tx| named_user(tx, &named)).await?;
                self.check_password(user, password).await.map_err(Refusal::into_error)?
            }
        };
        let user = user.ok_or_else(|| refuse("wrong password, or no such user, or disabled, or locked"))?;
        Ok(Asker::new(user, "password"))
    }

    async fn by_token(&self, given: &Json) -> Result<Asker> {
        let token = given["id"].as_str().unwrap_or_default();
        let valid = self.valid(token).await?;
        if matches!(
            valid.payload.scope,
            Scope::Application { .. } | Scope::Trust { .. } | Scope::OAuth1 { .. }
        ) {
            return Err(Error::forbidden(
                "You are not authorized to perform the requested action: Rescope a scoped token.",
            ));
        }
        let id = valid.payload.user_id.clone();
        let user = self.read(move |tx| tx.find::<User>(&id)).await?.ok_or_else(|| refuse("no such user"))?;
        let mut methods = valid.payload.methods.clone();
        if !methods.contains(&"token") {
            methods.insert(0, "token");
        }
        let chain = valid.payload.audit_ids.last().cloned();
        let expires_at = Some(valid.payload.expires_at);
        let federated = valid.payload.federated.clone();
        Ok(Asker { methods, expires_at, chain, federated, ..Asker::new(user, "token") })
    }

    async fn by_application_credential(&self, given: &Json) -> Result<Asker> {
        let secret = given.get("secret").and_then(Json::as_str).map(Secret::new);
        let secret = secret.ok_or_else(|| expecting("secret", "application_credential"))?;
        let named = given.clone();
        let credential = self.read(move |tx| named_credential(tx, &named)).await?;
        if let (None, Some(id)) = (&credential, given.get("id").and_then(Json::as_str)) {
            return Err(store::not_found("Application Credential", id));
        }
        let stored = credential.as_ref().map(|credential| credential.secret_hash.clone());
        if !password::verify(secret, stored, self.options.password_hash_rounds).await? {
            return Err(refuse("wrong application credential"));
        }
        let credential = credential.ok_or_else(unauthorized)?;
        if credential.expires_at.is_some_and(|moment| moment <= self.clock.now()) {
            return Err(refuse("application credential expired"));
        }
        let id = credential.user_id.clone();
        let user = self.read(move |tx| tx.find::<User>(&id)).await?;
        let user = user.filter(|user| user.enabled).ok_or_else(|| refuse("user disabled"))?;
        Ok(Asker { application: Some(credential), ..Asker::new(user, "application_credential") })
    }

    async fn by_totp(&self, given: &Json) -> Result<Asker> {
        let named = given.get("user").cloned().ok_or_else(|| expecting("user", "totp"))?;
        let passcode = word(&named, "passcode").ok_or_else(|| expecting("passcode", "user"))?.to_string();
        let (user, secrets) = self
            .read(move |tx| {
                let Some(user) = named_user(tx, &named)? else { return Ok((None, Vec::new())) };
                let wanted = List::all().eq("user_id", user.id.clone()).eq("kind", "totp");
                Ok((Some(user), tx.list::<Credential>(&wanted)?))
            })
            .await?;
        let now = self.clock.now();
        let user = user.filter(|user| user.enabled && !self.options.security_compliance.is_locked(user, now));
        let user = user.ok_or_else(|| refuse("no such user, or disabled, or locked"))?;
        let secrets = secrets.iter().map(|secret| self.reveal(&secret.blob)).collect::<Result<Vec<_>>>()?;
        if !secrets.iter().any(|secret| totp::fits(secret, &passcode, now)) {
            self.count_failure(&user, now).await?;
            return Err(refuse("wrong passcode"));
        }
        Ok(Asker::new(user, "totp"))
    }

    /// The request itself is signed with the access token's secret.
    async fn by_oauth1(&self, request: &Request) -> Result<Asker> {
        let signed = Signed::parse(request.header("authorization")).ok_or_else(|| refuse("no signature"))?;
        let id = signed.get("oauth_token").ok_or_else(|| expecting("oauth_token", "request"))?.to_string();
        let (token, consumer, user) = self
            .read(move |tx| {
                let token = tx.find::<AccessToken>(&id)?;
                let token = token.ok_or_else(|| Error::not_found("Access token not found"))?;
                let consumer = tx.find::<Consumer>(&token.consumer_id)?;
                let user = tx.find::<User>(&token.authorizing_user_id)?;
                Ok((token, consumer, user))
            })
            .await?;
        if token.expires_at.is_some_and(|moment| moment < self.clock.now()) {
            return Err(refuse("access token expired"));
        }
        let consumer = consumer.filter(|one| signed.get("oauth_consumer_key") == Some(one.id.as_str()));
        let consumer = consumer.ok_or_else(|| refuse("another consumer's access token"))?;
        self.check_signed(request, &signed, &consumer.secret, &self.reveal(&token.secret)?).await?;
        let user = user.filter(|user| user.enabled).ok_or_else(|| refuse("user disabled"))?;
        let fixed = Some(Scope::OAuth1 { project_id: token.project_id, access_token_id: token.id });
        Ok(Asker { fixed, ..Asker::new(user, "oauth1") })
    }

    /// An identity provider's token in the `Authorization` header, or again a token that was made of one.
    async fn by_provider(&self, request: &Request, given: &Json) -> Result<Asker> {
        if given.get("id").is_some() {
            return self.by_token(given).await;
        }
        let idp_id =
            word(given, "identity_provider").ok_or_else(|| expecting("identity_provider", "mapped"))?;
        let protocol_id = word(given, "protocol").ok_or_else(|| expecting("protocol", "mapped"))?;
        self.check_provider(idp_id, protocol_id).await?;
        if self.options.saml.contains_key(idp_id) {
            return self.by_assertion(request, idp_id, protocol_id).await;
        }
        let shown = request.header("authorization").and_then(|text| text.split_once(' '));
        let (_, token) = shown
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .ok_or_else(|| refuse("no assertion of an identity provider"))?;
        let options = self.openid_of(idp_id)?;
        let assertion = self.providers.bearer(options, token.trim(), &self.clock).await?;
        self.vouched(idp_id, protocol_id, assertion).await
    }

    /// How to ask an identity provider, where the operator has said so.
    pub(crate) fn openid_of(&self, idp_id: &str) -> Result<&OpenId> {
        self.options.openid.get(idp_id).ok_or_else(|| refuse("the identity provider is not configured"))
    }

    /// The one identity provider that can be asked by a protocol.
    pub(crate) async fn only_provider(&self, protocol_id: &str) -> Result<String> {
        let wanted = List::all().eq("id", protocol_id);
        let protocols = self.read(move |tx| tx.list::<FederationProtocol>(&wanted)).await?;
        let mut usable = protocols.into_iter().filter(|one| {
            self.options.openid.contains_key(&one.idp_id) || self.options.saml.contains_key(&one.idp_id)
        });
        match (usable.next(), usable.next()) {
            (Some(one), None) => Ok(one.idp_id),
            _ => Err(refuse("no identity provider, or several")),
        }
    }

    async fn scope(&self, auth: &Json, asker: &Asker) -> Result<Scope> {
        if let Some(credential) = &asker.application {
            if auth.get("scope").is_some() {
                return Err(Error::unauthorized(
                    "Error authenticating with application credential: Application credentials cannot request a scope.",
                ));
            }
            let (project_id, credential_id) = (credential.project_id.clone(), credential.id.clone());
            return Ok(Scope::Application { project_id, credential_id });
        }
        if let Some(scope) = &asker.fixed {
            return Ok(scope.clone());
        }
        let wanted = auth.get("scope").cloned();
        let (user, federated) = (asker.user.clone(), asker.federated.is_some());
        if let Some(trust_id) = wanted.as_ref().and_then(|wanted| wanted["OS-TRUST:trust"]["id"].as_str()) {
            return self.use_trust(trust_id.to_string(), user.id).await;
        }
        self.read(move |tx| match &wanted {
            None if federated => Ok(Scope::Unscoped),
            None => default_scope(tx, &user),
            Some(wanted) => named_scope(tx, wanted),
        })
        .await
    }
}

impl Keystone {
    /// A trust's scope for its trustee, counting the use where uses are counted.
    async fn use_trust(&self, id: String, user_id: String) -> Result<Scope> {
        let now = self.clock.now();
        self.write(move |tx| {
            let trust: Trust = store::find(tx, &id)?;
            if trust.trustee_user_id != user_id {
                return Err(Error::forbidden("You are not authorized to perform the requested action."));
            }
            let over =
                trust.expires_at.is_some_and(|moment| moment <= now) || trust.remaining_uses == Some(0);
            if over {
                return Err(store::not_found("trust", &id));
            }
            let project_id = trust.project_id.clone().ok_or_else(|| refuse("a trust without a project"))?;
            if let Some(uses) = trust.remaining_uses {
                tx.update(&Trust { remaining_uses: Some(uses - 1), ..trust })?;
            }
            Ok(Scope::Trust { project_id, trust_id: id.clone() })
        })
        .await
    }
}

impl Asker {
    fn and(mut self, other: Self) -> Self {
        for method in other.methods {
            if !self.methods.contains(&method) {
                self.methods.push(method);
            }
        }
        self.expires_at = match (self.expires_at, other.expires_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            chain: self.chain.or(other.chain),
            application: self.application.or(other.application),
            fixed: self.fixed.or(other.fixed),
            federated: self.federated.or(other.federated),
            ..self
        }
    }
}

/// Users, projects and domains are named by id or name.
fn check_references(auth: &Json) -> Result<()> {
    let paths = [
        "identity/password/user",
        "identity/password/user/domain",
        "identity/totp/user",
        "identity/totp/user/domain",
        "scope/project",
        "scope/project/domain",
        "scope/domain",
    ];
    for path in paths {
        let Some(named) = auth.pointer(&format!("/{path}")) else { continue };
        if named.get("id").is_none() && named.get("name").is_none() {
            return Err(Error::bad_request(format!(
                "Invalid input for field {path}: id or name must be present."
            )));
        }
    }
    Ok(())
}

fn check_scope(auth: &Json) -> Result<()> {
    let Some(scope) = auth.get("scope") else { return Ok(()) };
    let known = ["project", "domain", "unscoped", "system", "OS-TRUST:trust"];
    let named =
        |name: &&str| scope.get(name).is_some() || scope.as_str().is_some_and(|text| text.contains(*name));
    match known.iter().filter(|name| named(name)).count() {
        1 => Ok(()),
        _ => Err(expecting("system, project, domain, OS-TRUST:trust or unscoped", "scope")),
    }
}

fn word<'a>(object: &'a Json, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Json::as_str)
}

/// None for a user that does not exist: the password is compared all the same.
fn named_user(tx: &mut Tx, named: &Json) -> Result<Option<User>> {
    let user = match (word(named, "name"), word(named, "id")) {
        (Some(name), _) => {
            let domain = named.get("domain").ok_or_else(|| expecting("domain", "user"))?;
            let Some(domain) = named_domain(tx, domain)? else { return Ok(None) };
            store::user_by_name(tx, name, &domain.id)?
        }
        (None, Some(id)) => tx.find::<User>(id)?,
        (None, None) => None,
    };
    let Some(user) = user else { return Ok(None) };
    let domain_enabled = tx.find::<Project>(&user.domain_id)?.is_some_and(|domain| domain.enabled);
    Ok(domain_enabled.then_some(user))
}

/// The domain, if it is enabled, of whom a login names: there might be a directory to ask.
fn domain_of_named(tx: &mut Tx, named: &Json) -> Result<Option<String>> {
    if word(named, "name").is_some() {
        let domain = named.get("domain").map(|domain| named_domain(tx, domain)).transpose()?.flatten();
        return Ok(domain.map(|domain| domain.id));
    }
    let Some(entry) = tx.find::<DirectoryEntry>(word(named, "id").unwrap_or_default())? else {
        return Ok(None);
    };
    let domain = tx.find::<Project>(&entry.domain_id)?.filter(|domain| domain.enabled);
    Ok(domain.map(|domain| domain.id))
}

fn named_domain(tx: &mut Tx, named: &Json) -> Result<Option<Project>> {
    let domain = match (word(named, "name"), word(named, "id")) {
        (Some(name), _) => store::domain_by_name(tx, name)?,
        (None, Some(id)) => tx.find::<Project>(id)?,
        (None, None) => None,
    };
    Ok(domain.filter(|domain| domain.is_domain && domain.enabled))
}

fn named_credential(tx: &mut Tx, named: &Json) -> Result<Option<ApplicationCredential>> {
    if let Some(id) = word(named, "id") {
        return tx.find(id);
    }
    let name = word(named, "name").ok_or_else(|| expecting("name or ID", "application credential"))?;
    let user = named.get("user").ok_or_else(|| expecting("user", "application credential"))?;
    let Some(user) = named_user(tx, user)? else { return Ok(None) };
    let wanted = List::all().eq("user_id", user.id).eq("name", name);
    Ok(tx.list::<ApplicationCredential>(&wanted)?.into_iter().next())
}

fn named_scope(tx: &mut Tx, wanted: &Json) -> Result<Scope> {
    if wanted.get("system").is_some() {
        return Ok(Scope::System);
    }
    if let Some(domain) = wanted.get("domain") {
        let domain = named_domain(tx, domain)?.ok_or_else(|| refuse("no such domain"))?;
        return Ok(Scope::Domain(domain.id));
    }
    if let Some(named) = wanted.get("project") {
        let project = match (word(named, "name"), word(named, "id")) {
            (Some(name), _) => {
                let domain = named.get("domain").ok_or_else(|| expecting("domain", "project"))?;
                let domain = named_domain(tx, domain)?.ok_or_else(|| refuse("no such domain"))?;
                store::project_by_name(tx, name, &domain.id)?
            }
            (None, Some(id)) => tx.find::<Project>(id)?.filter(|project| !project.is_domain),
            (None, None) => None,
        };
        return Ok(Scope::Project(project.ok_or_else(|| refuse("no such project"))?.id));
    }
    Ok(Scope::Unscoped)
}

/// The user's own project where it may be had, else none.
fn default_scope(tx: &mut Tx, user: &User) -> Result<Scope> {
    let Some(id) = &user.default_project_id else { return Ok(Scope::Unscoped) };
    let usable = tx.find::<Project>(id)?.is_some_and(|project| project.enabled && !project.is_domain);
    if !usable || store::role_ids_on_project(tx, &user.id, id)?.is_empty() {
        return Ok(Scope::Unscoped);
    }
    Ok(Scope::Project(id.clone()))
}
