//! The cache: what comes into it, what is served from it, what goes.

use crate::cloud::{ADMIN, Cloud, IMAGE, OWNER, open, options, reaching, web_server};
use base::Json;
use glance::{Options, StoreKind, StoreOptions};
use serde_json::json;
use std::sync::atomic::Ordering;

async fn cached(cloud: &Cloud, count: usize) -> Json {
    for _ in 0..500 {
        let listed = cloud.get(ADMIN, "/v2/cache").await.body;
        if listed["cached_images"].as_array().map(Vec::len) == Some(count) {
            return listed;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not cached: {}", cloud.get(ADMIN, "/v2/cache").await.body)
}

async fn active(cloud: &Cloud, bytes: &'static str) -> String {
    let id = cloud.image("raw").await;
    assert_eq!(cloud.put(&id, "file", bytes).await.status, 204);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_queued_cached_served_and_forgotten() {
    let cloud = Cloud::small().await;
    let id = active(&cloud, IMAGE).await;
    let at = |rest: &str| format!("/v2/cache{rest}");
    assert_eq!(cloud.call(ADMIN, "PUT", &at(&format!("/{id}")), Json::Null).await.status, 202);
    let listed = cached(&cloud, 1).await;
    let entry = &listed["cached_images"][0];
    assert_eq!((&entry["image_id"], &entry["size"], &entry["hits"]), (&json!(id), &json!(22), &json!(0)));
    assert_eq!(entry["checksum"], "a89fe3e1533d745a6e77efb32c65367f");
    assert_eq!(listed["queued_images"], json!([]));
    let nodes = cloud.get(ADMIN, &at(&format!("/nodes/{id}"))).await.body;
    assert_eq!(nodes, json!(["http://127.0.0.1:9292"]));
    // Downloads come from the cache now, parts of them too.
    std::fs::write(cloud.directory.path().join(&id), "SOME BYTES OF AN IMAGE").unwrap();
    let file = format!("/v2/images/{id}/file");
    assert_eq!(cloud.get(OWNER, &file).await.text(), IMAGE);
    let part = [("x-auth-token", OWNER), ("range", "bytes=5-9")];
    let part = cloud.surface.ask("GET", &file, &part, Json::Null).await;
    assert_eq!((part.status, part.text()), (206, "bytes"));
    assert_eq!(cached(&cloud, 1).await["cached_images"][0]["hits"], 2);
    // It is not cached twice.
    assert_eq!(cloud.call(ADMIN, "PUT", &at(&format!("/{id}")), Json::Null).await.status, 202);
    assert_eq!(cloud.call(ADMIN, "DELETE", &at(&format!("/{id}")), Json::Null).await.status, 204);
    cached(&cloud, 0).await;
    assert_eq!(cloud.get(OWNER, &file).await.text(), "SOME BYTES OF AN IMAGE");
}

/// What its store has is not the image any more: it stays queued and is not served.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_not_cached() {
    let cloud = Cloud::small().await;
    let id = active(&cloud, IMAGE).await;
    std::fs::write(cloud.directory.path().join(&id), "some bytes that rotted").unwrap();
    assert_eq!(cloud.call(ADMIN, "PUT", &format!("/v2/cache/{id}"), Json::Null).await.status, 202);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let listed = cloud.get(ADMIN, "/v2/cache").await.body;
    assert_eq!((&listed["cached_images"], &listed["queued_images"]), (&json!([]), &json!([id])));
    assert!(!cloud.directory.path().join("cache").join(&id).exists());
    let queue = [("x-auth-token", ADMIN), ("x-image-cache-clear-target", "queue")];
    assert_eq!(cloud.surface.ask("DELETE", "/v2/cache", &queue, Json::Null).await.status, 204);
    assert_eq!(cloud.get(ADMIN, "/v2/cache").await.body["queued_images"], json!([]));
    let wrong = [("x-auth-token", ADMIN), ("x-image-cache-clear-target", "wrong")];
    assert_eq!(cloud.surface.ask("DELETE", "/v2/cache", &wrong, Json::Null).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_pruned_and_cleaned() {
    let cloud =
        Cloud::with(Options { image_cache_bytes_max: 30, image_cache_stall_seconds: 0, ..options() }).await;
    for bytes in ["the first twenty bytes", IMAGE] {
        let id = active(&cloud, bytes).await;
        cloud.call(ADMIN, "PUT", &format!("/v2/cache/{id}"), Json::Null).await;
    }
    cached(&cloud, 2).await;
    let pruned = cloud.call(ADMIN, "POST", "/v2/cache/prune", Json::Null).await;
    assert_eq!(pruned.body, json!({"total_files_pruned": 1, "total_bytes_pruned": 22}));
    let again = cloud.call(ADMIN, "POST", "/v2/cache/prune", Json::Null).await;
    assert_eq!(again.body, json!({"total_files_pruned": 0, "total_bytes_pruned": 0}));
    let folder = cloud.directory.path().join("cache");
    std::fs::write(folder.join("incoming/half"), "half").unwrap();
    std::fs::write(folder.join("orphan"), "nobody's").unwrap();
    assert_eq!(cloud.call(ADMIN, "POST", "/v2/cache/clean", Json::Null).await.status, 200);
    assert!(!folder.join("incoming/half").exists() && !folder.join("orphan").exists());
    cached(&cloud, 1).await;
    // A deleted image is not cached.
    let id = cloud.get(ADMIN, "/v2/cache").await.body["cached_images"][0]["image_id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(cloud.call(OWNER, "DELETE", &format!("/v2/images/{id}"), Json::Null).await.status, 204);
    cached(&cloud, 0).await;
    assert!(!folder.join(id).exists());
}

/// What comes from elsewhere passes the cache, and comes from there the next time.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_from_elsewhere_is_cached() {
    let (server, asked) = web_server("127.0.0.4:0").await;
    let web = StoreOptions { id: "web".into(), kind: StoreKind::Http, ..StoreOptions::default() };
    let mut options = reaching(&server);
    options.stores.push(web);
    let cloud = Cloud::with(options).await;
    let id = cloud.image("raw").await;
    let url = json!({"url": format!("http://{server}/image")});
    assert_eq!(cloud.call(OWNER, "POST", &format!("/v2/images/{id}/locations"), url).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "success");
    let before = asked.load(Ordering::SeqCst);
    let file = format!("/v2/images/{id}/file");
    assert_eq!(cloud.get(OWNER, &file).await.text(), IMAGE);
    cached(&cloud, 1).await;
    assert_eq!(cloud.get(OWNER, &file).await.text(), IMAGE);
    assert_eq!(asked.load(Ordering::SeqCst), before + 1);
}

/// Nodes of one cloud have a cache each; what one forgets the other keeps.
#[tokio::test(flavor = "multi_thread")]
async fn each_node_has_its_cache() {
    let node = |name: &str| Options { worker_self_reference_url: format!("http://{name}:9292"), ..options() };
    let one = Cloud::with(node("one")).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let cache = elsewhere.path().display().to_string();
    let there = Options { image_cache_directory: cache, ..node("other") };
    let (_, other) = open(&one.database, &one.directory, there).await;
    let asked = async |method: &str, path: &str| {
        other.ask(method, path, &[("x-auth-token", ADMIN)], Json::Null).await
    };
    let id = active(&one, IMAGE).await;
    let at = format!("/v2/cache/{id}");
    assert_eq!(one.call(ADMIN, "PUT", &at, Json::Null).await.status, 202);
    cached(&one, 1).await;
    assert_eq!(asked("GET", "/v2/cache").await.body["cached_images"], json!([]));
    assert_eq!(asked("PUT", &at).await.status, 202);
    let nodes = json!(["http://one:9292", "http://other:9292"]);
    for _ in 0..500 {
        if one.get(ADMIN, &format!("/v2/cache/nodes/{id}")).await.body == nodes {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(asked("GET", &format!("/v2/cache/nodes/{id}")).await.body, nodes);
    assert_eq!(asked("DELETE", "/v2/cache").await.status, 204);
    assert_eq!(asked("GET", "/v2/cache").await.body["cached_images"], json!([]));
    assert!(!elsewhere.path().join(&id).exists());
    assert_eq!(cached(&one, 1).await["cached_images"][0]["image_id"], id);
}
