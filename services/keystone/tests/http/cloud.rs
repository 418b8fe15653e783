//! A keystone with its HTTP surface, for tests to talk to. On PostgreSQL where the environment names a server.

use base::{Clock, Json, Secret, Timestamp};
use keystone::{Bootstrap, EndpointUrls, Keystone, Options, TABLES};
use serde_json::json;
use std::sync::Arc;
pub use web::testing::Answer;
use web::testing::Surface;

pub struct Cloud {
    pub keystone: Arc<Keystone>,
    pub surface: Surface,
    pub clock: Clock,
    pub admin: String,
    pub database: db::testing::TestDb,
    pub directory: tempfile::TempDir,
}

/// A token that was issued.
pub trait Subject {
    fn token(&self) -> String;
}

impl Subject for Answer {
    fn token(&self) -> String {
        self.header("x-subject-token").into()
    }
}

impl Cloud {
    pub async fn new() -> Self {
        Self::with(Options { password_hash_rounds: 4, ..Options::default() }).await
    }

    pub async fn with(options: Options) -> Self {
        let (database, directory) = (database().await, tempfile::tempdir().unwrap());
        let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30Z").unwrap());
        let keystone = Keystone::new(database.db.clone(), clock.clone(), options, directory.path()).unwrap();
        let url = "http://127.0.0.1:5000/v3".to_string();
        let nova = EndpointUrls {
            service_type: "compute".into(),
            service_name: "nova".into(),
            public: "http://127.0.0.1:8774/v2.1/$(project_id)s".into(),
            internal: url.clone(),
            admin: url.clone(),
        };
        let wanted = Bootstrap {
            admin_password: Secret::new("secret"),
            region: "RegionOne".into(),
            endpoints: vec![nova],
            members: Vec::new(),
        };
        assert!(keystone.bootstrap(wanted.clone()).await.unwrap(), "an admin is made");
        assert!(!keystone.bootstrap(wanted).await.unwrap(), "only once");
        let service = keystone.service(None, "http://127.0.0.1:5000").unwrap();
        let surface = Surface::new(service, "127.0.0.1:5000");
        let admin = String::new();
        let mut cloud = Self { keystone, surface, clock, admin, database, directory };
        cloud.admin = cloud.sign_in("admin", "secret", json!({"project": named("admin")})).await.token();
        cloud
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: impl Into<Option<Json>>) -> Answer {
        self.surface.call(token, method, path, body).await
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Option<Json>>,
    ) -> Answer {
        self.surface.ask(method, path, headers, body).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        self.surface.send(method, path, headers, body.into()).await
    }

    pub async fn sign_in(&self, user: &str, password: &str, scope: Json) -> Answer {
        let user = json!({"name": user, "domain": {"id": "default"}, "password": password});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if !scope.is_null() {
            auth["scope"] = scope;
        }
        self.ask("POST", "/v3/auth/tokens", &[], Some(json!({"auth": auth}))).await
    }

    /// As the admin; panics unless it works.
    pub async fn make(&self, plural: &str, noun: &str, body: Json) -> String {
        let answer =
            self.call("POST", &format!("/v3/{plural}"), &self.admin, Some(json!({noun: body}))).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body[noun]["id"].as_str().unwrap().to_string()
    }

    pub async fn keystone_user(&self, name: &str) -> String {
        let answer = self.call("GET", &format!("/v3/users?name={name}"), &self.admin, None).await;
        answer.body["users"][0]["id"].as_str().unwrap().to_string()
    }

    pub async fn keystone_project(&self, name: &str) -> String {
        let answer = self.call("GET", &format!("/v3/projects?name={name}"), &self.admin, None).await;
        answer.body["projects"][0]["id"].as_str().unwrap().to_string()
    }

    pub async fn role(&self, name: &str) -> String {
        let answer = self.call("GET", &format!("/v3/roles?name={name}"), &self.admin, None).await;
        answer.body["roles"][0]["id"].as_str().unwrap().to_string()
    }

    pub async fn grant(&self, path: &str) {
        let answer = self.call("PUT", &format!("/v3/{path}"), &self.admin, None).await;
        assert_eq!(answer.status, 204, "{path}: {}", answer.body);
    }

    /// A user with a role on a project of its own: project, user, token.
    pub async fn person(&self, name: &str, role: &str) -> (String, String, String) {
        let project = self.make("projects", "project", json!({"name": format!("of-{name}")})).await;
        let user = self.make("users", "user", json!({"name": name, "password": "pw"})).await;
        self.grant(&format!("projects/{project}/users/{user}/roles/{}", self.role(role).await)).await;
        let answer = self.sign_in(name, "pw", json!({"project": {"id": project}})).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        (project, user, answer.token())
    }
}

pub async fn database() -> db::testing::TestDb {
    match db::testing::postgres(TABLES, &[]).await.unwrap() {
        Some(database) => database,
        None => db::testing::sqlite(TABLES, &[]).await.unwrap(),
    }
}

pub fn named(name: &str) -> Json {
    json!({"name": name, "domain": {"id": "default"}})
}

pub fn role_names(answer: &Answer) -> Vec<String> {
    let roles = answer.body["token"]["roles"].as_array().into_iter().flatten();
    let mut names: Vec<String> = roles.map(|role| role["name"].as_str().unwrap().to_string()).collect();
    names.sort();
    names
}
