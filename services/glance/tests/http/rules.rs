//! What the operator holds people to: limits of keystone, and properties that are not everybody's.

use crate::cloud::{ADMIN, Cloud, OWNER, options, said};
use base::Json;
use glance::{Options, PropertyProtection};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_keystone() {
    let cloud = Cloud::with(Options { use_keystone_limits: true, ..options() }).await;
    let usage = cloud.get(OWNER, "/v2/info/usage").await.body;
    assert_eq!(usage["usage"]["image_count_total"], json!({"limit": 3, "usage": 0}));
    let first = cloud.image("raw").await;
    let second = cloud.image("raw").await;
    let third = cloud.image("raw").await;
    let fourth = cloud.call(OWNER, "POST", "/v2/images", json!({"name": "fourth"})).await;
    assert_eq!(fourth.status, 413, "{}", fourth.text());
    assert!(
        fourth
            .text()
            .contains("Resource image_count_total is over limit of 3 due to current usage 3 and delta 1"),
        "{}",
        fourth.text()
    );
    assert_eq!(cloud.call("member@p2", "POST", "/v2/images", json!({"name": "another's"})).await.status, 201);
    let upload = |id: &str, what: &str, mib: usize| {
        let (path, length) = (format!("/v2/images/{id}/{what}"), (mib << 20).to_string());
        let surface = cloud.surface.clone();
        async move {
            let headers = [
                ("x-auth-token", OWNER),
                ("content-type", "application/octet-stream"),
                ("content-length", &*length),
            ];
            surface.send("PUT", &path, &headers, vec![1; mib << 20].into()).await
        }
    };
    assert_eq!(upload(&first, "file", 6).await.status, 413);
    assert_eq!(upload(&first, "file", 4).await.status, 204);
    let refused = upload(&second, "file", 2).await;
    assert_eq!(refused.status, 413);
    assert!(
        refused.text().contains("image_size_total is over limit of 5 due to current usage 4 and delta 2")
    );
    assert_eq!(upload(&third, "stage", 6).await.status, 413);
    assert_eq!(upload(&third, "stage", 5).await.status, 204);
    let usage = cloud.get(OWNER, "/v2/info/usage").await.body;
    assert_eq!(
        usage["usage"],
        json!({
            "image_size_total": {"limit": 5, "usage": 4}, "image_stage_total": {"limit": 5, "usage": 5},
            "image_count_total": {"limit": 3, "usage": 3}, "image_count_uploading": {"limit": -1, "usage": 1},
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_held_when_many_come_at_once() {
    let cloud = Cloud::with(Options { use_keystone_limits: true, ..options() }).await;
    let asked =
        (0..30).map(|_| async { cloud.call(OWNER, "POST", "/v2/images", json!({"name": "i"})).await.status });
    let made = futures::future::join_all(asked).await.into_iter().filter(|status| *status == 201).count();
    assert_eq!(made, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_properties() {
    let owned = |roles: &[&str]| roles.iter().map(|role| role.to_string()).collect::<Vec<_>>();
    let rule = |name: &str, change: &[&str], read: &[&str]| PropertyProtection {
        name: name.into(),
        create: owned(change),
        read: owned(read),
        update: owned(change),
        delete: owned(change),
    };
    let protections = vec![
        rule("x_secret.*", &["admin"], &["admin"]),
        rule("x_owner.*", &["admin"], &["admin", "member"]),
        rule(".*", &["@"], &["@"]),
    ];
    let cloud = Cloud::with(Options { property_protections: protections, ..options() }).await;
    let refused = cloud.call(OWNER, "POST", "/v2/images", json!({"name": "i", "x_owner_a": "b"})).await;
    assert_eq!(refused.status, 403);
    assert!(said(&refused).contains("Attribute 'x_owner_a' is reserved."), "{}", refused.text());
    let id = cloud.image("raw").await;
    let at = format!("/v2/images/{id}");
    let patch = |op: &str, name: &str| json!([{"op": op, "path": format!("/{name}"), "value": "v"}]);
    for (token, op, name, status) in [
        (OWNER, "add", "x_owner_a", 403),
        (OWNER, "add", "free", 200),
        (OWNER, "replace", "free", 200),
        (ADMIN, "add", "x_owner_a", 200),
        (ADMIN, "add", "x_secret_a", 200),
        (OWNER, "replace", "x_owner_a", 403),
        (OWNER, "remove", "x_owner_a", 403),
        (OWNER, "replace", "x_secret_a", 409),
        (OWNER, "add", "x_secret_a", 403),
        (OWNER, "remove", "x_secret_a", 409),
        (OWNER, "remove", "free", 200),
    ] {
        let answer = cloud.call(token, "PATCH", &at, patch(op, name)).await;
        assert_eq!(answer.status, status, "{token} {op} {name}: {}", answer.text());
    }
    let seen = |image: Json| (image["x_secret_a"].clone(), image["x_owner_a"].clone());
    assert_eq!(seen(cloud.show(&id).await), (Json::Null, json!("v")));
    assert_eq!(seen(cloud.get(ADMIN, &at).await.body), (json!("v"), json!("v")));
    assert_eq!(
        seen(cloud.get(OWNER, "/v2/images").await.body["images"][0].clone()),
        (Json::Null, json!("v"))
    );
}
