//! Accounts: counts, metadata, lists, quotas.

use crate::cloud::{Cloud, FOREIGN, OWNER, clouds};
use swift::Options;

#[tokio::test]
async fn an_account_counts_what_is_in_it() {
    for cloud in clouds().await {
        let empty = cloud.head("").await;
        assert_eq!((empty.status, empty.header("x-account-container-count")), (204, "0"));
        cloud.make("/c", &[], "").await;
        cloud.make("/d", &[], "").await;
        cloud.make("/c/o", &[], "12345").await;
        cloud.make("/c/o", &[], "123").await;
        let account = cloud.head("").await;
        assert_eq!(account.header("x-account-container-count"), "2");
        assert_eq!(account.header("x-account-object-count"), "1");
        assert_eq!(account.header("x-account-bytes-used"), "3");
        assert_eq!(cloud.names("").await, "c d");
        assert_eq!(cloud.names("?limit=1&marker=c").await, "d");
        assert_eq!(cloud.names("?reverse=on").await, "d c");
        let listed = cloud.get("?format=json").await;
        assert_eq!(listed.body[0]["name"], "c");
        assert_eq!((&listed.body[0]["count"], &listed.body[0]["bytes"]), (&1.into(), &3.into()));
        assert_eq!(cloud.delete("/c/o").await.status, 204);
        assert_eq!(cloud.delete("/c").await.status, 204);
        let account = cloud.head("").await;
        assert_eq!(account.header("x-account-container-count"), "1");
        assert_eq!(account.header("x-account-bytes-used"), "0");
    }
}

#[tokio::test]
async fn metadata_is_laid_over_and_taken_away() {
    let cloud = Cloud::small().await;
    assert_eq!(cloud.post("", &[("x-account-meta-a", "1"), ("x-account-meta-b", "é")]).await.status, 204);
    assert_eq!(cloud.post("", &[("x-account-meta-a", " "), ("x-account-meta-c", "3")]).await.status, 204);
    let told = cloud.head("").await;
    assert_eq!((told.header("x-account-meta-a"), told.header("x-account-meta-c")), ("", "3"));
    assert_eq!(told.headers["x-account-meta-b"].as_bytes(), "é".as_bytes());
    assert_eq!(cloud.post("", &[("x-remove-account-meta-c", "x")]).await.status, 204);
    assert_eq!(cloud.head("").await.header("x-account-meta-c"), "");
    for (name, value) in [
        ("x-account-meta-", "no name".to_string()),
        ("x-account-meta-long", "x".repeat(257)),
        ("x-account-meta-very", "x".repeat(8193)),
        (&*format!("x-account-meta-{}", "n".repeat(129)), "x".into()),
    ] {
        let refused = cloud.post("", &[(name, &value)]).await;
        assert_eq!((refused.status, refused.header("content-type")), (400, "text/plain"), "{name}");
    }
    let many: Vec<(String, String)> = (0..91).map(|n| (format!("x-account-meta-n{n}"), "x".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(cloud.post("", &many[..80]).await.status, 204);
    assert_eq!(cloud.post("", &many[80..]).await.status, 400, "together they are too many");
}

#[tokio::test]
async fn only_resellers_set_quotas_and_are_held_by_none() {
    let options = Options { reseller_admin_role: "admin".into(), ..Options::default() };
    let cloud = Cloud::with(options).await;
    let reseller = "admin@p9";
    cloud.make("/c", &[], "").await;
    assert_eq!(cloud.post("", &[("x-account-quota-bytes", "4")]).await.status, 403);
    for wrong in ["many", "-1"] {
        let refused = cloud.ask(reseller, "POST", "", &[("x-account-quota-bytes", wrong)], "").await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
    let set = cloud.ask(reseller, "POST", "", &[("x-account-meta-quota-bytes", "4")], "").await;
    assert_eq!(set.status, 204);
    assert_eq!(cloud.head("").await.header("x-account-quota-bytes"), "4");
    assert_eq!(cloud.put("/c/o", &[], "12345").await.status, 413);
    cloud.make("/c/o", &[], "1234").await;
    let by_reseller = cloud.ask(reseller, "PUT", "/c/p", &[("content-length", "5")], "12345").await;
    assert_eq!(by_reseller.status, 201);
    let chunked = [("transfer-encoding", "chunked")];
    assert_eq!(cloud.ask(OWNER, "PUT", "/c/q", &chunked, "12345").await.status, 413, "of no known length");
    assert_eq!(cloud.files().len(), 2, "what was refused left no file");
    let removed = cloud.ask(reseller, "POST", "", &[("x-remove-account-quota-bytes", "x")], "").await;
    assert_eq!(removed.status, 204);
    cloud.make("/c/q", &[], "12345").await;
}

#[tokio::test]
async fn what_is_not_to_be() {
    let cloud = Cloud::small().await;
    for (token, method, path, status) in [
        (OWNER, "PUT", "", 405),
        (OWNER, "DELETE", "", 405),
        (FOREIGN, "GET", "", 403),
        ("norole@p1", "GET", "", 403),
        ("", "GET", "", 401),
        ("stranger", "GET", "", 401),
        (OWNER, "GET", "?format=json&limit=10001", 412),
        (OWNER, "PATCH", "", 405),
        (OWNER, "COPY", "", 405),
        (OWNER, "GET", "/v1/AUTH_p1/%ff", 412),
        (OWNER, "GET", "/v1//c", 404),
        (OWNER, "GET", "/v1", 412),
        (OWNER, "GET", "/v2/AUTH_p1", 404),
    ] {
        let answer = cloud.ask(token, method, path, &[], "").await;
        assert_eq!(answer.status, status, "{token} {method} {path}: {}", answer.text());
        assert!(answer.header("x-trans-id").starts_with("tx"));
        assert_eq!(answer.header("x-trans-id"), answer.header("x-openstack-request-id"));
    }
    let long = format!("/v1/AUTH_{}", "x".repeat(260));
    assert_eq!(cloud.get(&long).await.status, 400);
}

#[tokio::test]
async fn everybody_may_ask_what_there_is() {
    let cloud = Cloud::small().await;
    let info = cloud.surface.call("", "GET", "/info", None).await;
    assert_eq!(info.body["swift"]["max_file_size"], 5_368_709_122_u64);
    let health = cloud.surface.call("", "GET", "/healthcheck", None).await;
    assert_eq!((health.status, health.text()), (200, "OK"));
}
