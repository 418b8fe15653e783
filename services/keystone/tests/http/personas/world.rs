//! Who asks, and what there is to ask about: two domains with the same things in each.

use base::{Json, id};
use serde_json::json;
use std::collections::HashMap;

pub struct Persona {
    pub name: String,
    pub user_id: String,
    pub token: String,
    scope: Json,
}

/// What lies in one domain.
pub struct Side {
    pub domain_id: String,
    pub project_id: String,
    pub group_id: String,
    /// Somebody who lives there.
    pub user_id: String,
}

pub struct World {
    pub url: String,
    pub root: String,
    pub run: String,
    pub personas: Vec<Persona>,
    /// The personas' own domain, then another.
    pub sides: [Side; 2],
    /// What is to be deleted in the end.
    made: Vec<String>,
    roles: HashMap<String, String>,
    /// Tokens for the project of a side, by user.
    helpers: HashMap<String, String>,
}

pub const PASSWORD: &str = "Sesame-open-1";

impl World {
    pub async fn new(url: &str, user: &str, password: &str) -> Self {
        let scope = json!({"project": {"name": "admin", "domain": {"id": "default"}}});
        let named = json!({"name": user, "domain": {"id": "default"}, "password": password});
        let root = sign_in(url, named, scope).await;
        let run = id::hex()[..8].to_string();
        let none = || Side {
            domain_id: String::new(),
            project_id: String::new(),
            group_id: String::new(),
            user_id: String::new(),
        };
        let sides = [none(), none()];
        let mut world = Self {
            url: url.into(),
            root,
            run,
            personas: Vec::new(),
            sides,
            made: Vec::new(),
            roles: HashMap::new(),
            helpers: HashMap::new(),
        };
        world.sides = [world.side("own").await, world.side("foreign").await];
        world.people().await;
        world
    }

    async fn side(&mut self, name: &str) -> Side {
        let run = self.run.clone();
        let domain_id = self.make("domains", "domain", json!({"name": format!("walk-{name}-{run}")})).await;
        let in_domain = |noun: &str| json!({"name": format!("{noun}-{run}"), "domain_id": domain_id});
        let project_id = self.make("projects", "project", in_domain("project")).await;
        let group_id = self.make("groups", "group", in_domain("group")).await;
        let mut mate = in_domain("mate");
        mate["password"] = PASSWORD.into();
        let user_id = self.make("users", "user", mate).await;
        let reader = self.role("reader").await;
        self.grant(&format!("projects/{project_id}/users/{user_id}/roles/{reader}")).await;
        Side { domain_id, project_id, group_id, user_id }
    }

    async fn people(&mut self) {
        let nobody = Persona {
            name: "none".into(),
            user_id: self.sides[0].user_id.clone(),
            token: String::new(),
            scope: Json::Null,
        };
        self.personas.push(nobody);
        let (domain, project) = (self.sides[0].domain_id.clone(), self.sides[0].project_id.clone());
        let reader = self.role("reader").await;
        let roles = ["reader", "member", "manager", "admin"];
        let scopes = ["project", "domain", "system"];
        let mut wanted: Vec<(&str, &str)> =
            scopes.iter().flat_map(|scope| roles.iter().map(move |role| (*role, *scope))).collect();
        wanted.push(("service", "project"));
        wanted.push(("reader", "unscoped"));
        for (role, scope) in wanted {
            let name = format!("{role}-{scope}");
            let body =
                json!({"name": format!("{name}-{}", self.run), "domain_id": domain, "password": PASSWORD});
            let user_id = self.make("users", "user", body).await;
            // To lend and to make credentials of: everybody reads the project.
            self.grant(&format!("projects/{project}/users/{user_id}/roles/{reader}")).await;
            let role_id = self.role(role).await;
            let (path, scope) = match scope {
                "project" => (format!("projects/{project}"), json!({"project": {"id": project}})),
                "domain" => (format!("domains/{domain}"), json!({"domain": {"id": domain}})),
                "system" => ("system".into(), json!({"system": {"all": true}})),
                _ => (String::new(), json!("unscoped")),
            };
            if !path.is_empty() {
                self.grant(&format!("{path}/users/{user_id}/roles/{role_id}")).await;
            }
            let token = self.log_in(&user_id, scope.clone()).await;
            self.personas.push(Persona { name, user_id, token, scope });
        }
    }

    /// Tokens may have been revoked.
    pub async fn renew(&mut self, persona: usize) {
        if persona > 0 {
            let (user_id, scope) =
                (self.personas[persona].user_id.clone(), self.personas[persona].scope.clone());
            // A token of the second in which tokens were revoked is revoked with them.
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            self.personas[persona].token = self.log_in(&user_id, scope).await;
        }
    }

    pub async fn log_in(&self, user_id: &str, scope: Json) -> String {
        sign_in(&self.url, json!({"id": user_id, "password": PASSWORD}), scope).await
    }

    /// As somebody with a token for the project of its domain.
    pub async fn helper(&mut self, user_id: &str, side: usize) -> String {
        if let Some(token) = self.helpers.get(user_id) {
            return token.clone();
        }
        let token = self.log_in(user_id, json!({"project": {"id": self.sides[side].project_id}})).await;
        self.helpers.insert(user_id.to_string(), token.clone());
        token
    }

    pub fn forget_helpers(&mut self) {
        self.helpers.clear();
    }

    pub async fn role(&mut self, name: &str) -> String {
        if let Some(id) = self.roles.get(name) {
            return id.clone();
        }
        let id = self.look_up_role(name).await;
        self.roles.insert(name.to_string(), id.clone());
        id
    }

    async fn look_up_role(&self, name: &str) -> String {
        let answer = send(&self.url, "GET", &format!("roles?name={name}"), &self.root, None).await;
        answer.1["roles"][0]["id"].as_str().unwrap_or_else(|| panic!("no role {name}")).to_string()
    }

    async fn grant(&self, path: &str) {
        let answer = send(&self.url, "PUT", path, &self.root, None).await;
        assert_eq!(answer.0, 204, "{path}: {}", answer.1);
    }

    pub async fn make(&mut self, plural: &str, noun: &str, body: Json) -> String {
        let root = self.root.clone();
        self.make_as(&root, plural, noun, body).await
    }

    /// As the owner of what is made.
    pub async fn make_own(
        &mut self,
        user_id: &str,
        side: usize,
        plural: &str,
        noun: &str,
        body: Json,
    ) -> String {
        let token = self.helper(user_id, side).await;
        let known = send(&self.url, "GET", "auth/projects", &token, None).await.0 == 200;
        if !known {
            // Revoked together with a grant that was taken away.
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            self.helpers.remove(user_id);
        }
        let token = self.helper(user_id, side).await;
        self.make_as(&token, plural, noun, body).await
    }

    async fn make_as(&mut self, token: &str, plural: &str, noun: &str, body: Json) -> String {
        let answer = send(&self.url, "POST", plural, token, Some(json!({noun: body}))).await;
        assert_eq!(answer.0, 201, "{plural}: {}", answer.1);
        let id = answer.1[noun]["id"].as_str().unwrap().to_string();
        self.made.push(format!("{plural}/{id}"));
        id
    }

    /// Something whose id is chosen beforehand.
    pub async fn put(&mut self, path: &str, body: Json) {
        let answer = send(&self.url, "PUT", path, &self.root, Some(body)).await;
        assert!(matches!(answer.0, 200..=204 | 409), "{path}: {} {}", answer.0, answer.1);
        self.made.push(path.to_string());
    }

    pub async fn clean(&mut self) {
        for side in &self.sides {
            let path = format!("domains/{}", side.domain_id);
            send(&self.url, "PATCH", &path, &self.root, Some(json!({"domain": {"enabled": false}}))).await;
        }
        while let Some(path) = self.made.pop() {
            send(&self.url, "DELETE", &path, &self.root, None).await;
        }
    }
}

async fn sign_in(url: &str, user: Json, scope: Json) -> String {
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let body = json!({"auth": {"identity": identity, "scope": scope}});
    let headers = [("content-type".to_string(), "application/json".to_string())];
    let url = format!("{url}/v3/auth/tokens");
    let answer = compat::send("POST", &url, &headers, body.to_string().into_bytes()).await.unwrap();
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    answer.header("x-subject-token").unwrap_or_else(|| panic!("{said}")).to_string()
}

pub async fn send(url: &str, method: &str, path: &str, token: &str, body: Option<Json>) -> (u16, Json) {
    send_about(url, method, path, token, body, None).await
}

/// With a token to speak about.
pub async fn send_about(
    url: &str,
    method: &str,
    path: &str,
    token: &str,
    body: Option<Json>,
    subject: Option<&str>,
) -> (u16, Json) {
    let mut headers = vec![("content-type".to_string(), "application/json".to_string())];
    for (name, value) in [("x-auth-token", token), ("x-subject-token", subject.unwrap_or_default())] {
        if !value.is_empty() {
            headers.push((name.to_string(), value.to_string()));
        }
    }
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    let url = format!("{url}/v3/{path}");
    let answer = compat::send(method, &url, &headers, body).await.unwrap();
    (answer.status, answer.json().unwrap_or(Json::Null))
}
