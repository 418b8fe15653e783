//! Containers: lists in every form, metadata, quotas, what stands in the way.

use crate::cloud::{Cloud, OWNER, clouds};

#[tokio::test]
async fn lists_are_in_the_order_of_bytes_on_both_databases() {
    for cloud in clouds().await {
        assert_eq!(cloud.put("/c", &[], "").await.status, 201);
        assert_eq!(cloud.put("/c", &[], "").await.status, 202, "it is there");
        for name in ["B", "a", "%C3%A9/x", "_", "a/1", "a/2", "b%20c"] {
            cloud.make(&format!("/c/{name}"), &[], "x").await;
        }
        assert_eq!(cloud.names("/c").await, "B _ a a/1 a/2 b c é/x");
        assert_eq!(cloud.names("/c?delimiter=/").await, "B _ a a/ b c é/");
        assert_eq!(cloud.names("/c?delimiter=/&reverse=true").await, "é/ b c a/ a _ B");
        assert_eq!(cloud.names("/c?prefix=a/").await, "a/1 a/2");
        assert_eq!(cloud.names("/c?path=a").await, "a/1 a/2");
        assert_eq!(cloud.names("/c?marker=a&end_marker=b").await, "a/1 a/2");
        assert_eq!(cloud.names("/c?limit=2").await, "B _");
        assert_eq!(cloud.names("/c?limit=0").await, "");
        let json = cloud.get("/c?format=json&limit=1").await;
        assert_eq!(json.header("content-type"), "application/json; charset=utf-8");
        let keys: Vec<&String> = json.body[0].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["name", "hash", "bytes", "content_type", "last_modified"]);
        assert_eq!(json.body[0]["last_modified"], "2026-11-20T08:15:30.530000");
        let xml = cloud.ask(OWNER, "GET", "/c?prefix=b", &[("accept", "application/xml")], "").await;
        assert!(
            xml.text().contains("<container name=\"c\"><object><name>b c</name><hash>"),
            "{}",
            xml.text()
        );
        let head = cloud.head("/c").await;
        assert_eq!((head.status, head.header("x-container-object-count")), (204, "7"));
    }
}

#[tokio::test]
async fn a_container_that_has_something_stays() {
    let cloud = Cloud::small().await;
    cloud.make("/c", &[("x-container-meta-a", "1")], "").await;
    cloud.make("/c/o", &[], "x").await;
    assert_eq!(cloud.delete("/c").await.status, 409);
    assert_eq!(
        cloud.post("/c", &[("x-remove-container-meta-a", "x"), ("x-container-meta-b", "2")]).await.status,
        204
    );
    let told = cloud.head("/c").await;
    assert_eq!((told.header("x-container-meta-a"), told.header("x-container-meta-b")), ("", "2"));
    assert_eq!(cloud.delete("/c/o").await.status, 204);
    assert_eq!(cloud.delete("/c").await.status, 204);
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        assert_eq!(cloud.ask(OWNER, method, "/c", &[], "").await.status, 404, "{method}");
    }
}

#[tokio::test]
async fn what_is_not_to_be() {
    let cloud = Cloud::small().await;
    cloud.make("/c", &[], "").await;
    let long = "x".repeat(257);
    for (method, path, headers, status) in [
        ("PUT", format!("/{long}"), ("x-a", "b"), 400),
        ("PUT", "/c".into(), ("x-container-read", ".r:"), 400),
        ("POST", "/c".into(), ("x-container-write", ".r:*"), 400),
        ("POST", "/c".into(), ("x-container-meta-quota-bytes", "many"), 400),
        ("POST", "/c".into(), ("x-container-meta-quota-count", "-1"), 400),
        ("PUT", "/d".into(), ("x-storage-policy", "gold"), 400),
        ("POST", "/c".into(), ("x-container-meta-", "no name"), 400),
        ("GET", "/c?limit=10001".into(), ("x-a", "b"), 412),
        ("GET", "/c".into(), ("accept", "image/png"), 406),
        ("POST", "/c".into(), ("x-versions-location", "a/b"), 412),
    ] {
        let answer = cloud.ask(OWNER, method, &path, &[headers], "").await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn quotas_of_a_container() {
    for cloud in clouds().await {
        let quotas = [("x-container-meta-quota-bytes", "10"), ("x-container-meta-quota-count", "2")];
        cloud.make("/c", &quotas, "").await;
        cloud.make("/c/a", &[], "12345").await;
        let refused = cloud.put("/c/b", &[], "123456").await;
        assert_eq!((refused.status, refused.text()), (413, "Upload exceeds quota."));
        // Ten at once, of which one has place.
        let all = futures::future::join_all((0..10).map(|n| {
            let cloud = &cloud;
            async move { cloud.put(&format!("/c/n{n}"), &[], "1").await.status }
        }));
        let mut all = all.await;
        all.sort();
        assert_eq!(all, [[201].as_slice(), &[413; 9]].concat());
        assert_eq!(cloud.head("/c").await.header("x-container-object-count"), "2");
        assert_eq!(cloud.files().len(), 2);
    }
}
