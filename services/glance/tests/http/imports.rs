//! Imports that change what they import, or come from another cloud.

use crate::cloud::{ADMIN, Cloud, IMAGE, OWNER, options, qcow2, said, web_server};
use base::Json;
use glance::Options;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

#[tokio::test(flavor = "multi_thread")]
async fn from_another_cloud() {
    let (server, _) = web_server("127.0.0.6:0").await;
    let cloud = Cloud::small().await;
    let from = |region: &str, id: &str| json!({"method": {"name": "glance-download", "glance_region": region, "glance_image_id": id}});
    let good = "11111111-1111-4111-8111-111111111111";
    let id = cloud.image("qcow2").await;
    for (body, says) in [
        (json!({"method": {"name": "glance-download"}}), "'glance_region' needs to be set"),
        (json!({"method": {"name": "glance-download", "glance_region": "a"}}), "'glance_image_id' needs"),
        (from(&server, "x"), "does not look like a UUID: x"),
    ] {
        let answer = cloud.import(OWNER, &id, body).await;
        assert_eq!(answer.status, 400);
        assert!(said(&answer).contains(says), "{}", answer.text());
    }
    for (region, remote, says) in [
        ("Nowhere", good, "public glance endpoint not found for region Nowhere"),
        (&*server, "22222222-2222-4222-8222-222222222222", "should be active instead of queued"),
        (&*server, "33333333-3333-4333-8333-333333333333", "data size 22 is different from expected 5"),
        (&*server, "44444444-4444-4444-8444-444444444444", "404"),
    ] {
        let id = cloud.image("qcow2").await;
        assert_eq!(cloud.import(OWNER, &id, from(region, remote)).await.status, 202);
        let task = cloud.task(&id).await;
        assert_eq!(task["status"], "failure", "{task}");
        assert!(task["message"].as_str().unwrap().contains(says), "{task}");
        cloud.until(&id, "queued").await;
        assert_eq!(cloud.files(), Vec::<PathBuf>::new());
    }
    assert_eq!(cloud.import(OWNER, &id, from(&server, good)).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "success");
    let shown = cloud.show(&id).await;
    assert_eq!(
        (&shown["status"], &shown["disk_format"], &shown["hw_disk_bus"]),
        (&json!("active"), &json!("raw"), &json!("scsi"))
    );
    assert!(shown.get("colour").is_none());
    assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.text(), IMAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn into_another_format_and_with_properties() {
    let properties = BTreeMap::from([("imported".to_string(), "yes".to_string())]);
    let options =
        Options { import_conversion_format: "qcow2".into(), import_properties: properties, ..options() };
    let cloud = Cloud::with(options).await;
    let direct = json!({"method": {"name": "glance-direct"}});
    for (token, format, bytes, property) in [
        (OWNER, "raw", IMAGE.as_bytes().to_vec(), json!("yes")),
        (OWNER, "qcow2", qcow2(false), json!("yes")),
        (ADMIN, "raw", IMAGE.as_bytes().to_vec(), Json::Null),
    ] {
        let id = cloud.image(format).await;
        assert_eq!(cloud.put(&id, "stage", bytes).await.status, 204);
        assert_eq!(cloud.import(token, &id, direct.clone()).await.status, 202);
        assert_eq!(cloud.task(&id).await["status"], "success");
        let shown = cloud.show(&id).await;
        assert_eq!(
            (&shown["disk_format"], &shown["size"], &shown["virtual_size"]),
            (&json!("qcow2"), &json!(1024), &json!(1 << 30))
        );
        assert_eq!(shown["imported"], property);
        let bytes = cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.bytes;
        assert_eq!(bytes, qcow2(false));
    }
    // What is no image of its format is not given to any tool.
    let id = cloud.image("qcow2").await;
    assert_eq!(cloud.put(&id, "stage", qcow2(true)).await.status, 204);
    assert_eq!(cloud.import(OWNER, &id, direct).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "failure");
    assert_eq!(cloud.show(&id).await["disk_format"], "qcow2");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_methods_that_the_operator_wants() {
    let options = Options { enabled_import_methods: vec!["glance-direct".into()], ..options() };
    let cloud = Cloud::with(options).await;
    let methods = cloud.get(OWNER, "/v2/info/import").await.body;
    assert_eq!(methods["import-methods"]["value"], json!(["glance-direct"]));
    let id = cloud.image("raw").await;
    let answer =
        cloud.import(OWNER, &id, json!({"method": {"name": "web-download", "uri": "http://8.8.8.8/"}})).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("Unknown import method name"), "{}", answer.text());
}
