//! Signed images: certificates come from a key manager that the tests play, keys and signatures from `signed.json`, which
//! OpenSSL made.

use crate::cloud::{Cloud, OWNER, options, said};
use axum::http::{HeaderMap, StatusCode, Uri};
use base::Json;
use glance::Options;
use serde_json::json;

fn signed() -> Json {
    serde_json::from_str(include_str!("signed.json")).unwrap()
}

/// Secrets by the name of their key; `symmetric` is no certificate, `broken` cannot be read.
async fn key_manager() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.9:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(|uri: Uri, headers: HeaderMap| async move {
        if !headers.contains_key("x-auth-token") {
            return (StatusCode::UNAUTHORIZED, String::new());
        }
        let path = uri.path().strip_prefix("/v1/secrets/").unwrap_or_default();
        let (id, what) = path.split_once('/').unwrap_or((path, ""));
        let secret_type = if id == "symmetric" { "symmetric" } else { "certificate" };
        let known = signed()["certificates"][id].as_str().map(String::from);
        match (id, what, known) {
            ("broken", "payload", _) => (StatusCode::OK, "no certificate".into()),
            (_, "payload", Some(pem)) => {
                assert_eq!(headers["accept"], "application/octet-stream");
                (StatusCode::OK, pem)
            }
            ("broken" | "symmetric", "", _) | (_, "", Some(_)) => {
                let secret = json!({
                    "secret_type": secret_type, "status": "ACTIVE",
                    "content_types": {"default": "application/octet-stream"},
                });
                (StatusCode::OK, secret.to_string())
            }
            _ => (StatusCode::NOT_FOUND, String::new()),
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn cloud() -> Cloud {
    Cloud::with(Options { key_manager_url: key_manager().await, ..options() }).await
}

async fn image(cloud: &Cloud, [key_type, method, certificate, signature]: [&str; 4]) -> String {
    let wanted = json!({
        "name": "i", "disk_format": "raw", "container_format": "bare", "img_signature": signature,
        "img_signature_hash_method": method, "img_signature_key_type": key_type,
        "img_signature_certificate_uuid": certificate,
    });
    let made = cloud.call(OWNER, "POST", "/v2/images", wanted).await;
    made.body["id"].as_str().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_is_taken_and_nothing_else() {
    let (cloud, signed) = (cloud().await, signed());
    let content = signed["content"].as_str().unwrap();
    for row in signed["signatures"].as_array().unwrap() {
        let said_to_be: [&str; 4] = std::array::from_fn(|at| row[at].as_str().unwrap());
        let id = image(&cloud, said_to_be).await;
        let forged = cloud.put(&id, "file", format!("{content}!")).await;
        assert_eq!(forged.status, 400, "{row}");
        let sentence = format!("Signature verification failed for image {id}: Signature verification failed");
        assert!(said(&forged).contains(&sentence), "{}", said(&forged));
        assert_eq!(cloud.show(&id).await["status"], "queued");
        let good = cloud.put(&id, "file", content.to_string()).await;
        assert_eq!(good.status, 204, "{row}: {}", said(&good));
        assert_eq!(cloud.show(&id).await["status"], "active");
    }
    assert_eq!(cloud.files().iter().filter(|path| path.to_string_lossy().contains("incoming")).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_nobody_can_verify() {
    let cloud = cloud().await;
    let signature = signed()["signatures"][0][3].as_str().unwrap().to_string();
    let good = ["RSA-PSS", "SHA-256", "rsa", signature.as_str()];
    let with = |at: usize, value: &'static str| {
        let mut changed = good;
        changed[at] = value;
        changed
    };
    for (said_to_be, reason) in [
        (with(3, "abc"), "The signature data was not properly encoded using base64"),
        (with(3, "!"), "Error occurred while creating the verifier"),
        (with(1, "MD5"), "Invalid signature hash method: MD5"),
        (with(0, "RSA"), "Invalid signature key type: RSA"),
        (with(0, "ECC_SECT571K1"), "Invalid signature key type: ECC_SECT571K1"),
        (with(0, "DSA"), "Invalid public key type for signature key type: DSA"),
        (with(2, "secp384r1"), "Invalid public key type for signature key type: RSA-PSS"),
        (with(2, "nowhere"), "Certificate not found with ID: nowhere"),
        (with(2, "symmetric"), "Invalid certificate format: RAW"),
        (with(2, "broken"), "Unable to retrieve certificate with ID: broken"),
    ] {
        let id = image(&cloud, said_to_be).await;
        let answer = cloud.put(&id, "file", "some bytes of an image").await;
        assert_eq!(answer.status, 400, "{said_to_be:?}");
        let sentence = format!(
            "Signature verification failed for image {id}: Signature verification for the image failed: {reason}."
        );
        assert!(said(&answer).contains(&sentence), "{sentence}: {}", said(&answer));
        assert_eq!(cloud.show(&id).await["status"], "queued");
    }
}

/// Without a key manager no signed image is taken; one that says only a part of a signature is not signed.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_manager() {
    let cloud = Cloud::small().await;
    let id = image(&cloud, ["RSA-PSS", "SHA-256", "rsa", "YWJj"]).await;
    let answer = cloud.put(&id, "file", "bytes").await;
    assert_eq!(answer.status, 400);
    assert!(said(&answer).contains("Unable to retrieve certificate with ID: rsa"), "{}", said(&answer));
    let patch = json!([{"op": "remove", "path": "/img_signature"}]);
    assert_eq!(cloud.call(OWNER, "PATCH", &format!("/v2/images/{id}"), patch).await.status, 200);
    assert_eq!(cloud.put(&id, "file", "bytes").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_are_verified() {
    let (cloud, signed) = (cloud().await, signed());
    let said_to_be: [&str; 4] = std::array::from_fn(|at| signed["signatures"][0][at].as_str().unwrap());
    for (bytes, ends, status) in
        [("forged", "failure", "queued"), (signed["content"].as_str().unwrap(), "success", "active")]
    {
        let id = image(&cloud, said_to_be).await;
        assert_eq!(cloud.put(&id, "stage", bytes.to_string()).await.status, 204);
        let asked = json!({"method": {"name": "glance-direct"}});
        assert_eq!(cloud.import(OWNER, &id, asked).await.status, 202);
        assert_eq!(cloud.task(&id).await["status"], ends);
        assert_eq!(cloud.show(&id).await["status"], status);
    }
}
