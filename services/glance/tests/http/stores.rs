//! Images in several stores: where they go, what is copied, and stores that fail.

use crate::cloud::{ADMIN, BYTES, Cloud, OWNER, options};
use base::Json;
use glance::{Options, StoreOptions, TABLES};
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt, path::Path};

/// `file`, the default; `heavy`, that serves downloads; `third`.
async fn cloud(outside: &Path) -> Cloud {
    let store = |id: &str, weight: i64| StoreOptions {
        id: id.into(),
        directory: if id == "file" { String::new() } else { outside.join(id).display().to_string() },
        weight,
        description: if id == "heavy" { "Fast".into() } else { String::new() },
        ..StoreOptions::default()
    };
    let stores = vec![store("file", 0), store("heavy", 10), store("third", 0)];
    Cloud::on(db::testing::sqlite(TABLES, &[]).await.unwrap(), Options { stores, ..options() }).await
}

async fn import(cloud: &Cloud, id: &str, body: Json) -> Json {
    let path = format!("/v2/images/{id}/import");
    let answer = cloud.call(ADMIN, "POST", &path, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    cloud.task(id).await
}

async fn staged(cloud: &Cloud) -> String {
    let id = cloud.image("raw").await;
    assert_eq!(cloud.put(&id, "stage", "some bytes of an image").await.status, 204);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_there_are() {
    let outside = tempfile::tempdir().unwrap();
    let cloud = cloud(outside.path()).await;
    assert_eq!(
        cloud.get(OWNER, "/v2/info/stores").await.body,
        json!({"stores": [{"id": "file", "default": "true"}, {"id": "heavy", "description": "Fast"}, {"id": "third"}]})
    );
    let detail = cloud.get(ADMIN, "/v2/info/stores/detail").await.body;
    assert_eq!(detail["stores"][1]["weight"], 10);
    assert_eq!(cloud.get(OWNER, "/v2/info/stores/detail").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_where_it_is_asked_to() {
    let outside = tempfile::tempdir().unwrap();
    let cloud = cloud(outside.path()).await;
    let id = cloud.image("raw").await;
    let path = format!("/v2/images/{id}/file");
    let to = async |store: &str| {
        let headers = [("x-auth-token", OWNER), ("content-type", BYTES), ("x-image-meta-store", store)];
        cloud.surface.send("PUT", &path, &headers, "abc".into()).await.status
    };
    assert_eq!(to("none").await, 400);
    assert_eq!(cloud.show(&id).await["status"], "queued");
    assert_eq!(to("third").await, 204);
    assert_eq!(cloud.show(&id).await["stores"], "third");
    assert!(outside.path().join("third").join(&id).exists());
    assert_eq!(cloud.call(OWNER, "DELETE", &format!("/v2/images/{id}"), Value::Null).await.status, 204);
    assert!(!outside.path().join("third").join(&id).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_all_stores_is_read_from_the_heaviest_and_taken_from_them_one_by_one() {
    let outside = tempfile::tempdir().unwrap();
    let cloud = cloud(outside.path()).await;
    let id = staged(&cloud).await;
    let task = import(&cloud, &id, json!({"method": {"name": "glance-direct"}, "all_stores": true})).await;
    assert_eq!(task["status"], "success", "{task}");
    assert_eq!(task["input"]["backend"], json!(["file", "heavy", "third"]));
    let shown = cloud.show(&id).await;
    assert_eq!((&shown["stores"], &shown["status"]), (&json!("heavy,file,third"), &json!("active")));
    assert_eq!(
        (&shown["os_glance_importing_to_stores"], &shown["os_glance_failed_import"]),
        (&json!(""), &json!(""))
    );
    assert_eq!(cloud.files().len(), 1, "what was staged is gone");
    std::fs::write(outside.path().join("heavy").join(&id), "SOME BYTES OF AN IMAGE").unwrap();
    assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.text(), "SOME BYTES OF AN IMAGE");

    let locations = cloud.get(ADMIN, &format!("/v2/images/{id}/locations")).await.body;
    assert_eq!(locations.as_array().unwrap().len(), 3);
    let take = |store: &str| format!("/v2/stores/{store}/{id}");
    for (token, store, status) in [
        (OWNER, "heavy", 403),
        (ADMIN, "none", 409),
        (ADMIN, "heavy", 204),
        (ADMIN, "heavy", 404),
        (ADMIN, "third", 204),
        (ADMIN, "file", 403),
    ] {
        let answer = cloud.call(token, "DELETE", &take(store), Value::Null).await;
        assert_eq!(answer.status, status, "{token} {store}: {}", answer.text());
    }
    assert_eq!(cloud.show(&id).await["stores"], "file");
    assert_eq!(std::fs::read_dir(outside.path().join("heavy")).unwrap().count(), 1, "only `incoming`");
    assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.text(), "some bytes of an image");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_copied() {
    let outside = tempfile::tempdir().unwrap();
    let cloud = cloud(outside.path()).await;
    let id = cloud.image("raw").await;
    assert_eq!(cloud.put(&id, "file", "some bytes of an image").await.status, 204);
    let copy = |more: Json| {
        let mut body = json!({"method": {"name": "copy-image"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let path = format!("/v2/images/{id}/import");
    for (token, more, status, says) in [
        (OWNER, json!({"stores": ["heavy"]}), 403, "copy_image"),
        (ADMIN, json!({"stores": ["file"]}), 400, "already present at store"),
        (ADMIN, json!({"stores": ["none"]}), 409, "Store for identifier none not found"),
        (ADMIN, json!({"stores": []}), 400, "at least one"),
        (ADMIN, json!({"stores": "heavy"}), 400, "list"),
        (ADMIN, json!({"stores": ["heavy"], "all_stores": true}), 400, "All_stores parameter"),
        (ADMIN, json!({"all_stores": "yes"}), 400, "boolean"),
    ] {
        let answer = cloud.call(token, "POST", &path, copy(more.clone())).await;
        assert_eq!(answer.status, status, "{more}: {}", answer.text());
        assert!(answer.text().contains(says), "{more}: {}", answer.text());
    }
    let task = import(&cloud, &id, copy(json!({"stores": ["heavy", "heavy"]}))).await;
    assert_eq!(task["status"], "success", "{task}");
    assert_eq!(cloud.show(&id).await["stores"], "heavy,file");
    let copied = std::fs::read(outside.path().join("heavy").join(&id)).unwrap();
    assert_eq!(copied, b"some bytes of an image");
    let answer = cloud.call(ADMIN, "POST", &path, copy(json!({"all_stores": true}))).await;
    assert_eq!(answer.status, 202);
    for _ in 0..500 {
        if cloud.show(&id).await["stores"] == "heavy,file,third" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(cloud.show(&id).await["stores"], "heavy,file,third");
}

/// Bytes that changed on disk are not passed on.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_wrong_bytes_is_none() {
    let outside = tempfile::tempdir().unwrap();
    let cloud = cloud(outside.path()).await;
    let id = cloud.image("raw").await;
    assert_eq!(cloud.put(&id, "file", "some bytes of an image").await.status, 204);
    std::fs::write(cloud.directory.path().join(&id), "some bytes that rotted").unwrap();
    let task = import(&cloud, &id, json!({"method": {"name": "copy-image"}, "stores": ["heavy"]})).await;
    assert_eq!(task["status"], "failure", "{task}");
    let shown = cloud.show(&id).await;
    assert_eq!((&shown["stores"], &shown["status"]), (&json!("file"), &json!("active")));
    assert_eq!(shown["os_glance_failed_import"], "heavy");
    assert!(!outside.path().join("heavy").join(&id).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails() {
    let outside = tempfile::tempdir().unwrap();
    let cloud = cloud(outside.path()).await;
    // Nobody writes here, root neither: there is no such directory any more.
    let broken = outside.path().join("heavy");
    std::fs::remove_dir_all(&broken).unwrap();
    std::fs::write(&broken, "not a directory").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (all_must_succeed, status, stores) in
        [(true, "queued", Value::Null), (false, "active", json!("file,third"))]
    {
        let id = staged(&cloud).await;
        let asked = json!({
            "method": {"name": "glance-direct"}, "all_stores": true, "all_stores_must_succeed": all_must_succeed,
        });
        let task = import(&cloud, &id, asked).await;
        let shown = cloud.show(&id).await;
        assert_eq!((&shown["status"], shown["stores"].clone()), (&json!(status), stores), "{shown}");
        assert_eq!(shown["os_glance_failed_import"], "heavy", "{shown}");
        assert_eq!(task["status"], if all_must_succeed { "failure" } else { "success" }, "{task}");
        assert_eq!(cloud.directory.path().join(&id).exists(), !all_must_succeed);
        assert_eq!(outside.path().join("third").join(&id).exists(), !all_must_succeed);
    }
}
