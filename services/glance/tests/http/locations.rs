//! Images whose bytes stay on other people's web servers.

use crate::cloud::{ADMIN, Cloud, IMAGE, OWNER, reaching, said, web_server};
use base::Json;
use glance::{StoreKind, StoreOptions};
use serde_json::json;

const SHA256: &str = "3b0c5b7d1c4a1f2d0000000000000000000000000000000000000000000000aa";

async fn cloud(show: bool) -> (Cloud, String) {
    let (server, _) = web_server("127.0.0.5:0").await;
    let mut options = reaching(&server);
    options.show_multiple_locations = show;
    options.stores.push(StoreOptions { id: "web".into(), kind: StoreKind::Http, ..StoreOptions::default() });
    (Cloud::with(options).await, format!("http://{server}/image"))
}

async fn add(cloud: &Cloud, id: &str, body: Json) -> crate::cloud::Answer {
    cloud.call(OWNER, "POST", &format!("/v2/images/{id}/locations"), body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_is_added_and_hashed() {
    let (cloud, url) = cloud(false).await;
    let id = cloud.image("raw").await;
    assert_eq!(add(&cloud, &id, json!({"url": url})).await.status, 202);
    let task = cloud.task(&id).await;
    assert_eq!((&task["status"], &task["type"]), (&json!("success"), &json!("location_import")));
    let shown = cloud.show(&id).await;
    assert_eq!(
        (&shown["status"], &shown["size"], &shown["stores"], &shown["os_hash_algo"]),
        (&json!("active"), &json!(22), &json!("web"), &json!("sha512"))
    );
    assert_eq!(shown["checksum"], "a89fe3e1533d745a6e77efb32c65367f");
    assert!(shown["os_hash_value"].as_str().unwrap().starts_with("50fd1bfc28a5b872"));
    assert!(shown.get("locations").is_none());
    assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/locations")).await.status, 403);
    let listed = cloud.get(ADMIN, &format!("/v2/images/{id}/locations")).await.body;
    assert_eq!(listed, json!([{"url": url, "metadata": {"store": "web"}}]));
    assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.text(), IMAGE);
    let part = [("x-auth-token", OWNER), ("range", "bytes=0-3")];
    let part = cloud.surface.ask("GET", &format!("/v2/images/{id}/file"), &part, Json::Null).await;
    assert_eq!((part.status, part.text()), (206, "some"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_is_what_it_is_said_to_be_or_nothing() {
    let (cloud, url) = cloud(false).await;
    let id = cloud.image("raw").await;
    let with = |algorithm: &str, value: &str| json!({"url": url, "validation_data": {"os_hash_algo": algorithm, "os_hash_value": value}});
    for (body, status, says) in [
        (with("sha512", SHA256), 400, "is not the correct size for (sha512)"),
        (with("sha256", "zz"), 400, "is not a valid hexadecimal value"),
        (with("sha123", SHA256), 400, "is not one of"),
        (json!({"url": "http://127.0.0.1/x"}), 400, "does not pass filtering"),
        (json!({"url": "http://169.254.169.254/x"}), 400, "does not pass filtering"),
        (json!({"url": "file:///etc/passwd"}), 403, "http store must be enabled"),
    ] {
        let answer = add(&cloud, &id, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(said(&answer).contains(says), "{body}: {}", answer.text());
    }
    assert_eq!(add(&cloud, &id, with("sha256", SHA256)).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "failure");
    let shown = cloud.show(&id).await;
    assert_eq!(
        (&shown["status"], &shown["os_hash_algo"], &shown["checksum"]),
        (&json!("queued"), &Json::Null, &Json::Null)
    );
    assert_eq!(shown["stores"], "web");
    let md5 = with("md5", "a89fe3e1533d745a6e77efb32c65367f");
    assert_eq!(add(&cloud, &id, md5).await.status, 202);
    cloud.until(&id, "active").await;
    assert_eq!(cloud.show(&id).await["os_hash_algo"], "md5");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_store_takes_no_uploads() {
    let (cloud, _) = cloud(false).await;
    let id = cloud.image("raw").await;
    let headers = [
        ("x-auth-token", OWNER),
        ("content-type", "application/octet-stream"),
        ("x-image-meta-store", "web"),
    ];
    let stores = cloud.get(OWNER, "/v2/info/stores").await.body;
    assert_eq!(stores["stores"][1], json!({"id": "web", "read-only": "true"}));
    let answer = cloud.surface.send("PUT", &format!("/v2/images/{id}/file"), &headers, "x".into()).await;
    assert_eq!(answer.status, 410, "{}", answer.text());
    assert_eq!(cloud.show(&id).await["status"], "queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn locations_are_patched() {
    let (cloud, url) = cloud(true).await;
    let id = cloud.image("raw").await;
    assert_eq!(cloud.show(&id).await["locations"], json!([]));
    let at = format!("/v2/images/{id}");
    let hash = "deadbeef".repeat(16);
    let location = |url: &str, data: Json| {
        let mut location = json!({"url": url, "metadata": {"a": "b"}});
        if !data.is_null() {
            location["validation_data"] = data;
        }
        location
    };
    let data = |algorithm: &str| json!({"checksum": "1".repeat(32), "os_hash_algo": algorithm, "os_hash_value": hash});
    let (second, third) = (format!("{url}#2"), format!("{url}#3"));
    let patch = |op: &str, path: &str, value: Json| json!([{"op": op, "path": path, "value": value}]);
    #[rustfmt::skip]
    let steps = [
        (patch("add", "/locations/-", location("gopher://a/b", Json::Null)), 400, "Invalid location"),
        (patch("add", "/locations/-", location("http://127.0.0.1/x", Json::Null)), 400, "Invalid location"),
        (patch("add", "/locations/-", location("file:///etc/passwd", Json::Null)), 400, "Invalid location"),
        (patch("add", "/locations/-", json!({"url": url})), 400, "is a required property"),
        (patch("add", "/locations/x", location(&url, Json::Null)), 400, "Invalid position"),
        (patch("remove", "/locations/0", Json::Null), 409, "It's not allowed to remove locations if image status is queued."),
        (patch("add", "/locations/-", location(&url, data("sha256"))), 409, "os_hash_algo must be sha512"),
        (patch("add", "/locations/-", location(&url, data("sha512"))), 200, "active"),
        (patch("add", "/locations/-", location(&url, Json::Null)), 400, "already exists"),
        (patch("add", "/locations/-", location(&second, json!({"os_hash_algo": "sha512", "os_hash_value": "00".repeat(64)}))), 409, "already set with a different value"),
        (patch("remove", "/locations/0", Json::Null), 403, "Cannot remove last location"),
        (patch("add", "/locations/-", location(&second, data("sha512"))), 200, "#2"),
        (patch("replace", "/locations", json!([location(&url, Json::Null)])), 400, "Original locations is not empty"),
        (patch("replace", "/locations", json!([location(&url, Json::Null), location(&third, Json::Null)])), 400, "Original locations is not empty"),
        (patch("replace", "/locations", json!([{"url": url, "metadata": {"date": "now"}}, location(&second, Json::Null)])), 200, "now"),
        (patch("remove", "/locations/5", Json::Null), 400, "Invalid position for removing"),
        (patch("remove", "/locations/1", Json::Null), 200, "now"),
    ];
    for (body, status, says) in steps {
        // Taking a place away is for administrators alone.
        let is_removed = body[0]["op"] == "remove";
        if is_removed {
            assert_eq!(cloud.call(OWNER, "PATCH", &at, body.clone()).await.status, 403);
        }
        let token = if is_removed { ADMIN } else { OWNER };
        let answer = cloud.call(token, "PATCH", &at, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(said(&answer).contains(says), "{body}: {}", answer.text());
    }
    let shown = cloud.show(&id).await;
    assert_eq!(shown["locations"], json!([{"url": url, "metadata": {"date": "now", "store": "web"}}]));
    assert_eq!(
        (&shown["direct_url"], &shown["checksum"], &shown["size"]),
        (&json!(url), &json!("1".repeat(32)), &json!(22))
    );
}

/// Where the operator wants nothing to be read, hashes are those that are said.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_hashes() {
    let (server, asked) = web_server("127.0.0.5:0").await;
    let mut options = reaching(&server);
    options.do_secure_hash = false;
    options.stores.push(StoreOptions { id: "web".into(), kind: StoreKind::Http, ..StoreOptions::default() });
    let cloud = Cloud::with(options).await;
    let url = format!("http://{server}/image");
    let said_hash =
        json!({"url": url, "validation_data": {"os_hash_algo": "sha256", "os_hash_value": SHA256}});
    for (body, algorithm, value) in
        [(said_hash, json!("sha256"), json!(SHA256)), (json!({"url": url}), Json::Null, Json::Null)]
    {
        let id = cloud.image("raw").await;
        assert_eq!(add(&cloud, &id, body).await.status, 202);
        assert_eq!(cloud.task(&id).await["status"], "success");
        let shown = cloud.show(&id).await;
        assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(22)));
        assert_eq!((&shown["os_hash_algo"], &shown["os_hash_value"]), (&algorithm, &value));
        assert_eq!(shown["checksum"], Json::Null);
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    let id = cloud.image("raw").await;
    let nowhere = json!({"url": format!("http://{server}/nowhere")});
    assert_eq!(add(&cloud, &id, nowhere).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "failure");
    assert_eq!(cloud.show(&id).await["status"], "queued");
}
