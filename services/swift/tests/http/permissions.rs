//! Who may do what: roles, access lists, referrers, nobody.

use crate::cloud::{Cloud, FOREIGN, OWNER};

/// The statuses of reading an object, listing its container and writing another one.
async fn may(cloud: &Cloud, token: &str, headers: &[(&str, &str)]) -> [u16; 3] {
    let read = cloud.ask(token, "GET", "/c/o", headers, "").await.status;
    let list = cloud.ask(token, "GET", "/c", headers, "").await.status;
    let headers: Vec<_> = headers.iter().copied().chain([("content-length", "1")]).collect();
    [read, list, cloud.ask(token, "PUT", "/c/new", &headers, "x").await.status]
}

#[tokio::test]
async fn access_lists() {
    let cloud = Cloud::small().await;
    cloud.make("/c", &[], "").await;
    cloud.make("/c/o", &[], "x").await;
    let foreign = "member@p2!sue";
    for (read, write, token, expected) in [
        ("", "", OWNER, [200, 200, 201]),
        ("", "", FOREIGN, [403, 403, 403]),
        ("", "", "", [401, 401, 401]),
        ("", "", "norole@p1", [403, 403, 403]),
        (".r:*", "", "", [200, 401, 401]),
        (".r:*,.rlistings", "", "", [200, 200, 401]),
        (".r:*,.rlistings", "", FOREIGN, [200, 200, 403]),
        ("p2:sue", "", foreign, [200, 200, 403]),
        ("p2:bob", "", foreign, [403, 403, 403]),
        ("*:sue", "p2:*", foreign, [200, 200, 201]),
        ("", "*:*", foreign, [403, 403, 201]),
        ("*:*", "*:*", "", [401, 401, 401]),
        ("reader", "reader", "reader@p1", [200, 200, 201]),
        ("reader", "reader", "reader@p2", [403, 403, 403]),
    ] {
        let lists = [("x-container-read", read), ("x-container-write", write)];
        // The test's way to send an empty value is to send a blank.
        let lists = lists.map(|(name, value)| (name, if value.is_empty() { " " } else { value }));
        assert_eq!(cloud.post("/c", &lists).await.status, 204);
        assert_eq!(may(&cloud, token, &[]).await, expected, "{read} {write} {token}");
    }
    let referrers = [("x-container-read", ".r:.example.com,.rlistings")];
    assert_eq!(cloud.post("/c", &referrers).await.status, 204);
    let from = |url| [("referer", url)];
    assert_eq!(may(&cloud, "", &from("http://www.example.com/x")).await[..2], [200, 200]);
    assert_eq!(may(&cloud, "", &from("http://www.example.org/x")).await[..2], [401, 401]);
}

#[tokio::test]
async fn only_owners_see_and_set_lists() {
    let cloud = Cloud::small().await;
    cloud
        .make("/c", &[("x-container-read", "p2:*, .r:*,.rlistings"), ("x-container-write", "p2:*")], "")
        .await;
    assert_eq!(cloud.head("/c").await.header("x-container-read"), "p2:*,.r:*,.rlistings");
    let seen = cloud.ask(FOREIGN, "HEAD", "/c", &[], "").await;
    assert_eq!((seen.status, seen.header("x-container-read")), (204, ""));
    for method in ["PUT", "POST", "DELETE"] {
        let refused = cloud.ask(FOREIGN, method, "/c", &[("x-container-read", "p3:*")], "").await;
        assert_eq!(refused.status, 403, "{method}");
    }
    assert_eq!(cloud.ask(FOREIGN, "PUT", "/mine", &[], "").await.status, 403);
}

#[tokio::test]
async fn a_copy_needs_leave_at_both_ends() {
    let cloud = Cloud::small().await;
    cloud.make("/c", &[], "").await;
    cloud.make("/c/o", &[], "x").await;
    let to = [("destination", "d/o"), ("destination-account", "AUTH_p2")];
    assert_eq!(cloud.ask(FOREIGN, "PUT", "/v1/AUTH_p2/d", &[], "").await.status, 201);
    assert_eq!(cloud.ask(OWNER, "COPY", "/c/o", &to, "").await.status, 403);
    assert_eq!(cloud.ask(FOREIGN, "COPY", "/c/o", &to, "").await.status, 403);
    let list = [("x-container-read", "p2:*")];
    assert_eq!(cloud.post("/c", &list).await.status, 204);
    let copied = cloud.ask(FOREIGN, "COPY", "/c/o", &to, "").await;
    assert_eq!((copied.status, copied.header("x-copied-from-account")), (201, "AUTH_p1"));
}

#[tokio::test]
async fn pages_from_elsewhere() {
    let cloud = Cloud::small().await;
    let page = [("origin", "http://a"), ("access-control-request-method", "PUT")];
    cloud.make("/c", &[("x-container-meta-access-control-allow-origin", "http://a http://b")], "").await;
    cloud.make("/c/o", &[("x-object-meta-one", "1")], "x").await;
    let asked = cloud.ask("", "OPTIONS", "/c/o", &page, "").await;
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, "http://a"));
    assert!(asked.header("allow").contains("COPY"));
    let other = [("origin", "http://c"), ("access-control-request-method", "PUT")];
    assert_eq!(cloud.ask("", "OPTIONS", "/c/o", &other, "").await.status, 401);
    assert_eq!(cloud.ask("", "OPTIONS", "/c/o", &[], "").await.status, 200);
    let got = cloud.ask(OWNER, "GET", "/c/o", &[("origin", "http://b")], "").await;
    assert_eq!(got.header("access-control-allow-origin"), "http://b");
    assert!(got.header("access-control-expose-headers").contains("x-object-meta-one"));
    let got = cloud.ask(OWNER, "GET", "/c/o", &[("origin", "http://c")], "").await;
    assert_eq!(got.header("access-control-allow-origin"), "");
}
