//! Limits under the model of two levels: no project has more than its domain.

use crate::cloud::Cloud;
use keystone::{LimitModel, Options};
use serde_json::json;

#[tokio::test]
async fn a_project_has_no_more_than_its_domain() {
    let options =
        Options { password_hash_rounds: 4, limit_model: LimitModel::StrictTwoLevel, ..Options::default() };
    let cloud = Cloud::with(options).await;
    let model = cloud.call("GET", "/v3/limits/model", &cloud.admin, None).await;
    assert_eq!(model.body["model"]["name"], "strict_two_level");
    let service = cloud.make("services", "service", json!({"type": "lamp", "name": "lamp"})).await;
    let registered = json!({"registered_limits": [{"service_id": service, "resource_name": "bulbs", "default_limit": 10}]});
    assert_eq!(cloud.call("POST", "/v3/registered_limits", &cloud.admin, registered).await.status, 201);
    let domain = cloud.make("domains", "domain", json!({"name": "sea"})).await;
    let parented = |name: &str, parent: &str| json!({"name": name, "domain_id": domain, "parent_id": parent});
    let ship = cloud.make("projects", "project", parented("ship", &domain)).await;
    let boat = cloud.make("projects", "project", parented("boat", &ship)).await;
    let deep = json!({"project": parented("raft", &boat)});
    assert_eq!(cloud.call("POST", "/v3/projects", &cloud.admin, deep).await.status, 403, "a third level");

    let limit = |level: &str, id: &str, number: i64| json!({level: id, "service_id": service, "resource_name": "bulbs", "resource_limit": number});
    let post = async |limits: &[base::Json]| {
        cloud.call("POST", "/v3/limits", &cloud.admin, json!({"limits": limits})).await
    };
    let refused = post(&[limit("project_id", &ship, 11)]).await;
    assert_eq!(refused.status, 403, "more than the default, which holds for the domain");
    assert_eq!(
        refused.message(),
        format!(
            "Invalid resource limit: The resource limit (project_id: {ship}, resource_name: bulbs, \
             resource_limit: 11, service_id: {service}, region_id: None) doesn't satisfy current hierarchy model.."
        )
    );
    let both = post(&[limit("project_id", &ship, 15), limit("domain_id", &domain, 20)]).await;
    assert_eq!(both.status, 201, "{}", both.body);
    let id = |at: usize| both.body["limits"][at]["id"].as_str().unwrap().to_string();
    let set = async |id: String, number: i64| {
        let change = json!({"limit": {"resource_limit": number}});
        cloud.call("PATCH", &format!("/v3/limits/{id}"), &cloud.admin, change).await.status
    };
    assert_eq!(set(id(0), 21).await, 403, "more than the domain's");
    assert_eq!(set(id(1), 14).await, 403, "less than a project's");
    assert_eq!((set(id(1), 30).await, set(id(0), 30).await), (200, 200));
    let shown = cloud.call("GET", &format!("/v3/limits/{}", id(0)), &cloud.admin, None).await;
    assert_eq!(shown.body["limit"]["resource_limit"], 30);
}
