//! Large objects: static and dynamic.

use crate::cloud::{Cloud, OWNER, clouds};

const MANIFEST: &str =
    r#"[{"path": "/c/s/1", "size_bytes": 3}, {"data": "Y2Nj"}, {"path": "c/s/2", "range": "1-2"}]"#;

async fn segments(cloud: &Cloud) {
    cloud.make("/c", &[], "").await;
    cloud.make("/c/s/1", &[], "aaa").await;
    cloud.make("/c/s/2", &[], "bbb").await;
}

async fn part(cloud: &Cloud, path: &str, range: &str) -> String {
    cloud.ask(OWNER, "GET", path, &[("range", range)], "").await.text().to_string()
}

#[tokio::test]
async fn a_static_one_is_its_segments() {
    for cloud in clouds().await {
        segments(&cloud).await;
        let made = cloud.make("/c/big?multipart-manifest=put", &[("content-type", "a/b")], MANIFEST).await;
        assert!(made.header("etag").starts_with('"'));
        let got = cloud.get("/c/big").await;
        assert_eq!(
            (got.text(), got.header("content-length"), got.header("content-type")),
            ("aaacccbb", "8", "a/b")
        );
        assert_eq!((got.header("etag"), got.header("x-static-large-object")), (made.header("etag"), "True"));
        assert_eq!(cloud.head("/c/big").await.header("content-length"), "8");
        assert_eq!(part(&cloud, "/c/big", "bytes=2-6").await, "acccb");
        assert_eq!(part(&cloud, "/c/big", "bytes=-1").await, "b");
        let numbered = cloud.get("/c/big?part-number=2").await;
        assert_eq!((numbered.status, numbered.text(), numbered.header("x-parts-count")), (206, "ccc", "3"));
        assert_eq!(cloud.get("/c/big?part-number=4").await.status, 416);
        assert_eq!(cloud.get("/c/big?part-number=0").await.status, 400);
        let raw = cloud.get("/c/big?multipart-manifest=get&format=raw").await;
        assert_eq!((&raw.body[2]["range"], &raw.body[1]["data"]), (&"1-2".into(), &"Y2Nj".into()));
        let listed = cloud.get("/c?format=json&prefix=big").await;
        assert_eq!(
            (&listed.body[0]["bytes"], &listed.body[0]["slo_etag"]),
            (&8.into(), &made.header("etag").into())
        );
        // As a segment of another one, flat, and as the manifest it is.
        cloud
            .make(
                "/c/bigger?multipart-manifest=put",
                &[],
                r#"[{"path": "c/big"}, {"path": "c/big", "range": "1-3"}]"#,
            )
            .await;
        assert_eq!(cloud.get("/c/bigger").await.text(), "aaacccbbaac");
        assert_eq!(part(&cloud, "/c/bigger", "bytes=7-9").await, "baa");
        cloud.make("/c/flat", &[("x-copy-from", "c/big")], "").await;
        assert_eq!(
            cloud
                .ask(OWNER, "COPY", "/c/big?multipart-manifest=get", &[("destination", "c/twin")], "")
                .await
                .status,
            201
        );
        assert_eq!(cloud.get("/c/twin").await.text(), "aaacccbb");
        let deleted = cloud
            .ask(OWNER, "DELETE", "/c/big?multipart-manifest=delete", &[("accept", "application/json")], "")
            .await;
        assert_eq!(
            (&deleted.body["Number Deleted"], &deleted.body["Response Status"]),
            (&3.into(), &"200 OK".into())
        );
        assert_eq!(cloud.get("/c/flat").await.text(), "aaacccbb");
        assert_eq!(cloud.get("/c/twin").await.status, 409, "its segments are gone");
        assert_eq!(cloud.names("/c").await, "bigger flat twin");
    }
}

#[tokio::test]
async fn what_is_no_manifest() {
    let cloud = Cloud::small().await;
    segments(&cloud).await;
    for (body, status, text) in [
        ("x", 400, "valid JSON"),
        ("{}", 400, "must be a list"),
        (r#"[{"path": "c/none"}]"#, 400, "c/none, 404 Not Found"),
        (r#"[{"path": "c/s/1", "size_bytes": 4}]"#, 400, "Size Mismatch"),
        (r#"[{"path": "c/s/1", "etag": "x"}]"#, 400, "Etag Mismatch"),
        (r#"[{"path": "c/s/1", "range": "7-"}]"#, 400, "Unsatisfiable Range"),
        (r#"[{"path": "c/m"}]"#, 400, "must not include itself"),
    ] {
        let refused = cloud.put("/c/m?multipart-manifest=put", &[], body).await;
        assert_eq!(refused.status, status, "{body}");
        assert!(refused.text().contains(text), "{body}: {}", refused.text());
    }
    let many: Vec<&str> = vec![r#"{"path": "c/s/1"}"#; 1001];
    assert_eq!(
        cloud.put("/c/m?multipart-manifest=put", &[], &format!("[{}]", many.join(","))).await.status,
        413
    );
    assert_eq!(cloud.put("/c/m?multipart-manifest=put", &[("etag", "x")], MANIFEST).await.status, 422);
    assert_eq!(cloud.put("/c/m", &[("x-static-large-object", "true")], "x").await.status, 400);
    assert_eq!(cloud.put("/c/m", &[("x-object-manifest", "c")], "").await.status, 400);
    assert_eq!(
        cloud.delete("/c/s/1?multipart-manifest=delete").await.text().lines().nth(3),
        Some("Response Status: 400 Bad Request")
    );
    // Nobody reads segments by a manifest of his own.
    assert_eq!(cloud.ask("member@p2", "PUT", "/v1/AUTH_p2/d", &[], "").await.status, 201);
    let foreign = cloud.ask("member@p2", "GET", "/c/s/1", &[], "").await;
    assert_eq!(foreign.status, 403);
}

#[tokio::test]
async fn a_segment_that_changed_is_not_sent() {
    let cloud = Cloud::small().await;
    segments(&cloud).await;
    cloud.make("/c/big?multipart-manifest=put", &[], MANIFEST).await;
    cloud.make("/c/s/1", &[], "xxx").await;
    assert_eq!(cloud.get("/c/big").await.status, 409);
}

#[tokio::test]
async fn a_dynamic_one_is_what_has_its_prefix() {
    for cloud in clouds().await {
        segments(&cloud).await;
        cloud.make("/c/s", &[("x-object-manifest", "c/s"), ("x-object-meta-one", "1")], "").await;
        let got = cloud.get("/c/s").await;
        assert_eq!(
            (got.text(), got.header("content-length"), got.header("x-object-meta-one")),
            ("aaabbb", "6", "1")
        );
        assert_eq!(part(&cloud, "/c/s", "bytes=2-3").await, "ab");
        cloud.make("/c/s/3", &[], "cc").await;
        assert_eq!(cloud.head("/c/s").await.header("content-length"), "8");
        assert_eq!(cloud.get("/c/s?multipart-manifest=get").await.text(), "");
        assert_eq!(cloud.ask(OWNER, "COPY", "/c/s", &[("destination", "c/flat")], "").await.status, 201);
        assert_eq!(cloud.delete("/c/s/1").await.status, 204);
        assert_eq!(
            (cloud.get("/c/s").await.text(), cloud.get("/c/flat").await.text()),
            ("bbbcc", "aaabbbcc")
        );
    }
}
