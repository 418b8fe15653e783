//! Containers as web sites, for who comes without a token.

use crate::cloud::{Cloud, FOREIGN};

async fn site(headers: &[(&str, &str)]) -> Cloud {
    let cloud = Cloud::small().await;
    let mut all = vec![("x-container-read", ".r:*,.rlistings")];
    all.extend(headers);
    cloud.make("/c", &all, "").await;
    cloud.make("/c/index.html", &[], "home").await;
    cloud.make("/c/sub/a%3Cb", &[], "x").await;
    cloud.make("/c/404error.html", &[], "lost").await;
    cloud
}

#[tokio::test]
async fn index_error_and_list() {
    let cloud =
        site(&[("x-container-meta-web-index", "index.html"), ("x-container-meta-web-error", "error.html")])
            .await;
    let get = async |path: &str| cloud.ask("", "GET", path, &[], "").await;
    let moved = get("/c").await;
    assert_eq!((moved.status, moved.header("location")), (301, "http://127.0.0.1:8080/v1/AUTH_p1/c/"));
    assert_eq!((get("/c/").await.status, get("/c/").await.text().to_string()), (200, "home".into()));
    let lost = get("/c/none").await;
    assert_eq!((lost.status, lost.text()), (404, "lost"));
    assert_eq!(get("/c/sub/").await.status, 404, "lists are not allowed");
    assert_eq!(cloud.post("/c", &[("x-container-meta-web-listings", "true")]).await.status, 204);
    assert_eq!(get("/c/sub").await.status, 301);
    let list = get("/c/sub/").await;
    assert_eq!(list.status, 200);
    assert!(list.text().contains("<a href=\"./a%3Cb\">a&lt;b</a>"), "{}", list.text());
    assert!(list.text().contains("<a href=\"../\">../</a>"));
    // With a token it is a container as ever.
    assert_eq!(cloud.ask(FOREIGN, "GET", "/c?limit=1", &[], "").await.text(), "404error.html\n");
    assert_eq!(cloud.ask(FOREIGN, "GET", "/c/", &[("x-web-mode", "true")], "").await.text(), "home");
}

#[tokio::test]
async fn what_is_no_site_is_a_container_to_everybody() {
    let cloud = site(&[]).await;
    let listed = cloud.ask("", "GET", "/c", &[], "").await;
    assert_eq!((listed.status, listed.text()), (200, "404error.html\nindex.html\nsub/a<b\n"));
    assert_eq!(cloud.ask("", "GET", "/c/none", &[], "").await.status, 404);
    assert_eq!(cloud.post("/c", &[("x-remove-container-read", "x")]).await.status, 204);
    assert_eq!(cloud.ask("", "GET", "/c/index.html", &[], "").await.status, 401);
    assert_eq!(cloud.ask("", "GET", "/c/", &[], "").await.status, 401);
}
