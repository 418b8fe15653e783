//! Somebody who calls the cloud over HTTP with a token.

use compat::Answer;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// One user in one project. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    pub token: String,
    pub project_id: String,
    pub user_id: String,
    version: Option<String>,
    /// The catalog: a service's name and where it is.
    urls: Arc<BTreeMap<String, String>>,
}

impl Caller {
    pub async fn sign_in(identity_url: &str, user: &str, password: &str, project: &str) -> Self {
        let domain = json!({"id": "default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": user, "password": password, "domain": domain}}},
            "scope": {"project": {"name": project, "domain": domain}}}});
        let url = format!("{identity_url}/v3/auth/tokens");
        let answer = send("POST", &url, &[], Some(body)).await;
        assert_eq!(answer.status, 201, "{user} signs in: {}", String::from_utf8_lossy(&answer.body));
        let token = &answer.json().unwrap()["token"];
        let urls = token["catalog"].as_array().into_iter().flatten().filter_map(|service| {
            let endpoints = service["endpoints"].as_array()?;
            let public = endpoints.iter().find(|endpoint| endpoint["interface"] == "public")?;
            Some((text(&service["name"]), text(&public["url"])))
        });
        Self {
            token: answer.header("x-subject-token").unwrap().into(),
            project_id: text(&token["project"]["id"]),
            user_id: text(&token["user"]["id"]),
            version: None,
            urls: Arc::new(urls.collect()),
        }
    }

    /// The same person who asks for a microversion: `compute 2.96`.
    pub fn at(&self, version: &str) -> Self {
        Self { version: Some(version.into()), ..self.clone() }
    }

    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.urls.keys().map(String::as_str)
    }

    pub fn url_of(&self, service: &str) -> &str {
        self.urls.get(service).unwrap_or_else(|| panic!("{service} is not in the catalog"))
    }

    pub async fn get(&self, service: &str, path: &str) -> Answer {
        self.call("GET", service, path, None).await
    }

    pub async fn post(&self, service: &str, path: &str, body: Value) -> Answer {
        self.call("POST", service, path, Some(body)).await
    }

    pub async fn put(&self, service: &str, path: &str, body: Value) -> Answer {
        self.call("PUT", service, path, Some(body)).await
    }

    pub async fn delete(&self, service: &str, path: &str) -> Answer {
        self.call("DELETE", service, path, None).await
    }

    /// Under the service's URL in the catalog.
    pub async fn call(&self, method: &str, service: &str, path: &str, body: Option<Value>) -> Answer {
        let mut headers = vec![("x-auth-token".to_string(), self.token.clone())];
        headers.extend(self.version.iter().map(|v| ("openstack-api-version".to_string(), v.clone())));
        send(method, &format!("{}{path}", self.url_of(service)), &headers, body).await
    }

    /// Gives an image its bytes; panics when they are refused.
    pub async fn upload(&self, image_id: &str, bytes: Vec<u8>) {
        let headers = [("x-auth-token", &*self.token), ("content-type", "application/octet-stream")];
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_string()));
        let url = format!("{}/v2/images/{image_id}/file", self.url_of("glance"));
        let answer = compat::send("PUT", &url, &headers, bytes).await.unwrap();
        assert_eq!(answer.status, 204, "upload: {}", String::from_utf8_lossy(&answer.body));
    }

    /// What a GET finds; panics when it is not there.
    pub async fn show(&self, service: &str, path: &str) -> Value {
        let answer = self.get(service, path).await;
        assert_eq!(answer.status, 200, "GET {path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json().unwrap()
    }

    /// What a POST made; panics when it was refused.
    pub async fn make(&self, service: &str, path: &str, body: Value) -> Value {
        let answer = self.post(service, path, body).await;
        let said = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "POST {path}: {} {said}", answer.status);
        answer.json().unwrap_or_default()
    }
}

/// The words of a value; empty when it has none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

async fn send(method: &str, url: &str, headers: &[(String, String)], body: Option<Value>) -> Answer {
    let mut headers = headers.to_vec();
    if body.is_some() {
        headers.push(("content-type".into(), "application/json".into()));
    }
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    compat::send(method, url, &headers, body).await.unwrap()
}
