//! Objects: bytes, parts, conditions, copies, metadata, expiry.

use crate::cloud::{Cloud, OWNER, clouds};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use std::time::Duration;

const TEXT: &str = "0123456789abcdef";

async fn cloud() -> Cloud {
    let cloud = Cloud::small().await;
    cloud.make("/c", &[], "").await;
    cloud
}

#[tokio::test]
async fn what_was_put_is_got() {
    for cloud in clouds().await {
        cloud.make("/c", &[], "").await;
        let headers = [
            ("content-type", "text/x-own"),
            ("x-object-meta-one", "1"),
            ("content-disposition", "attachment"),
            ("content-encoding", "gzip"),
        ];
        let made = cloud.put("/c/d%C3%BC/o", &headers, TEXT).await;
        assert_eq!((made.status, made.header("etag")), (201, "4032af8d61035123906e58e067140cc5"));
        assert_eq!(made.header("last-modified"), "Fri, 20 Nov 2026 08:15:31 GMT");
        for method in ["GET", "HEAD"] {
            let got = cloud.ask(OWNER, method, "/c/d%C3%BC/o", &[], "").await;
            assert_eq!((got.status, got.header("content-length")), (200, "16"), "{method}");
            for (name, value) in headers {
                assert_eq!(got.header(name), value);
            }
            assert_eq!((got.header("etag"), got.header("accept-ranges")), (made.header("etag"), "bytes"));
            assert_eq!(got.text(), if method == "GET" { TEXT } else { "" });
        }
        assert_eq!(
            cloud.make("/c/empty.txt", &[], "").await.header("etag"),
            "d41d8cd98f00b204e9800998ecf8427e"
        );
        let empty = cloud.get("/c/empty.txt").await;
        assert_eq!((empty.status, empty.text(), empty.header("content-type")), (200, "", "text/plain"));
        assert_eq!(cloud.files().len(), 1);
        assert_eq!(cloud.delete("/c/d%C3%BC/o").await.status, 204);
        assert_eq!(cloud.delete("/c/d%C3%BC/o").await.status, 404);
        assert_eq!(cloud.files().len(), 0);
    }
}

#[tokio::test]
async fn parts_and_conditions() {
    let cloud = cloud().await;
    let etag = cloud.make("/c/o", &[], TEXT).await.header("etag").to_string();
    for (name, value, status, text) in [
        ("range", "bytes=2-4", 206, "234"),
        ("range", "bytes=-3", 206, "def"),
        ("range", "bytes=16-", 416, ""),
        ("range", "bytes=4-2", 200, TEXT),
        ("if-none-match", &*etag, 304, ""),
        ("if-none-match", "\"other\"", 200, TEXT),
        ("if-match", "other", 412, ""),
        ("if-match", "*", 200, TEXT),
        ("if-modified-since", "Fri, 20 Nov 2026 08:15:31 GMT", 304, ""),
        ("if-unmodified-since", "Fri, 20 Nov 2026 08:15:30 GMT", 412, ""),
    ] {
        let got = cloud.ask(OWNER, "GET", "/c/o", &[(name, value)], "").await;
        assert_eq!(got.status, status, "{name}: {value}");
        assert!(text.is_empty() || got.text() == text, "{name}: {value}: {}", got.text());
    }
    let part = cloud.ask(OWNER, "GET", "/c/o", &[("range", "bytes=2-4")], "").await;
    assert_eq!((part.header("content-range"), part.header("content-length")), ("bytes 2-4/16", "3"));
    let none = cloud.ask(OWNER, "GET", "/c/o", &[("range", "bytes=99-")], "").await;
    assert_eq!(none.header("content-range"), "bytes */16");
    let several = cloud.ask(OWNER, "GET", "/c/o", &[("range", "bytes=0-1,-2")], "").await;
    let boundary = several.header("content-type").strip_prefix("multipart/byteranges;boundary=").unwrap();
    let part = |range: &str, text: &str| {
        format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}/16\r\n\r\n{text}\r\n"
        )
    };
    assert_eq!(several.text(), format!("{}{}--{boundary}--", part("0-1", "01"), part("14-15", "ef")));
    assert_eq!(several.header("content-length"), several.text().len().to_string());
}

#[tokio::test]
async fn what_is_not_to_be() {
    let cloud = cloud().await;
    cloud.make("/c/there", &[], "x").await;
    let long = "x".repeat(1025);
    for (method, path, headers, status) in [
        ("PUT", "/c/o", vec![("etag", "00000000000000000000000000000000")], 422),
        ("PUT", "/c/o", vec![("content-length", "5368709123")], 413),
        ("PUT", "/c/o", vec![("content-length", "")], 411),
        ("PUT", "/c/o", vec![("content-length", "many")], 400),
        ("PUT", "/c/o", vec![("x-delete-at", "soon")], 400),
        ("PUT", "/c/o", vec![("x-delete-at", "1")], 400),
        ("PUT", "/c/o", vec![("x-delete-after", "-1")], 400),
        ("PUT", "/c/o", vec![("x-delete-after", "x")], 400),
        ("PUT", "/c/o", vec![("if-none-match", "abc")], 400),
        ("PUT", "/c/there", vec![("if-none-match", "*")], 412),
        ("PUT", "/c/o", vec![("x-object-meta-", "x")], 400),
        ("PUT", "/c/o", vec![("transfer-encoding", "gzip")], 501),
        ("PUT", "/nowhere/o", vec![], 404),
        ("PUT", &*format!("/c/{long}"), vec![], 400),
        ("POST", "/c/nothing", vec![], 404),
        ("DELETE", "/c/nothing", vec![], 404),
        ("GET", "/c/nothing", vec![], 404),
        ("COPY", "/c/there", vec![], 412),
        ("COPY", "/c/there", vec![("destination", "nowhere")], 412),
        ("COPY", "/c/there", vec![("destination", "no/where")], 404),
        ("COPY", "/c/nothing", vec![("destination", "c/o")], 404),
        ("PUT", "/c/o", vec![("x-copy-from", "c/there"), ("content-length", "1")], 400),
        ("PUT", "/c/o", vec![("x-copy-from", "c")], 412),
    ] {
        let mut all = vec![("content-length", "1")];
        if headers.iter().any(|(name, _)| *name == "x-copy-from") && headers.len() == 1 {
            all[0].1 = "0";
        }
        all.extend(headers.clone());
        let answer = cloud.ask(OWNER, method, path, &all, "x").await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text());
    }
    assert_eq!(cloud.names("/c").await, "there");
    assert_eq!(cloud.files().len(), 1, "what was refused left nothing");
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let cloud = cloud().await;
    cloud.make("/c/o", &[], "before").await;
    let pieces = [Ok(Bytes::from_static(b"some")), Err(std::io::Error::other("cut"))];
    let body = Body::from_stream(stream::iter(pieces));
    let cut = cloud.ask(OWNER, "PUT", "/c/o", &[("content-length", "100")], body).await;
    assert_eq!(cut.status, 499);
    assert_eq!(cloud.get("/c/o").await.text(), "before");
    assert_eq!(cloud.files().len(), 1);
}

#[tokio::test]
async fn copies_are_objects_of_their_own() {
    for cloud in clouds().await {
        cloud.make("/c", &[], "").await;
        cloud.make("/c/o", &[("content-type", "a/b"), ("x-object-meta-one", "1")], TEXT).await;
        let to = [("destination", "c/%C3%BC"), ("x-object-meta-two", "2")];
        let copied = cloud.ask(OWNER, "COPY", "/c/o", &to, "").await;
        assert_eq!((copied.status, copied.header("x-copied-from")), (201, "c/o"), "{}", copied.text());
        assert_eq!(cloud.files().len(), 1, "the bytes are shared");
        cloud.make("/c/fresh", &[("x-copy-from", "/c/o"), ("x-fresh-metadata", "true")], "").await;
        let (copy, fresh) = (cloud.get("/c/%C3%BC").await, cloud.get("/c/fresh").await);
        assert_eq!((copy.header("x-object-meta-one"), copy.header("x-object-meta-two")), ("1", "2"));
        assert_eq!((fresh.header("x-object-meta-one"), fresh.header("content-type")), ("", "a/b"));
        // To itself, then written over, then gone: the others keep their bytes.
        let itself = cloud
            .ask(OWNER, "COPY", "/c/o", &[("destination", "c/o"), ("x-object-meta-three", "3")], "")
            .await;
        assert_eq!(itself.status, 201);
        assert_eq!(cloud.get("/c/o").await.text(), TEXT);
        cloud.make("/c/o", &[], "other").await;
        assert_eq!(cloud.delete("/c/fresh").await.status, 204);
        assert_eq!(cloud.get("/c/%C3%BC").await.text(), TEXT);
        assert_eq!(cloud.delete("/c/%C3%BC").await.status, 204);
        assert_eq!(cloud.files().len(), 1);
        // Alone with itself.
        assert_eq!(cloud.ask(OWNER, "COPY", "/c/o", &[("destination", "c/o")], "").await.status, 201);
        assert_eq!(cloud.get("/c/o").await.text(), "other");
        let part = [("x-copy-from", "/c/o"), ("range", "bytes=1-2")];
        cloud.make("/c/part", &part, "").await;
        assert_eq!(cloud.get("/c/part").await.text(), "th");
    }
}

#[tokio::test]
async fn post_tells_anew_and_forgets_the_rest() {
    let cloud = cloud().await;
    let given = [("x-object-meta-one", "1"), ("content-disposition", "inline"), ("x-delete-after", "100")];
    cloud.make("/c/o", &given, TEXT).await;
    assert_eq!(cloud.head("/c/o").await.header("x-delete-at"), "1795162630");
    assert_eq!(cloud.post("/c/o", &[("x-object-meta-two", "2"), ("content-type", "a/b")]).await.status, 202);
    let told = cloud.get("/c/o").await;
    assert_eq!((told.header("x-object-meta-one"), told.header("x-object-meta-two")), ("", "2"));
    assert_eq!((told.header("content-disposition"), told.header("x-delete-at")), ("", ""));
    assert_eq!((told.header("content-type"), told.text()), ("a/b", TEXT));
}

#[tokio::test]
async fn objects_go_when_their_time_comes() {
    for cloud in clouds().await {
        cloud.make("/c", &[], "").await;
        cloud.make("/c/o", &[("x-delete-after", "60")], TEXT).await;
        cloud.make("/c/stays", &[("x-delete-after", "600")], TEXT).await;
        assert_eq!(cloud.swift.expire().await.unwrap(), 0);
        cloud.clock.advance(Duration::from_secs(61));
        assert_eq!(cloud.get("/c/o").await.status, 404, "at once, whether it was removed or not");
        assert_eq!(cloud.names("/c").await, "o stays");
        assert_eq!(cloud.swift.expire().await.unwrap(), 1);
        assert_eq!(cloud.names("/c").await, "stays");
        assert_eq!(cloud.head("/c").await.header("x-container-bytes-used"), "16");
        assert_eq!(cloud.files().len(), 1);
        cloud.make("/c/again", &[("x-delete-after", "1")], "x").await;
        cloud.clock.advance(Duration::from_secs(2));
        cloud.make("/c/again", &[("if-none-match", "*")], "y").await;
    }
}

#[tokio::test]
async fn twice_at_once_is_one_of_them() {
    for cloud in clouds().await {
        cloud.make("/c", &[], "").await;
        let only = [("if-none-match", "*")];
        let both = futures::join!(cloud.put("/c/o", &only, "one"), cloud.put("/c/o", &only, "two"));
        let mut statuses = [both.0.status, both.1.status];
        statuses.sort();
        assert_eq!(statuses, [201, 412]);
        let many = (0..8).map(|n| {
            let cloud = &cloud;
            async move { cloud.put("/c/p", &[], &"x".repeat(n + 1)).await.status }
        });
        assert_eq!(futures::future::join_all(many).await, [201; 8]);
        let head = cloud.head("/c").await;
        let length: u64 = cloud.head("/c/p").await.header("content-length").parse().unwrap();
        assert_eq!(head.header("x-container-object-count"), "2");
        assert_eq!(head.header("x-container-bytes-used"), (length + 3).to_string());
        assert_eq!(cloud.files().len(), 2);
    }
}
