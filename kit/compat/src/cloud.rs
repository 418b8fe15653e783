//! A cloud under test: its address, the roots of its services, and the people of one run.

use crate::http::{self, Answer};
use crate::normal::Names;
use anyhow::{Context as _, Result, bail};
use rand::Rng as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How to sign in as the administrator.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// With or without the final `/v3`.
    pub auth_url: String,
    pub username: String,
    pub password: String,
    pub project_name: String,
    pub user_domain: String,
    pub project_domain: String,
    pub region: Option<String>,
}

/// Names that scenarios use → service types of the catalogue.
const SERVICES: [(&str, &[&str]); 6] = [
    ("identity", &["identity"]),
    ("image", &["image"]),
    ("placement", &["placement"]),
    ("compute", &["compute"]),
    ("network", &["network"]),
    ("volume", &["block-storage", "volumev3"]),
];

/// The people: name and the role they hold in the scenario's project. `other` belongs to another project.
const PEOPLE: [(&str, &str); 8] = [
    ("admin", "admin"),
    ("member", "member"),
    ("reader", "reader"),
    ("manager", "manager"),
    ("other", "member"),
    ("norole", ""),
    ("system", "admin"),
    ("domain", "admin"),
];

const PASSWORD: &str = "Compat-1-pass-word";

/// What all scenarios of a run share: the administrator's token, the service roots and the users.
pub struct Cloud {
    root: String,
    token: String,
    roots: BTreeMap<&'static str, String>,
    roles: BTreeMap<String, String>,
    users: BTreeMap<&'static str, String>,
    unscoped: tokio::sync::Mutex<BTreeMap<String, String>>,
    tag: String,
}

/// What one scenario has for itself: two projects and tokens for them.
pub struct Stage {
    pub project: String,
    pub other_project: String,
    pub tag: String,
    tokens: BTreeMap<String, String>,
}

impl Cloud {
    pub async fn open(credentials: &Credentials) -> Result<Cloud> {
        let root = credentials.auth_url.trim_end_matches('/').trim_end_matches("/v3").to_owned();
        let auth = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": credentials.username, "password": credentials.password,
                "domain": named(&credentials.user_domain)}}},
            "scope": {"project": {"name": credentials.project_name, "domain": named(&credentials.project_domain)}},
        }});
        let answer =
            http::send("POST", &format!("{root}/v3/auth/tokens"), &json_headers(), auth.to_string().into())
                .await?;
        let token = answer
            .header("x-subject-token")
            .with_context(|| format!("no token: {}", said(&answer)))?
            .to_owned();
        let body = answer.json().context("the token's body")?;
        let mut roots = BTreeMap::new();
        for (name, types) in SERVICES {
            if let Some(url) = endpoint(&body, types, credentials.region.as_deref()) {
                roots.insert(name, without_version(&url));
            }
        }
        roots.insert("identity", root.clone());
        let mut cloud = Cloud {
            root,
            token,
            roots,
            roles: BTreeMap::new(),
            users: BTreeMap::new(),
            unscoped: Default::default(),
            tag: random_tag(),
        };
        for role in list(&cloud.ask("GET", "/v3/roles", None).await?, "roles") {
            cloud.roles.insert(text(role, "name"), text(role, "id"));
        }
        cloud.create_users().await?;
        Ok(cloud)
    }

    pub fn has(&self, service: &str) -> bool {
        self.roots.contains_key(service)
    }

    pub fn root_of(&self, service: &str) -> Result<&str> {
        self.roots
            .get(service)
            .map(String::as_str)
            .with_context(|| format!("no service {service:?} in the catalogue"))
    }

    /// Names of everything that this run brought with it, for normalising; the same as variables of the scenario.
    pub fn variables(&self, stage: &Stage) -> BTreeMap<String, Value> {
        let mut variables = BTreeMap::from([
            ("run".to_owned(), json!(stage.tag)),
            ("digits".to_owned(), json!(stage.tag.trim_start_matches("zq"))),
            ("project".to_owned(), json!(stage.project)),
            ("other_project".to_owned(), json!(stage.other_project)),
            ("password".to_owned(), json!(PASSWORD)),
        ]);
        variables.extend(self.users.iter().map(|(name, id)| (format!("{name}_user"), json!(id))));
        variables.extend(self.roles.iter().map(|(name, id)| (format!("{name}_role"), json!(id))));
        variables.extend(stage.tokens.iter().map(|(name, token)| (format!("{name}_token"), json!(token))));
        variables
    }

    pub fn names(&self) -> Names {
        let mut names = Names::default();
        self.roots.iter().for_each(|(service, root)| names.add_text(root, &format!("<{service}-url>")));
        names.add("tag", &self.tag);
        names
    }

    pub async fn stage(&self) -> Result<Stage> {
        let tag = random_tag();
        let project = self.create_project(&format!("compat-{tag}")).await?;
        let other_project = self.create_project(&format!("compat-other-{tag}")).await?;
        Ok(Stage { project, other_project, tag, tokens: BTreeMap::new() })
    }

    /// The token of a person in this scenario; none for `none`, rubbish for `bad`.
    pub async fn token(&self, stage: &mut Stage, person: &str) -> Result<Option<String>> {
        match person {
            "none" => return Ok(None),
            "bad" => return Ok(Some("no-such-token".to_owned())),
            "root" => return Ok(Some(self.token.clone())),
            _ => {}
        }
        if let Some(token) = stage.tokens.get(person) {
            return Ok(Some(token.clone()));
        }
        let token = self.sign_in(stage, person).await.with_context(|| format!("signing in as {person}"))?;
        stage.tokens.insert(person.to_owned(), token.clone());
        Ok(Some(token))
    }

    pub async fn strike(&self, stage: &Stage) {
        for project in [&stage.project, &stage.other_project] {
            self.delete_default_groups(project).await;
            let _ = self.ask("DELETE", &format!("/v3/projects/{project}"), None).await;
        }
    }

    pub async fn close(&self) {
        for user in self.users.values() {
            let _ = self.ask("DELETE", &format!("/v3/users/{user}"), None).await;
        }
    }

    async fn sign_in(&self, stage: &Stage, person: &str) -> Result<String> {
        // `unscoped` is the member without a project.
        let (user_name, role) = match person {
            "unscoped" => ("member", ""),
            _ => *PEOPLE
                .iter()
                .find(|(name, _)| *name == person)
                .with_context(|| format!("nobody is called {person:?}"))?,
        };
        let user = &self.users[user_name];
        let unscoped = self.unscoped_token(user).await?;
        if role.is_empty() {
            return Ok(unscoped);
        }
        let role = self.roles.get(role).with_context(|| format!("no role {role:?}"))?;
        let (grant, scope) = match person {
            "system" => (format!("/v3/system/users/{user}/roles/{role}"), json!({"system": {"all": true}})),
            "domain" => (
                format!("/v3/domains/default/users/{user}/roles/{role}"),
                json!({"domain": {"id": "default"}}),
            ),
            _ => {
                let project = if person == "other" { &stage.other_project } else { &stage.project };
                (
                    format!("/v3/projects/{project}/users/{user}/roles/{role}"),
                    json!({"project": {"id": project}}),
                )
            }
        };
        self.ask("PUT", &grant, None).await?;
        let auth =
            json!({"auth": {"identity": {"methods": ["token"], "token": {"id": unscoped}}, "scope": scope}});
        self.new_token(auth).await
    }

    async fn unscoped_token(&self, user: &str) -> Result<String> {
        let mut tokens = self.unscoped.lock().await;
        if let Some(token) = tokens.get(user) {
            return Ok(token.clone());
        }
        let identity =
            json!({"methods": ["password"], "password": {"user": {"id": user, "password": PASSWORD}}});
        let token = self.new_token(json!({"auth": {"identity": identity, "scope": "unscoped"}})).await?;
        tokens.insert(user.to_owned(), token.clone());
        Ok(token)
    }

    async fn new_token(&self, auth: Value) -> Result<String> {
        let url = format!("{}/v3/auth/tokens", self.root);
        let answer = http::send("POST", &url, &json_headers(), auth.to_string().into()).await?;
        Ok(answer
            .header("x-subject-token")
            .with_context(|| format!("no token: {}", said(&answer)))?
            .to_owned())
    }

    async fn create_users(&mut self) -> Result<()> {
        // Side by side, as most of the time goes into hashing passwords.
        let created =
            futures::future::try_join_all(PEOPLE.iter().map(|(name, _)| self.create_user(name))).await?;
        self.users = created.into_iter().collect();
        Ok(())
    }

    async fn create_user(&self, name: &'static str) -> Result<(&'static str, String)> {
        let user = json!({"user": {"name": format!("compat-{name}-{}", self.tag), "password": PASSWORD}});
        let created = self.ask("POST", "/v3/users", Some(user)).await?;
        Ok((name, text(&created["user"], "id")))
    }

    async fn create_project(&self, name: &str) -> Result<String> {
        let created = self.ask("POST", "/v3/projects", Some(json!({"project": {"name": name}}))).await?;
        Ok(text(&created["project"], "id"))
    }

    /// Neutron makes a default group for a project that nobody else would delete.
    async fn delete_default_groups(&self, project: &str) {
        let Some(network) = self.roots.get("network") else { return };
        let headers = [("x-auth-token".to_owned(), self.token.clone())];
        let url = format!("{network}/v2.0/security-groups?tenant_id={project}&fields=id");
        let Ok(answer) = http::send("GET", &url, &headers, Vec::new()).await else { return };
        for group in list(&answer.json().unwrap_or_default(), "security_groups") {
            let url = format!("{network}/v2.0/security-groups/{}", text(group, "id"));
            let _ = http::send("DELETE", &url, &headers, Vec::new()).await;
        }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let mut headers = json_headers();
        headers.push(("x-auth-token".to_owned(), self.token.clone()));
        let body = body.map_or(Vec::new(), |body| body.to_string().into());
        let answer = http::send(method, &format!("{}{path}", self.root), &headers, body).await?;
        if answer.status >= 300 {
            bail!("{method} {path}: {}", said(&answer));
        }
        Ok(answer.json().unwrap_or_default())
    }
}

/// Eight letters and digits that no answer holds by chance.
fn random_tag() -> String {
    let number: u32 = rand::rng().random_range(0..1_000_000);
    format!("zq{number:06}")
}

fn named(domain: &str) -> Value {
    if domain == "default" { json!({"id": domain}) } else { json!({"name": domain}) }
}

fn json_headers() -> Vec<(String, String)> {
    vec![("content-type".to_owned(), "application/json".to_owned())]
}

fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(body: &'a Value, key: &str) -> &'a [Value] {
    body[key].as_array().map_or(&[], Vec::as_slice)
}

fn endpoint(body: &Value, types: &[&str], region: Option<&str>) -> Option<String> {
    let services = list(&body["token"], "catalog");
    let service = services.iter().find(|service| types.contains(&text(service, "type").as_str()))?;
    let mut endpoints = list(service, "endpoints").iter();
    let found = endpoints.find(|endpoint| {
        endpoint["interface"] == "public" && region.is_none_or(|region| endpoint["region_id"] == region)
    })?;
    Some(text(found, "url"))
}

/// `http://host:8776/v3/0123` → `http://host:8776`
fn without_version(url: &str) -> String {
    let start = url.find("://").map_or(0, |scheme| scheme + 3);
    let version = url[start..]
        .match_indices("/v")
        .find(|(at, _)| url.as_bytes().get(start + at + 2).is_some_and(u8::is_ascii_digit));
    let end = version.map_or(url.len(), |(at, _)| start + at);
    url[..end].trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_have_no_version() {
        for (url, root) in [
            ("http://a:8776/v3/0123", "http://a:8776"),
            ("http://a:8774/v2.1", "http://a:8774"),
            ("http://a/volume/v3/", "http://a/volume"),
            ("http://vm:8778", "http://vm:8778"),
            ("http://a:9696/", "http://a:9696"),
        ] {
            assert_eq!(without_version(url), root);
        }
    }
}
