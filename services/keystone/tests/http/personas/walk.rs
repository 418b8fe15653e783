//! Walks the route table: what each persona is answered, as one letter.

use super::world::{PASSWORD, World, send, send_about};
use base::{Json, id};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use web::Mark;

pub struct Walk {
    world: World,
    /// Things that were made to be asked about, by parameter, side and, for what belongs to a user, persona.
    things: HashMap<(String, usize, usize), String>,
    /// Associations that are known to be there.
    there: HashSet<String>,
}

/// Not walked: open to everybody, or of no use without a signature.
const SKIPPED: &[&str] = &["/v3/auth/tokens/OS-PKI/revoked"];

/// Lists that are asked with a filter too, which decides who may see them.
const FILTERS: &[(&str, &str)] = &[
    ("/v3/users", "domain_id={domain_id}"),
    ("/v3/groups", "domain_id={domain_id}"),
    ("/v3/projects", "domain_id={domain_id}"),
    ("/v3/roles", "domain_id={domain_id}"),
    ("/v3/credentials", "user_id={user_id}"),
    ("/v3/OS-TRUST/trusts", "trustor_user_id={user_id}"),
    ("/v3/role_assignments", "scope.domain.id={domain_id}"),
    ("/v3/role_assignments", "scope.project.id={project_id}"),
];

/// Nouns that PUT makes: not associations.
const MADE_BY_PUT: &[&str] = &["/v3/regions/", "/v3/OS-FEDERATION/", "config", "/v3/OS-OAUTH1/"];

impl Walk {
    pub async fn new(url: &str, user: &str, password: &str) -> Self {
        let world = World::new(url, user, password).await;
        Self { world, things: HashMap::new(), there: HashSet::new() }
    }

    /// Of every so many operations one, for several walks side by side.
    pub async fn part(mut self, about: &str, part: usize, parts: usize) -> Vec<String> {
        let names: Vec<&str> = self.world.personas.iter().map(|persona| persona.name.as_str()).collect();
        let mut lines = vec![format!("# y let through, n refused, u 401, 0 404; by {}\t-", names.join(" "))];
        let routes: Vec<(String, &'static str)> = keystone::routes()
            .into_iter()
            .filter(|route| !route.is(Mark::Open) && !SKIPPED.contains(&route.path))
            .filter(|route| route.path.contains(about))
            .map(|route| (route.method.to_string(), route.path))
            .collect();
        let puts: HashSet<&str> =
            routes.iter().filter(|(method, _)| method == "PUT").map(|(_, path)| *path).collect();
        for (method, path) in routes.iter().skip(part).step_by(parts) {
            let mut forms = vec![path.to_string()];
            if method == "GET" {
                let filters = FILTERS.iter().filter(|(of, _)| of == path);
                forms.extend(filters.map(|(of, filter)| format!("{of}?{filter}")));
            }
            for form in forms {
                let body = body(method, &form);
                let text = body.to_string();
                let depends = form.contains('{') || text.contains("_id}") || form.ends_with("auth/tokens");
                for side in 0..if depends { 2 } else { 1 } {
                    let associated = puts.contains(path) && !MADE_BY_PUT.iter().any(|of| path.contains(of));
                    let mut letters = String::new();
                    for persona in 0..self.world.personas.len() {
                        letters.push(self.ask(method, &form, &body, side, persona, associated).await);
                    }
                    let whose = ["own", "foreign"][side];
                    lines.push(format!("{method} {form} {}\t{letters}", if depends { whose } else { "-" }));
                }
            }
        }
        self.world.clean().await;
        lines
    }

    async fn ask(
        &mut self,
        method: &str,
        form: &str,
        body: &Json,
        side: usize,
        persona: usize,
        associated: bool,
    ) -> char {
        let path = self.filled(method, form, side, persona, form).await;
        let path = path.strip_prefix("/v3/").unwrap_or(&path).to_string();
        let body = match body {
            Json::Null => None,
            body => {
                let text = self.filled(method, &body.to_string(), side, persona, form).await;
                Some(serde_json::from_str(&text).unwrap())
            }
        };
        if associated && method != "PUT" && !self.there.contains(&path) {
            let with = path.ends_with("/tags").then(|| json!({"tags": ["tag1"]}));
            send(&self.world.url, "PUT", &path, &self.world.root, with).await;
            self.there.insert(path.clone());
        }
        if form.contains("{domain_id}/config") && method != "PUT" {
            let config = json!({"config": {"ldap": {"url": "ldap://x"}}});
            let whole = format!("domains/{}/config", self.world.sides[side].domain_id);
            if self.there.insert(whole.clone()) {
                send(&self.world.url, "PUT", &whole, &self.world.root, Some(config)).await;
            }
        }
        let subject = match form.ends_with("auth/tokens") {
            true => {
                let people = &self.world.personas;
                let user_id = if side == 0 { &people[persona].user_id } else { &self.world.sides[1].user_id };
                let user_id = user_id.clone();
                Some(self.world.helper(&user_id, side).await)
            }
            false => None,
        };
        let token = self.world.personas[persona].token.clone();
        let (status, said) =
            send_about(&self.world.url, method, &path, &token, body, subject.as_deref()).await;
        if matches!(status, 200..=299) {
            self.tidy(method, form, &path, persona, &said).await;
        }
        let by_rule =
            said["error"]["message"].as_str().is_some_and(|message| message.contains(": identity:"));
        match status {
            401 => 'u',
            403 if by_rule => 'n',
            404 => '0',
            501 => panic!("{method} {path}: {said}"),
            _ => 'y',
        }
    }

    /// What went is made again when it is next asked about, what came goes.
    async fn tidy(&mut self, method: &str, form: &str, path: &str, persona: usize, said: &Json) {
        if method == "DELETE" {
            self.things.clear();
            self.there.clear();
        }
        if method == "DELETE" && form.ends_with("/tokens") {
            self.world.forget_helpers();
            self.world.renew(persona).await;
        }
        let made =
            said.as_object().and_then(|said| said.values().next()).and_then(|made| made["id"].as_str());
        if let ("POST", Some(id)) = (method, made) {
            send(&self.world.url, "DELETE", &format!("{path}/{id}"), &self.world.root, None).await;
        }
    }

    /// A text with `{user_id}` and its like filled in.
    async fn filled(&mut self, method: &str, text: &str, side: usize, persona: usize, form: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            match after.split_once('}') {
                Some((name, after))
                    if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty() =>
                {
                    let id = self.thing(method, form, name, side, persona).await;
                    filled.push_str(&id);
                    rest = after;
                }
                _ => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled + rest
    }

    /// The thing that a parameter stands for.
    async fn thing(&mut self, method: &str, form: &str, name: &str, side: usize, persona: usize) -> String {
        let name = match name {
            "id" if form.contains("application_credentials") => "application_credential_id",
            "id" if form.contains("access_rules") => "access_rule_id",
            name => name,
        };
        let (run, here) = (self.world.run.clone(), &self.world.sides[side]);
        let (domain, project, group) =
            (here.domain_id.clone(), here.project_id.clone(), here.group_id.clone());
        let user =
            if side == 0 { self.world.personas[persona].user_id.clone() } else { here.user_id.clone() };
        let doomed =
            method == "DELETE" && form.ends_with(&format!("{{{name}}}")) && form.matches('{').count() == 1;
        match name {
            "domain_id" => return domain,
            "project_id" if !doomed => return project,
            "group_id" if !doomed => return group,
            // Grants and memberships are made and unmade: not one's own, which one asks with.
            "user_id"
                if !doomed
                    && (form.starts_with("/v3/users/")
                        || !form.contains("{user_id}")
                        || form.contains('?')) =>
            {
                return user;
            }
            "user_id" if !doomed => return here.user_id.clone(),
            "role_id" if form.contains("OS-TRUST") => return self.world.role("reader").await,
            "role_id" if form != "/v3/roles/{role_id}" => return self.world.role("member").await,
            "run" => return run,
            "random" => return id::hex(),
            "id" | "request_token_id" | "access_token_id" => {
                return "0badc0de00004000800000000000000b".into();
            }
            "value" => return "tag1".into(),
            "group" => return "ldap".into(),
            "option" => return "url".into(),
            _ => {}
        }
        const OWNED: &[&str] =
            &["access", "credential_id", "application_credential_id", "access_rule_id", "trust_id"];
        let owned = OWNED.contains(&name);
        let kind = if form.contains("OS-EC2") { "ec2" } else { name };
        let key = (kind.to_string(), side, if owned { persona } else { 0 });
        if let Some(id) = self.things.get(&key) {
            return id.clone();
        }
        let id = self.made(kind, &domain, &user, side).await;
        self.things.insert(key, id.clone());
        id
    }

    async fn made(&mut self, kind: &str, domain: &str, user: &str, side: usize) -> String {
        let random = id::hex();
        let in_domain = json!({"name": random, "domain_id": domain});
        let world = &mut self.world;
        match kind {
            "user_id" => world.make("users", "user", in_domain).await,
            "project_id" => world.make("projects", "project", in_domain).await,
            "group_id" => world.make("groups", "group", in_domain).await,
            "role_id" | "prior_role_id" | "implied_role_id" => {
                world.make("roles", "role", json!({"name": random})).await
            }
            "service_id" => world.make("services", "service", json!({"type": "walk", "name": random})).await,
            "region_id" => world.make("regions", "region", json!({"id": random})).await,
            "endpoint_id" => {
                let service =
                    world.make("services", "service", json!({"type": "walk", "name": random})).await;
                let endpoint =
                    json!({"service_id": service, "interface": "public", "url": "http://walk.example"});
                world.make("endpoints", "endpoint", endpoint).await
            }
            "credential_id" => {
                let credential = json!({"type": "cert", "blob": random, "user_id": user});
                world.make("credentials", "credential", credential).await
            }
            "ec2" => {
                let path = format!("users/{user}/credentials/OS-EC2");
                let body = json!({"tenant_id": world.sides[side].project_id});
                let answer = send(&world.url, "POST", &path, &world.root, Some(body)).await;
                answer.1["credential"]["access"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{}", answer.1))
                    .to_string()
            }
            "application_credential_id" => {
                let path = format!("users/{user}/application_credentials");
                world.make_own(user, side, &path, "application_credential", json!({"name": random})).await
            }
            "access_rule_id" => {
                let path = format!("users/{user}/application_credentials");
                let rule = json!({"service": "compute", "path": format!("/{random}"), "method": "GET"});
                let body = json!({"name": random, "access_rules": [rule]});
                world.make_own(user, side, &path, "application_credential", body).await;
                let token = world.helper(user, side).await;
                let answer =
                    send(&world.url, "GET", &format!("users/{user}/access_rules"), &token, None).await;
                answer.1["access_rules"][0]["id"].as_str().unwrap().to_string()
            }
            "trust_id" => {
                let reader = world.role("reader").await;
                let body = json!({"trustor_user_id": user, "trustee_user_id": world.sides[1].user_id,
                    "impersonation": false, "project_id": world.sides[side].project_id, "roles": [{"id": reader}]});
                world.make_own(user, side, "OS-TRUST/trusts", "trust", body).await
            }
            "policy_id" => world.make("policies", "policy", json!({"blob": "{}", "type": "x"})).await,
            "endpoint_group_id" => {
                let body = json!({"name": random, "filters": {"interface": "public"}});
                world.make("OS-EP-FILTER/endpoint_groups", "endpoint_group", body).await
            }
            "consumer_id" => world.make("OS-OAUTH1/consumers", "consumer", json!({})).await,
            "mapping_id" => {
                let id = format!("walk-{}", world.run);
                let rules = json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "X"}]}]);
                world
                    .put(&format!("OS-FEDERATION/mappings/{id}"), json!({"mapping": {"rules": rules}}))
                    .await;
                id
            }
            "idp_id" => {
                let id = format!("walk-{}", world.run);
                let body = json!({"identity_provider": {"domain_id": world.sides[1].domain_id}});
                world.put(&format!("OS-FEDERATION/identity_providers/{id}"), body).await;
                id
            }
            "protocol_id" => {
                let run = world.run.clone();
                let rules = json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "X"}]}]);
                world
                    .put(&format!("OS-FEDERATION/mappings/walk-{run}"), json!({"mapping": {"rules": rules}}))
                    .await;
                let path = format!("OS-FEDERATION/identity_providers/walk-{run}/protocols/mapped");
                world.put(&path, json!({"protocol": {"mapping_id": format!("walk-{run}")}})).await;
                "mapped".into()
            }
            "service_provider_id" => {
                let id = format!("walk-{}", world.run);
                let urls = json!({"auth_url": "http://sp.example/a", "sp_url": "http://sp.example/b"});
                world
                    .put(&format!("OS-FEDERATION/service_providers/{id}"), json!({"service_provider": urls}))
                    .await;
                id
            }
            other => panic!("nothing is known of {other}"),
        }
    }
}

/// A body that a form accepts; what it would make is mostly there already.
fn body(method: &str, form: &str) -> Json {
    match (method, form) {
        ("POST", "/v3/users") => {
            json!({"user": {"name": "mate-{run}", "domain_id": "{domain_id}", "password": PASSWORD}})
        }
        ("POST", "/v3/projects") => json!({"project": {"name": "project-{run}", "domain_id": "{domain_id}"}}),
        ("POST", "/v3/groups") => json!({"group": {"name": "group-{run}", "domain_id": "{domain_id}"}}),
        ("POST", "/v3/domains") => json!({"domain": {"name": "walk-own-{run}"}}),
        ("POST", "/v3/roles") => json!({"role": {"name": "reader"}}),
        ("POST", "/v3/services") => json!({"service": {"type": "walk"}}),
        ("POST", "/v3/endpoints") => {
            json!({"endpoint": {"service_id": "{service_id}", "interface": "public", "url": "http://walk.example"}})
        }
        ("POST", "/v3/regions") => json!({"region": {"id": "{region_id}"}}),
        ("PUT", "/v3/regions/{region_id}") => json!({"region": {}}),
        ("POST", "/v3/credentials") => {
            json!({"credential": {"type": "cert", "blob": "{random}", "user_id": "{user_id}"}})
        }
        ("POST", "/v3/users/{user_id}/credentials/OS-EC2") => json!({"tenant_id": "{project_id}"}),
        ("POST", "/v3/users/{user_id}/application_credentials") => {
            json!({"application_credential": {"name": "{random}"}})
        }
        ("POST", "/v3/OS-TRUST/trusts") => json!({"trust": {"trustor_user_id": "{user_id}",
            "trustee_user_id": "{user_id}", "impersonation": false, "project_id": "{project_id}",
            "roles": [{"name": "reader"}]}}),
        ("POST", "/v3/registered_limits") => {
            let unknown = "0badc0de00004000800000000000000b";
            json!({"registered_limits": [{"service_id": unknown, "resource_name": "x", "default_limit": 1}]})
        }
        ("POST", "/v3/limits") => {
            let unknown = "0badc0de00004000800000000000000b";
            json!({"limits": [{"service_id": unknown, "project_id": "{project_id}", "resource_name": "x",
                "resource_limit": 1}]})
        }
        ("POST", "/v3/policies") => json!({"policy": {"blob": "{}", "type": "x"}}),
        ("POST", "/v3/OS-EP-FILTER/endpoint_groups") => {
            json!({"endpoint_group": {"name": "{random}", "filters": {"interface": "public"}}})
        }
        ("POST", "/v3/OS-OAUTH1/consumers") => json!({"consumer": {}}),
        ("PUT", "/v3/OS-OAUTH1/authorize/{request_token_id}") => json!({"roles": [{"name": "member"}]}),
        ("POST", "/v3/ec2tokens" | "/v3/s3tokens") => {
            json!({"credentials": {"access": "x", "signature": "x", "token": "eA=="}})
        }
        ("PUT", "/v3/projects/{project_id}/tags") => json!({"tags": ["tag1"]}),
        ("PUT", "/v3/OS-FEDERATION/identity_providers/{idp_id}") => {
            json!({"identity_provider": {"domain_id": "default"}})
        }
        ("PUT", "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}")
        | ("PATCH", "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}") => {
            json!({"protocol": {"mapping_id": "walk-{run}"}})
        }
        ("PUT" | "PATCH", "/v3/OS-FEDERATION/mappings/{mapping_id}") => {
            json!({"mapping": {"rules": [{"local": [{"user": {"name": "x"}}], "remote": [{"type": "X"}]}]}})
        }
        ("PUT", "/v3/OS-FEDERATION/service_providers/{service_provider_id}") => {
            json!({"service_provider": {"auth_url": "http://sp.example/a", "sp_url": "http://sp.example/b"}})
        }
        ("PUT" | "PATCH", "/v3/domains/{domain_id}/config") => {
            json!({"config": {"ldap": {"url": "ldap://y"}}})
        }
        ("PATCH", "/v3/domains/{domain_id}/config/{group}") => {
            json!({"config": {"ldap": {"url": "ldap://y"}}})
        }
        ("PATCH", "/v3/domains/{domain_id}/config/{group}/{option}") => {
            json!({"config": {"url": "ldap://y"}})
        }
        ("PATCH", "/v3/credentials/{credential_id}") => json!({"credential": {"blob": "y"}}),
        ("PATCH", "/v3/registered_limits/{id}") => json!({"registered_limit": {"default_limit": 2}}),
        ("PATCH", "/v3/limits/{id}") => json!({"limit": {"resource_limit": 2}}),
        ("PATCH", form) => {
            let noun =
                form.rsplit_once("/{").and_then(|(_, last)| last.strip_suffix("_id}")).unwrap_or_default();
            let noun = if noun == "idp" { "identity_provider" } else { noun };
            json!({noun: {"description": "walked"}})
        }
        _ => Json::Null,
    }
}
