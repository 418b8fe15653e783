//! Images in a real S3 service, which the test starts: `FERROSTACK_TEST_S3` names its program, moto's `moto_server`.

use crate::cloud::{ADMIN, Cloud, IMAGE, OWNER, options};
use base::{Json, Secret};
use glance::{Options, StoreKind, StoreOptions};
use serde_json::json;
use std::process::{Child, Command, Stdio};

struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn server() -> Server {
    let program =
        std::env::var("FERROSTACK_TEST_S3").expect("FERROSTACK_TEST_S3 names an S3 server's program");
    let port = std::net::TcpListener::bind("127.0.0.7:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.7", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server { process: command.spawn().unwrap(), url: format!("http://127.0.0.7:{port}") };
    for _ in 0..300 {
        if raw(&server, "PUT", "/images").await.is_some_and(|status| status == 200) {
            return server;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the S3 server does not answer")
}

/// Without glance, past it.
async fn raw(server: &Server, method: &str, path: &str) -> Option<u16> {
    let stream = tokio::net::TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.ok()?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    tokio::spawn(connection);
    let host = server.url.strip_prefix("http://").unwrap();
    let request = axum::http::Request::builder().method(method).uri(path).header("host", host);
    let signed =
        "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=a";
    let request = request
        .header("content-length", "0")
        .header("authorization", signed)
        .body(axum::body::Body::empty())
        .unwrap();
    Some(sender.send_request(request).await.ok()?.status().as_u16())
}

async fn cloud(server: &Server) -> Cloud {
    let bucket = |id: &str, bucket: &str| StoreOptions {
        id: id.into(),
        kind: StoreKind::S3,
        url: server.url.clone(),
        bucket: bucket.into(),
        access_key: "key".into(),
        secret_key: Secret::new("secret"),
        weight: 5,
        ..StoreOptions::default()
    };
    let mut stores = options().stores;
    stores.extend([bucket("s3", "images"), bucket("lost", "nowhere")]);
    Cloud::with(Options { stores, ..options() }).await
}

async fn upload(cloud: &Cloud, store: &str, bytes: impl Into<axum::body::Body>) -> (String, u16) {
    let id = cloud.image("raw").await;
    let headers = [
        ("x-auth-token", OWNER),
        ("content-type", "application/octet-stream"),
        ("x-image-meta-store", store),
    ];
    let path = format!("/v2/images/{id}/file");
    let status = cloud.surface.send("PUT", &path, &headers, bytes.into()).await.status;
    (id, status)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server's program in FERROSTACK_TEST_S3: make test-stores"]
async fn an_image_lives_in_a_bucket() {
    let server = server().await;
    let cloud = cloud(&server).await;
    let (id, status) = upload(&cloud, "s3", IMAGE).await;
    assert_eq!(status, 204);
    assert_eq!(raw(&server, "HEAD", &format!("/images/{id}")).await, Some(200));
    assert_eq!(cloud.show(&id).await["stores"], "s3");
    let file = format!("/v2/images/{id}/file");
    let part = [("x-auth-token", OWNER), ("range", "bytes=5-9")];
    let part = cloud.surface.ask("GET", &file, &part, Json::Null).await;
    assert_eq!((part.status, part.text()), (206, "bytes"));
    assert_eq!(cloud.get(OWNER, &file).await.text(), IMAGE);
    let copy = json!({"method": {"name": "copy-image"}, "stores": ["file"]});
    assert_eq!(cloud.import(ADMIN, &id, copy).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "success");
    assert_eq!(cloud.show(&id).await["stores"], "s3,file");
    assert_eq!(cloud.call(ADMIN, "DELETE", &format!("/v2/stores/s3/{id}"), Json::Null).await.status, 204);
    assert_eq!(raw(&server, "HEAD", &format!("/images/{id}")).await, Some(404));
    let detail = cloud.get(ADMIN, "/v2/info/stores/detail").await.body;
    assert_eq!((&detail["stores"][1]["type"], &detail["stores"][1]["weight"]), (&json!("s3"), &json!(5)));
    assert!(!detail.to_string().contains("secret"));
    let (gone, _) = upload(&cloud, "s3", IMAGE).await;
    assert_eq!(cloud.call(OWNER, "DELETE", &format!("/v2/images/{gone}"), Json::Null).await.status, 204);
    assert_eq!(raw(&server, "HEAD", &format!("/images/{gone}")).await, Some(404));
}

/// Above 64 MiB it goes up in parts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server's program in FERROSTACK_TEST_S3: make test-stores"]
async fn a_large_image_goes_up_in_parts() {
    let server = server().await;
    let cloud = cloud(&server).await;
    let bytes: Vec<u8> = (0..(130u32 << 20)).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (id, status) = upload(&cloud, "s3", bytes.clone()).await;
    assert_eq!(status, 204);
    assert!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.bytes == bytes);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server's program in FERROSTACK_TEST_S3: make test-stores"]
async fn a_service_that_fails() {
    let server = server().await;
    let cloud = cloud(&server).await;
    let (id, status) = upload(&cloud, "lost", IMAGE).await;
    assert!(status >= 400, "there is no such bucket");
    assert_eq!(cloud.show(&id).await["status"], "queued");
    let (id, status) = upload(&cloud, "s3", IMAGE).await;
    assert_eq!(status, 204);
    drop(server);
    let answer = cloud.get(OWNER, &format!("/v2/images/{id}/file")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(cloud.show(&id).await["status"], "active");
}
