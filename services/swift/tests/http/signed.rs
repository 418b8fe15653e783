//! What a signature lets in: temporary URLs and forms.

use crate::cloud::{Answer, Cloud, OWNER};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const EXPIRES: u32 = 1_999_999_999;

fn sign(key: &str, message: &str) -> String {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn cloud() -> Cloud {
    let cloud = Cloud::small().await;
    assert_eq!(cloud.post("", &[("x-account-meta-temp-url-key", "key")]).await.status, 204);
    cloud.make("/c", &[("x-container-meta-temp-url-key-2", "inner")], "").await;
    cloud.make("/c/a/o.txt", &[("x-object-meta-one", "1"), ("x-object-meta-public-two", "2")], "text").await;
    cloud
}

async fn ask(cloud: &Cloud, key: &str, method: &str, signed: &str, path: &str, more: &str) -> Answer {
    let signature = sign(key, &format!("{signed}\n{EXPIRES}\n/v1/AUTH_p1{path}"));
    let url = format!("{path}?temp_url_sig={signature}&temp_url_expires={EXPIRES}{more}");
    cloud.ask("", method, &url, &[("content-length", "4")], "text").await
}

#[tokio::test]
async fn a_signed_url_is_good_for_what_was_signed() {
    let cloud = cloud().await;
    let path = "/c/a/o.txt";
    for (key, method, signed, path, status) in [
        ("key", "GET", "GET", path, 200),
        ("inner", "GET", "GET", path, 200),
        ("key", "HEAD", "GET", path, 200),
        ("key", "HEAD", "PUT", path, 200),
        ("key", "PUT", "PUT", "/c/new", 201),
        ("key", "DELETE", "DELETE", "/c/new", 204),
        ("other", "GET", "GET", path, 401),
        ("key", "PUT", "GET", path, 401),
        ("key", "DELETE", "GET", path, 401),
        ("key", "GET", "GET", "/c", 401),
    ] {
        assert_eq!(
            ask(&cloud, key, method, signed, path, "").await.status,
            status,
            "{key} {method} {signed} {path}"
        );
    }
    let got = ask(&cloud, "key", "GET", "GET", path, "").await;
    assert_eq!(got.header("content-disposition"), "attachment; filename=\"o.txt\"; filename*=UTF-8''o.txt");
    assert_eq!(got.header("expires"), "Wed, 18 May 2033 03:33:19 GMT");
    assert_eq!((got.header("x-object-meta-one"), got.header("x-object-meta-public-two")), ("", "2"));
    let inline = ask(&cloud, "key", "GET", "GET", path, "&inline").await;
    assert_eq!(inline.header("content-disposition"), "inline");
    let named = ask(&cloud, "key", "GET", "GET", path, "&filename=a%20b").await;
    assert_eq!(named.header("content-disposition"), "attachment; filename=\"a b\"; filename*=UTF-8''a%20b");
    let url = |signature: &str, expires: &str| {
        format!("{path}?temp_url_sig={signature}&temp_url_expires={expires}")
    };
    let early = sign("key", "GET\n100\n/v1/AUTH_p1/c/a/o.txt");
    for wrong in [
        url(&early, "100"),
        url("", "1999999999"),
        url(&early, ""),
        url("x", "x"),
        format!("{path}?temp_url_expires=1"),
    ] {
        assert_eq!(cloud.ask("", "GET", &wrong, &[], "").await.status, 401, "{wrong}");
    }
}

#[tokio::test]
async fn a_signed_prefix_and_what_a_signature_does_not_reach() {
    let cloud = cloud().await;
    let of_prefix = sign("key", &format!("GET\n{EXPIRES}\nprefix:/v1/AUTH_p1/c/a/"));
    let query = format!("temp_url_sig={of_prefix}&temp_url_expires={EXPIRES}&temp_url_prefix=a/");
    assert_eq!(cloud.ask("", "GET", &format!("/c/a/o.txt?{query}"), &[], "").await.text(), "text");
    assert_eq!(cloud.ask("", "GET", &format!("/c/b?{query}"), &[], "").await.status, 401);
    // A container's key reaches nothing outside of it.
    cloud.make("/secret", &[], "").await;
    cloud.make("/secret/o", &[], "hidden").await;
    cloud.make("/c/link", &[("x-symlink-target", "secret/o")], "").await;
    assert_eq!(ask(&cloud, "inner", "GET", "GET", "/c/link", "").await.status, 401);
    assert_eq!(ask(&cloud, "key", "GET", "GET", "/c/link", "").await.text(), "hidden");
    let signature = sign("key", &format!("PUT\n{EXPIRES}\n/v1/AUTH_p1/c/new"));
    let url = format!("/c/new?temp_url_sig={signature}&temp_url_expires={EXPIRES}");
    for name in ["x-object-manifest", "x-symlink-target", "x-copy-from"] {
        let refused = cloud.ask("", "PUT", &url, &[("content-length", "0"), (name, "secret/o")], "").await;
        assert_eq!(refused.status, 400, "{name}");
    }
    let ranged = sign("key", &format!("ip=10.0.0.0/8\nGET\n{EXPIRES}\n/v1/AUTH_p1/c/a/o.txt"));
    let url =
        format!("/c/a/o.txt?temp_url_sig={ranged}&temp_url_expires={EXPIRES}&temp_url_ip_range=10.0.0.0/8");
    assert_eq!(cloud.ask("", "GET", &url, &[], "").await.status, 401, "from an address that nobody knows");
}

async fn form(cloud: &Cloud, signature: &str, max_size: &str, files: &[&str]) -> Answer {
    let fields = [
        ("max_file_size", max_size),
        ("max_file_count", "1"),
        ("expires", "1999999999"),
        ("signature", signature),
    ];
    let mut body = String::new();
    for (name, value) in fields {
        body += &format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    for name in files {
        body += &format!(
            "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"{name}\"\r\nContent-Type: a/b\r\n\r\nhello\r\n"
        );
    }
    body += "--b--\r\n";
    cloud.ask("", "POST", "/c/up_", &[("content-type", "multipart/form-data; boundary=b")], body).await
}

#[tokio::test]
async fn a_signed_form_uploads() {
    let cloud = cloud().await;
    let signature = |max: &str| sign("key", &format!("/v1/AUTH_p1/c/up_\n\n{max}\n1\n1999999999"));
    let done = form(&cloud, &signature("100"), "100", &["x.txt"]).await;
    assert_eq!((done.status, done.text()), (201, "201 Created"), "{}", done.text());
    let got = cloud.get("/c/up_x.txt").await;
    assert_eq!((got.text(), got.header("content-type")), ("hello", "a/b"));
    let two = form(&cloud, &signature("100"), "100", &["y", "z"]).await;
    assert_eq!((two.status, two.text()), (400, "400 Bad Request\r\nFormPost: Max File Count Exceeded"));
    let large = form(&cloud, &signature("4"), "4", &["large"]).await;
    assert_eq!((large.status, large.text()), (400, "FormPost: max_file_size exceeded"));
    assert_eq!(form(&cloud, &signature("99"), "100", &["bad"]).await.status, 401);
    assert_eq!(form(&cloud, &signature("100"), "100", &[]).await.status, 400);
    assert_eq!(cloud.names("/c?prefix=up_").await, "up_x.txt up_y");
    let broken = [("content-type", "multipart/form-data; boundary=b")];
    assert_eq!(cloud.ask("", "POST", "/c/up_", &broken, "nonsense").await.status, 400);
    assert_eq!(cloud.ask(OWNER, "GET", "/c/up_large", &[], "").await.status, 404);
}
