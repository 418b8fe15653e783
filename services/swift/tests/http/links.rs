//! Objects that stand for others.

use crate::cloud::{Cloud, FOREIGN, OWNER, clouds};

const ETAG: &str = "42aefbae01d2dfd981f7da7d823d689e";

#[tokio::test]
async fn links_lead_to_names_or_to_bytes() {
    for cloud in clouds().await {
        cloud.make("/c", &[], "").await;
        cloud.make("/c/t", &[("content-type", "a/b")], "target").await;
        cloud.make("/c/soft", &[("x-symlink-target", "c/t")], "").await;
        cloud.make("/c/hard", &[("x-symlink-target", "c/t"), ("x-symlink-target-etag", ETAG)], "").await;
        for name in ["/c/soft", "/c/hard"] {
            let got = cloud.get(name).await;
            assert_eq!((got.text(), got.header("content-location")), ("target", "/v1/AUTH_p1/c/t"));
            let itself = cloud.get(&format!("{name}?symlink=get")).await;
            assert_eq!((itself.text(), itself.header("x-symlink-target")), ("", "c/t"));
        }
        let posted = cloud.post("/c/soft", &[("x-object-meta-a", "1")]).await;
        assert_eq!((posted.status, posted.header("location")), (307, "/v1/AUTH_p1/c/t"));
        let listed = cloud.get("/c?format=json&prefix=hard").await;
        assert_eq!(listed.body[0]["symlink_path"], "/v1/AUTH_p1/c/t");
        assert_eq!((&listed.body[0]["symlink_bytes"], &listed.body[0]["bytes"]), (&6.into(), &0.into()));
        let copied = cloud.ask(OWNER, "COPY", "/c/soft?symlink=get", &[("destination", "c/twin")], "").await;
        assert_eq!(copied.status, 201);
        cloud.make("/c/t", &[], "other").await;
        assert_eq!(
            (cloud.get("/c/soft").await.text(), cloud.get("/c/twin").await.text()),
            ("other", "other")
        );
        assert_eq!(cloud.get("/c/hard").await.status, 409);
        assert_eq!(cloud.delete("/c/soft").await.status, 204);
        assert_eq!(cloud.get("/c/t").await.text(), "other");
    }
}

#[tokio::test]
async fn what_is_no_link() {
    let cloud = Cloud::small().await;
    cloud.make("/c", &[], "").await;
    cloud.make("/c/t", &[], "target").await;
    for (headers, body, status) in [
        (vec![("x-symlink-target", "c")], "", 412),
        (vec![("x-symlink-target", "/c/t")], "", 412),
        (vec![("x-symlink-target", "c/l")], "", 400),
        (vec![("x-symlink-target", "c/t")], "x", 400),
        (vec![("x-symlink-target", "c/t"), ("x-symlink-target-etag", "x")], "", 409),
        (vec![("x-symlink-target", "c/none"), ("x-symlink-target-etag", ETAG)], "", 409),
        (vec![("x-symlink-target", "c/t"), ("x-symlink-target-etag", "a;b")], "", 400),
    ] {
        assert_eq!(cloud.put("/c/l", &headers, body).await.status, status, "{headers:?}");
    }
    for (name, target) in [("a", "c/b"), ("b", "c/a"), ("dangling", "c/none")] {
        cloud.make(&format!("/c/{name}"), &[("x-symlink-target", target)], "").await;
    }
    assert_eq!(cloud.get("/c/a").await.status, 409, "round and round");
    assert_eq!(cloud.get("/c/dangling").await.status, 404);
    // A link opens nothing that is closed.
    cloud.make("/public", &[("x-container-read", ".r:*")], "").await;
    cloud.make("/public/l", &[("x-symlink-target", "c/t")], "").await;
    assert_eq!(cloud.ask("", "GET", "/public/l", &[], "").await.status, 401);
    assert_eq!(cloud.ask(FOREIGN, "GET", "/public/l", &[], "").await.status, 403);
}
