//! Volumes from beginning to end.

use crate::cloud::{Cloud, OTHER, PROJECT, fake, options};
use base::Context;
use cinder::{Options, TABLES};
use contracts::agents::volume::VolumeReports;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_to_a_server_and_back() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let cloud = Cloud::with(options(), fake(), database).await;
        let id = cloud.volume(json!({"size": 2, "name": "v"})).await;
        assert_eq!(cloud.fake.volumes().get(&id), Some(&(2 << 30)));
        let attachment = cloud.attached(&id).await;
        assert!(cloud.fake.exports().contains_key(&id));
        let volume = cloud.get(&format!("/v3/volumes/{id}")).await;
        assert_eq!(volume["volume"]["status"], "in-use");
        assert_eq!(volume["volume"]["attachments"][0]["device"], "/dev/vdb");
        assert_eq!(volume["volume"]["attachments"][0]["attachment_id"], attachment.as_str());
        let shown = cloud.get(&format!("/v3/attachments/{attachment}")).await;
        assert_eq!(shown["attachment"]["connection_info"]["driver_volume_type"], "nbd_unix");
        let connected = cloud.cinder.volumes_connected(&Context::internal(), "h1@files").await.unwrap();
        assert_eq!(connected, [id.as_str()]);
        let refused = cloud.call("member", "DELETE", &format!("/v3/volumes/{id}"), None).await;
        assert_eq!(refused.status, 400, "in use: {}", refused.body);
        let left = cloud.call("member", "DELETE", &format!("/v3/attachments/{attachment}"), None).await;
        assert_eq!((left.status, left.body), (200, json!({"attachments": []})));
        assert!(cloud.fake.exports().is_empty());
        assert_eq!(cloud.status(&id).await, "available");
        let deleted = cloud.call("member", "DELETE", &format!("/v3/volumes/{id}"), None).await;
        assert_eq!(deleted.status, 202);
        cloud.cinder.settled().await;
        assert_eq!(cloud.call("member", "GET", &format!("/v3/volumes/{id}"), None).await.status, 404);
        assert!(cloud.fake.volumes().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_at_v2() {
    let cloud = Cloud::new().await;
    let path = format!("/v2/{PROJECT}/volumes");
    let headers = [("x-auth-token", "member")];
    let made =
        cloud.ask("POST", &path, &headers, Some(json!({"volume": {"size": 1, "display_name": "old"}}))).await;
    assert_eq!((made.status, &made.body["volume"]["name"]), (202, &json!("old")));
    let id = made.body["volume"]["id"].as_str().unwrap();
    assert_eq!(made.body["volume"]["links"][0]["href"], format!("http://c:8776/v2/{PROJECT}/volumes/{id}"));
    for key in ["group_id", "service_uuid", "volume_type_id", "consumes_quota"] {
        assert!(made.body["volume"].get(key).is_none(), "{key} is newer");
    }
    cloud.cinder.settled().await;
    let shown = cloud.ask("GET", &format!("{path}/{id}"), &headers, None).await;
    assert_eq!(shown.body["volume"]["status"], "available");
    let wrong = cloud.ask("GET", &format!("/v2/{OTHER}/volumes"), &headers, None).await;
    assert_eq!((wrong.status, wrong.message()), (400, "Malformed request url"));
    assert_eq!(cloud.ask("GET", "/v2/", &headers, None).await.status, 404);
    for (method, path, status) in
        [("GET", ".json", 200), ("GET", "/", 404), ("DELETE", "/", 404), ("HEAD", "", 404)]
    {
        let answer = cloud.ask(method, &format!("/v3/{PROJECT}/volumes{path}"), &headers, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_their_links() {
    let cloud = Cloud::new().await;
    for number in 0..5 {
        cloud.volume(json!({"size": 1, "name": format!("v{number}")})).await;
        cloud.clock.advance(Duration::from_secs(1));
    }
    let mut seen = Vec::new();
    let mut next = Some("/v3/volumes/detail?limit=2&sort=created_at:asc".to_string());
    while let Some(path) = next {
        let page = cloud.get(&path).await;
        seen.extend(page["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].clone()));
        let href = page["volumes_links"][0]["href"].as_str();
        next = href.map(|href| href.strip_prefix("http://c:8776").unwrap().to_string());
    }
    assert_eq!(json!(seen), json!(["v0", "v1", "v2", "v3", "v4"]));
    let newest = cloud.get("/v3/volumes?limit=1&offset=1").await;
    assert_eq!(newest["volumes"][0]["name"], "v3", "newest first, one left out");
    let since = cloud.get("/v3/volumes?created_at=gt:2026-11-20T08:15:33").await;
    assert_eq!(since["volumes"].as_array().unwrap().len(), 2);
    let like = cloud.call("admin", "GET", "/v3/volumes?name~=v&all_tenants=1", None).await;
    assert_eq!(like.body["volumes"].as_array().unwrap().len(), 5);
    let others = cloud.call(&format!("member@{OTHER}"), "GET", "/v3/volumes?all_tenants=1", None).await;
    assert_eq!(others.body, json!({"volumes": []}), "only an administrator sees all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_update_is_seen() {
    let cloud = Cloud::new().await;
    let id = cloud.volume(json!({"size": 1, "metadata": {"a": "b"}})).await;
    let path = format!("/v3/volumes/{id}/metadata");
    let tag = cloud.call("member", "GET", &path, None).await.headers["etag"].to_str().unwrap().to_string();
    let put = async |tag: &str| {
        let headers =
            [("x-auth-token", "member"), ("openstack-api-version", "volume 3.71"), ("if-match", tag)];
        cloud.ask("PUT", &path, &headers, Some(json!({"metadata": {"c": "d"}}))).await.status
    };
    assert_eq!(put(&tag).await, 200);
    assert_eq!(put(&tag).await, 412, "somebody has changed it");
    assert_eq!(put("*").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_while_a_server_has_it() {
    let cloud = Cloud::with(
        Options { quota_gigabytes: 5, ..options() },
        fake(),
        db::testing::sqlite(TABLES, &[]).await.unwrap(),
    )
    .await;
    let id = cloud.volume(json!({"size": 1})).await;
    cloud.attached(&id).await;
    let path = format!("/v3/volumes/{id}/action");
    let to = |size: i64| json!({"os-extend": {"new_size": size}});
    let old = [("x-auth-token", "member"), ("openstack-api-version", "volume 3.41")];
    let refused = cloud.ask("POST", &path, &old, Some(to(2))).await;
    assert_eq!(
        refused.message(),
        format!(
            "Invalid volume: Volume {id} status must be '{{'status': 'available'}}' to extend, currently in-use."
        )
    );
    assert_eq!(cloud.post(&path, to(2)).await.status, 202);
    cloud.cinder.settled().await;
    let volume = cloud.get(&format!("/v3/volumes/{id}")).await["volume"].clone();
    assert_eq!((&volume["status"], &volume["size"]), (&json!("in-use"), &json!(2)));
    assert_eq!(cloud.fake.volumes()[&id], 2 << 30);
    assert_eq!(cloud.post(&path, to(6)).await.status, 413, "quota");
    assert_eq!(cloud.post(&path, to(2)).await.status, 400, "not smaller");
    assert_eq!(cloud.call("reader", "POST", &path, Some(to(3))).await.status, 403);
}
