//! Walks every operation of every service's table: none without a token, none that breaks on rubbish, and nothing
//! beyond the table.

use base::Version;
use ferrostack::routes::{Operation, all};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use test_cloud::{Caller, TestCloud};

/// The name of a service in `OpenStack-API-Version`.
const VERSIONED: [(&str, &str); 3] = [("nova", "compute"), ("placement", "placement"), ("cinder", "volume")];
const NOBODY: &str = "0badc0de-0000-4000-8000-000000000000";

/// The path with parameters filled in.
fn path_of(operation: &Operation, caller: &Caller) -> String {
    let parts = operation.path.split('/').map(|part| match part.split_once('{') {
        Some((before, "project_id}")) => format!("{before}{}", caller.project_id),
        Some((before, _)) => format!("{before}{NOBODY}"),
        None => part.into(),
    });
    parts.collect::<Vec<_>>().join("/")
}

/// The service's address without the path that the catalog has.
fn root_of(caller: &Caller, service: &str) -> String {
    let url = caller.url_of(service);
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

fn headers(operation: &Operation, token: Option<&str>) -> Vec<(String, String)> {
    let mut headers = vec![("content-type".to_string(), "application/json".to_string())];
    headers.extend(token.map(|token| ("x-auth-token".to_string(), token.to_string())));
    let versioned = VERSIONED.iter().find(|(service, _)| *service == operation.service);
    if let (Some((_, name)), Some(Version(major, minor))) = (versioned, operation.since) {
        headers.push(("openstack-api-version".into(), format!("{name} {major}.{minor}")));
    }
    headers
}

async fn status(
    operation: &Operation,
    caller: &Caller,
    token: Option<&str>,
    body: &Value,
) -> Result<u16, String> {
    let body = match operation.action {
        Some(action) => json!({action: body}),
        None => body.clone(),
    };
    let body = match operation.method.as_str() {
        "GET" | "HEAD" | "DELETE" => Vec::new(),
        _ => body.to_string().into_bytes(),
    };
    let url = format!("{}{}", root_of(caller, operation.service), path_of(operation, caller));
    let answer = compat::send(operation.method.as_str(), &url, &headers(operation, token), body).await;
    answer.map(|answer| answer.status).map_err(|error| format!("{error:#}"))
}

/// What is wrong, a line for each operation.
async fn walk(check: impl AsyncFn(&Operation, &Caller) -> Vec<String>) {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let mut wrong = Vec::new();
    for operation in all() {
        for what in check(&operation, &admin).await {
            let Operation { service, method, path, action, .. } = &operation;
            wrong.push(format!("{service} {method} {path} {}: {what}", action.unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_wants_a_token() {
    walk(async |operation, caller| {
        let mut wrong = Vec::new();
        for token in [None, Some("no-such-token")] {
            match status(operation, caller, token, &json!({})).await {
                Ok(401) => {}
                _ if operation.open => {}
                other => wrong.push(format!("with token {token:?}: {other:?}")),
            }
        }
        wrong
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_breaks_on_rubbish() {
    let long = "x".repeat(70_000);
    let bodies =
        [Value::Null, json!({}), json!([]), json!("text"), json!({"no such key": {}}), json!({"name": long})];
    walk(async |operation, caller| {
        let mut wrong = Vec::new();
        for body in &bodies {
            match status(operation, caller, Some(&caller.token), body).await {
                Ok(200..=499 | 501) => {}
                other => {
                    wrong.push(format!("{}: {other:?}", &body.to_string()[..20.min(body.to_string().len())]))
                }
            }
        }
        wrong
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_has_a_rule_or_needs_none() {
    let without = ["versions", "/", "/v3", "/v2", "/v2.1", "/v2.0"];
    // Nova's old paths to images have no rules of their own: glance asks its own of the caller's token.
    let passed_on = |path: &str| path.starts_with("/v2.1/images/");
    let mut wrong = Vec::new();
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for operation in all() {
        *rules.entry(operation.service).or_default() += usize::from(!operation.rule.is_empty());
        let changes = !operation.gone && !matches!(operation.method.as_str(), "GET" | "HEAD");
        let excused = operation.open || without.contains(&operation.path) || passed_on(operation.path);
        if operation.rule.is_empty() && changes && !excused {
            wrong.push(format!("{} {} {}", operation.service, operation.method, operation.path));
        }
    }
    // Swift asks roles and access lists, never rules.
    let asks = |(service, count): (&&str, &usize)| *service == "swift" || *count > 10;
    assert!(rules.iter().all(asks), "{rules:?}");
    assert!(wrong.is_empty(), "changes something, and asks no rule:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answers_beyond_the_table() {
    let cloud = TestCloud::start().await;
    let admin = cloud.admin().await;
    let mut known: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let operations = all();
    for operation in &operations {
        let methods = known.entry((operation.service, operation.path)).or_default();
        methods.push(operation.method.to_string());
    }
    let mut wrong = Vec::new();
    for service in admin.services() {
        let url = format!("{}/no/such/path", root_of(&admin, service));
        let headers = [("x-auth-token".to_string(), admin.token.clone())];
        let answer = compat::send("GET", &url, &headers, Vec::new()).await.unwrap();
        if answer.status != 404 {
            wrong.push(format!("GET {url}: {}", answer.status));
        }
    }
    for operation in &operations {
        let methods = &known[&(operation.service, operation.path)];
        for method in ["PUT", "PATCH", "DELETE"] {
            // Another path of the table may match as well: `/things/detail` is a `/things/{id}`.
            if methods.iter().any(|known| known == method) || beside(&operations, operation, method) {
                continue;
            }
            let url = format!("{}{}", root_of(&admin, operation.service), path_of(operation, &admin));
            let headers = headers(operation, Some(&admin.token));
            let status = compat::send(method, &url, &headers, b"{}".to_vec()).await.unwrap().status;
            if !matches!(status, 300 | 404 | 405) {
                wrong.push(format!("{} {method} {}: {status}", operation.service, operation.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a path of the table with a parameter takes this one's place for the method.
fn beside(operations: &[Operation], operation: &Operation, method: &str) -> bool {
    let parts: Vec<&str> = operation.path.split('/').collect();
    operations.iter().any(|other| {
        let others: Vec<&str> = other.path.split('/').collect();
        other.service == operation.service
            && other.method.as_str() == method
            && others.len() == parts.len()
            && others.iter().zip(&parts).all(|(a, b)| a == b || a.starts_with('{'))
    })
}
