//! Many objects in one request.

use crate::cloud::{Cloud, OWNER, clouds};
use serde_json::json;

const AS_JSON: (&str, &str) = ("accept", "application/json");

async fn delete(cloud: &Cloud, token: &str, list: &str) -> serde_json::Value {
    let length = list.len().to_string();
    let headers = [AS_JSON, ("content-type", "text/plain"), ("content-length", length.as_str())];
    let answer = cloud.ask(token, "POST", "?bulk-delete", &headers, list.to_string()).await;
    assert_eq!(answer.status, 200);
    answer.body
}

#[tokio::test]
async fn a_list_is_deleted() {
    for cloud in clouds().await {
        cloud.make("/c", &[], "").await;
        cloud.make("/full", &[], "").await;
        for name in ["/c/a", "/c/%C3%BC%20x", "/full/o"] {
            cloud.make(name, &[], "x").await;
        }
        let report = delete(&cloud, OWNER, "/c/a\nc/%C3%BC%20x\n\nc/none\nc\nfull\n").await;
        assert_eq!(
            report,
            json!({"Number Deleted": 3, "Number Not Found": 1, "Response Body": "", "Response Status": "400 Bad Request",
                "Errors": [["full", "409 Conflict"]]})
        );
        assert_eq!(cloud.names("").await, "full");
        assert_eq!(delete(&cloud, OWNER, "").await["Response Body"], "Invalid bulk delete.");
        let foreign = delete(&cloud, "member@p2", "full/o").await;
        assert_eq!(foreign["Errors"][0], json!(["full/o", "403 Forbidden"]));
        assert_eq!(cloud.names("/full").await, "o");
    }
}

/// An archive as `tar` writes it.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        let mut head = vec![0u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        head[156] = b'0';
        head[257..263].copy_from_slice(b"ustar\0");
        head[148..156].fill(b' ');
        let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
        head[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        archive.extend(head);
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().div_ceil(512) * 512, 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[tokio::test]
async fn an_archive_becomes_objects() {
    for cloud in clouds().await {
        let archive = tar(&[("./c/a", b"one"), ("d/x/b", b"two"), ("top", b"no container")]);
        let length = archive.len().to_string();
        let headers = [AS_JSON, ("content-length", length.as_str()), ("x-object-meta-from", "tar")];
        let report = cloud.ask(OWNER, "PUT", "?extract-archive=tar", &headers, archive.clone()).await.body;
        assert_eq!(
            (&report["Number Files Created"], &report["Response Status"]),
            (&2.into(), &"201 Created".into())
        );
        let got = cloud.get("/d/x/b").await;
        assert_eq!((got.text(), got.header("x-object-meta-from")), ("two", "tar"));
        let into =
            cloud.ask(OWNER, "PUT", "/e/base?extract-archive=tar", &headers, archive.clone()).await.body;
        assert_eq!(into["Number Files Created"], 3);
        assert_eq!(cloud.names("/e").await, "base/c/a base/d/x/b base/top");
        let cut =
            cloud.ask(OWNER, "PUT", "/f?extract-archive=tar", &headers, archive[..514].to_vec()).await.body;
        assert_eq!(cut["Response Status"], "400 Bad Request");
        assert_eq!(cloud.names("/f").await, "", "of what was cut off nothing stays");
        let foreign = cloud.ask("member@p2", "PUT", "?extract-archive=tar", &headers, archive).await.body;
        assert_eq!(foreign["Errors"][0][1], "403 Forbidden");
        assert_eq!(cloud.put("?extract-archive=zip", &[], "x").await.status, 400);
        let length = ("content-length", "");
        let unknown = cloud.ask(OWNER, "PUT", "?extract-archive=tar", &[AS_JSON, length], "x").await.body;
        assert_eq!(unknown["Response Status"], "411 Length Required");
    }
}
