//! Images over their HTTP surface, on every database: stories, and every write path with what it must refuse.

use crate::cloud::{
    ADMIN, Cloud, FOREIGN, IMAGE, OWNER, READER, clouds, options, qcow2, reaching, web_server,
};
use axum::body::Body;
use base::Json;
use bytes::Bytes;
use futures::{StreamExt, stream};
use glance::Options;
use http_body_util::BodyExt;
use serde_json::json;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_lives() {
    for cloud in clouds().await {
        let id = cloud.image("raw").await;
        assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.status, 204, "no bytes yet");
        assert_eq!(cloud.put(&id, "file", "some bytes of an image").await.status, 204);
        let shown = cloud.show(&id).await;
        assert_eq!(
            (&shown["status"], &shown["size"], &shown["stores"]),
            (&json!("active"), &json!(22), &json!("file"))
        );
        assert_eq!(shown["checksum"], "a89fe3e1533d745a6e77efb32c65367f");
        assert!(shown["os_hash_value"].as_str().unwrap().starts_with("50fd1bfc28a5b872"));
        let whole = cloud.get(OWNER, &format!("/v2/images/{id}/file")).await;
        assert_eq!(
            (whole.text(), &whole.headers["content-md5"]),
            ("some bytes of an image", &"a89fe3e1533d745a6e77efb32c65367f".parse().unwrap())
        );
        let headers = [("x-auth-token", OWNER), ("range", "bytes=5-9")];
        let part = cloud.surface.ask("GET", &format!("/v2/images/{id}/file"), &headers, None).await;
        assert_eq!((part.status, part.text()), (206, "bytes"));
        assert_eq!(part.headers["content-range"], "bytes 5-9/22");
        let changes = json!([{"op": "add", "path": "/colour", "value": "red"}, {"op": "replace", "path": "/name", "value": "n"}]);
        let changed = cloud.call(OWNER, "PATCH", &format!("/v2/images/{id}"), changes).await.body;
        assert_eq!((&changed["colour"], &changed["name"]), (&json!("red"), &json!("n")));
        for (query, count) in [
            ("?name=n", 1),
            ("?colour=red", 1),
            ("?colour=blue", 0),
            ("?name=in:n,m", 1),
            ("?size_min=22", 1),
            ("?size_min=23", 0),
            ("?tag=t", 0),
            ("?created_at=lt:2020-01-01T00:00:00Z", 0),
            ("?visibility=public", 0),
            ("?os_hidden=true", 0),
            ("?sort=name:asc,size:desc&limit=1", 1),
        ] {
            let found = cloud.get(OWNER, &format!("/v2/images{query}")).await.body;
            assert_eq!(found["images"].as_array().map(Vec::len), Some(count), "{query}: {found}");
        }
        assert_eq!(cloud.call(OWNER, "DELETE", &format!("/v2/images/{id}"), Json::Null).await.status, 204);
        assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}")).await.status, 404);
        assert_eq!(cloud.files(), Vec::<PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_all_images_once() {
    for cloud in clouds().await {
        for _ in 0..7 {
            cloud.image("raw").await;
        }
        for sort in ["sort=name:asc", "sort=disk_format:desc,created_at:asc", "sort_key=size&sort_dir=asc"] {
            let mut next = format!("/v2/images?limit=3&{sort}");
            let mut seen = std::collections::BTreeSet::new();
            loop {
                let page = cloud.get(OWNER, &next).await.body;
                for image in page["images"].as_array().unwrap() {
                    assert!(seen.insert(image["id"].to_string()), "twice: {sort}");
                }
                match page["next"].as_str() {
                    Some(url) => next = url.into(),
                    None => break,
                }
            }
            assert_eq!(seen.len(), 7, "{sort}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused() {
    let cloud = Cloud::small().await;
    let queued = cloud.image("raw").await;
    let active = cloud.image("raw").await;
    assert_eq!(cloud.put(&active, "file", "x").await.status, 204);
    let at = |id: &str, rest: &str| format!("/v2/images/{id}{rest}");
    let long = "x".repeat(256);
    let add = |name: &str, value: Json| json!([{"op": "add", "path": format!("/{name}"), "value": value}]);
    let import = |method: &str| json!({"method": {"name": method}});
    let fetch = |uri: &str| json!({"method": {"name": "web-download", "uri": uri}});
    #[rustfmt::skip]
    let cases = [
        (OWNER, "POST", "/v2/images".into(), json!({"name": 5}), 400, "is not of type"),
        (OWNER, "POST", "/v2/images".into(), json!({"name": long}), 400, ""),
        (OWNER, "POST", "/v2/images".into(), json!({"min_disk": "x"}), 400, ""),
        (OWNER, "POST", "/v2/images".into(), json!({"disk_format": "nope"}), 400, ""),
        (OWNER, "POST", "/v2/images".into(), json!({"colour": 7}), 400, ""),
        (OWNER, "POST", "/v2/images".into(), json!({"id": queued}), 409, "already exists"),
        (OWNER, "POST", "/v2/images".into(), json!({"os_glance_x": "y"}), 403, "is reserved"),
        (OWNER, "POST", "/v2/images".into(), json!({"checksum": "y"}), 403, "is read-only"),
        (OWNER, "POST", "/v2/images".into(), json!({"owner": "p2"}), 403, ""),
        (OWNER, "POST", "/v2/images".into(), json!({"visibility": "public"}), 403, ""),
        (READER, "POST", "/v2/images".into(), json!({"name": "x"}), 403, ""),
        (FOREIGN, "GET", at(&queued, ""), Json::Null, 404, "No image found with ID"),
        (FOREIGN, "DELETE", at(&queued, ""), Json::Null, 404, ""),
        (FOREIGN, "PATCH", at(&queued, ""), add("a", json!("b")), 404, ""),
        (FOREIGN, "POST", at(&queued, "/members"), json!({"member": "p3"}), 404, ""),
        (FOREIGN, "POST", at(&queued, "/import"), import("glance-direct"), 404, ""),
        (FOREIGN, "GET", at(&queued, "/tasks"), Json::Null, 404, ""),
        (READER, "DELETE", at(&queued, ""), Json::Null, 403, ""),
        (READER, "PATCH", at(&queued, ""), add("a", json!("b")), 403, ""),
        (READER, "PUT", at(&queued, "/tags/t"), Json::Null, 403, ""),
        (READER, "POST", at(&queued, "/members"), json!({"member": "p3"}), 403, ""),
        (READER, "POST", at(&queued, "/actions/deactivate"), Json::Null, 403, ""),
        (OWNER, "PATCH", at(&queued, ""), add("name", json!(5)), 400, ""),
        (OWNER, "PATCH", at(&queued, ""), add("os_glance_x", json!("y")), 403, "is reserved"),
        (OWNER, "PATCH", at(&queued, ""), add("status", json!("active")), 403, "is read-only"),
        (OWNER, "PATCH", at(&queued, ""), add("visibility", json!("public")), 403, ""),
        (OWNER, "PATCH", at(&queued, ""), json!({}), 400, "must be a JSON array"),
        (OWNER, "PATCH", at(&queued, ""), json!([{"op": "move", "path": "/a"}]), 400, "Invalid operation"),
        (OWNER, "PATCH", at(&active, ""), add("disk_format", json!("qcow2")), 403, ""),
        (OWNER, "POST", at(&queued, "/actions/deactivate"), Json::Null, 403, "in status"),
        (OWNER, "PUT", at(&queued, &format!("/tags/{long}")), Json::Null, 400, ""),
        (OWNER, "POST", at(&queued, "/members"), json!({"member": ""}), 400, ""),
        (OWNER, "POST", at(&queued, "/members"), json!([]), 400, ""),
        (OWNER, "POST", at(&queued, "/import"), json!({}), 400, "requires a"),
        (OWNER, "POST", at(&queued, "/import"), json!({"method": {}}), 400, "field"),
        (OWNER, "POST", at(&queued, "/import"), json!([]), 400, ""),
        (OWNER, "POST", at(&queued, "/import"), import("x"), 400, "Unknown import method name"),
        (OWNER, "POST", at(&queued, "/import"), import("glance-direct"), 409, "needs to be staged"),
        (OWNER, "POST", at(&active, "/import"), import("web-download"), 409, "cannot be target for import"),
        (OWNER, "POST", at(&active, "/import"), import("copy-image"), 403, ""),
        (ADMIN, "POST", at(&active, "/import"), import("copy-image"), 400, "already present at store"),
        (OWNER, "POST", at(&queued, "/import"), fetch("http://127.0.0.1/x"), 400, "does not pass filtering: http://127.0.0.1/x"),
        (OWNER, "POST", at(&queued, "/import"), fetch("http://169.254.169.254/"), 400, "does not pass filtering"),
        (OWNER, "POST", at(&queued, "/import"), fetch("file:///etc/passwd"), 400, "does not pass filtering"),
        (OWNER, "POST", at(&queued, "/locations"), json!({"url": "http://8.8.8.8/"}), 403, "http store must be enabled"),
        (OWNER, "POST", at(&active, "/locations"), json!({"url": "http://8.8.8.8/"}), 409, ""),
        (OWNER, "POST", at(&queued, "/locations"), json!({"url": 5}), 400, "is not of type"),
        (OWNER, "GET", at(&active, "/locations"), Json::Null, 403, ""),
        (ADMIN, "DELETE", format!("/v2/stores/file/{active}"), Json::Null, 403, "only store containing it"),
        (ADMIN, "DELETE", format!("/v2/stores/nope/{active}"), Json::Null, 409, "is not available on this node"),
        (OWNER, "DELETE", format!("/v2/stores/file/{active}"), Json::Null, 403, ""),
        (OWNER, "GET", "/v2/info/stores/detail".into(), Json::Null, 403, ""),
        (OWNER, "GET", "/v2/tasks".into(), Json::Null, 403, ""),
        (ADMIN, "GET", "/v2/tasks?status=x".into(), Json::Null, 400, "Invalid status value: x"),
        (ADMIN, "GET", "/v2/tasks?marker=x".into(), Json::Null, 400, "Invalid marker format"),
        (ADMIN, "GET", "/v2/tasks?sort_key=x".into(), Json::Null, 400, "Sort key supplied was not valid."),
        (ADMIN, "GET", "/v2/tasks/x".into(), Json::Null, 404, "Could not find task x"),
        (ADMIN, "DELETE", "/v2/tasks/x".into(), Json::Null, 405, "currently not permitted"),
        (ADMIN, "POST", "/v2/tasks".into(), json!({"type": "import"}), 400, "is required"),
        (ADMIN, "POST", "/v2/tasks".into(), json!({"type": "x", "input": {}}), 400, "is not one of"),
        (OWNER, "GET", "/v2/cache".into(), Json::Null, 403, ""),
        (OWNER, "DELETE", "/v2/cache".into(), Json::Null, 403, ""),
        (OWNER, "POST", "/v2/cache/clean".into(), Json::Null, 403, ""),
        (OWNER, "POST", "/v2/cache/prune".into(), Json::Null, 403, ""),
        (OWNER, "PUT", format!("/v2/cache/{active}"), Json::Null, 403, ""),
        (OWNER, "DELETE", format!("/v2/cache/{active}"), Json::Null, 403, ""),
        (OWNER, "GET", format!("/v2/cache/nodes/{active}"), Json::Null, 403, ""),
        (ADMIN, "PUT", "/v2/cache/x".into(), Json::Null, 404, "Image x not found."),
        (ADMIN, "PUT", format!("/v2/cache/{queued}"), Json::Null, 400, "Only images with status active"),
        (ADMIN, "DELETE", "/v2/cache/x".into(), Json::Null, 404, "Image x not found."),
        (ADMIN, "GET", "/v2/cache/nodes/x".into(), Json::Null, 404, "Image x not found."),
        (OWNER, "GET", "/v2/images/".into(), Json::Null, 404, ""),
        (OWNER, "GET", "/v2/images?limit=x".into(), Json::Null, 400, "limit param must be an integer"),
        (OWNER, "GET", "/v2/images?marker=x".into(), Json::Null, 400, ""),
        ("nobody", "GET", "/v2/images".into(), Json::Null, 401, ""),
    ];
    let mut wrong = Vec::new();
    for (token, method, path, body, status, says) in cases {
        let answer = cloud.call(token, method, &path, body.clone()).await;
        if answer.status != status || !answer.text().contains(says) {
            wrong.push(format!("{token} {method} {path} {body}: {} {}", answer.status, answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let again = cloud.put(&active, "file", "y").await;
    assert_eq!(again.status, 409, "{}", again.text());
    assert_eq!(cloud.call(OWNER, "PUT", &at(&queued, "/file"), json!({})).await.status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_images_leave_nothing() {
    let cloud = Cloud::small().await;
    let descriptor =
        b"# Disk DescriptorFile\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/passwd\" 0\n".to_vec();
    let cases = [
        ("qcow2", qcow2(true)),
        ("raw", qcow2(true)),
        ("qcow2", b"not one".to_vec()),
        ("vmdk", descriptor.clone()),
        ("raw", descriptor),
        ("vhd", qcow2(false)),
        ("ami", qcow2(false)),
    ];
    for (format, bytes) in cases {
        let id = cloud.image(format).await;
        let answer = cloud.put(&id, "file", bytes.clone()).await;
        assert_eq!(answer.status, 415, "{format}: {}", answer.text());
        assert_eq!(cloud.show(&id).await["status"], "queued");
        assert_eq!(cloud.put(&id, "stage", bytes).await.status, 204);
        let import = json!({"method": {"name": "glance-direct"}});
        let path = format!("/v2/images/{id}/import");
        assert_eq!(cloud.call(OWNER, "POST", &path, import).await.status, 202);
        assert_eq!(cloud.task(&id).await["status"], "failure", "{format}");
        let shown = cloud.show(&id).await;
        assert_eq!((&shown["status"], &shown["os_glance_failed_import"]), (&json!("queued"), &json!("file")));
        assert_eq!(cloud.files(), Vec::<PathBuf>::new(), "{format}");
    }
    let id = cloud.image("qcow2").await;
    assert_eq!(cloud.put(&id, "file", qcow2(false)).await.status, 204);
    assert_eq!(cloud.show(&id).await["virtual_size"], 1 << 30);
}

/// An operator may let images be what they are not said to be; what is unsafe is refused all the same.
#[tokio::test(flavor = "multi_thread")]
async fn formats_that_need_not_match() {
    let cloud = Cloud::with(Options { require_image_format_match: false, ..options() }).await;
    let of_size = json!([22, null]);
    for format in ["qcow2", "vhd", "ami"] {
        let id = cloud.image(format).await;
        assert_eq!(cloud.put(&id, "file", IMAGE).await.status, 204, "{format}");
        let shown = cloud.show(&id).await;
        assert_eq!(json!([shown["size"], shown["virtual_size"]]), of_size, "{format}");
    }
    let id = cloud.image("raw").await;
    assert_eq!(cloud.put(&id, "file", IMAGE).await.status, 204);
    assert_eq!(cloud.show(&id).await["virtual_size"], 22);
    let id = cloud.image("qcow2").await;
    assert_eq!(cloud.put(&id, "file", qcow2(true)).await.status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_bytes_are_imported() {
    for cloud in clouds().await {
        let id = cloud.image("raw").await;
        assert_eq!(cloud.put(&id, "stage", "some bytes of an image").await.status, 204);
        let shown = cloud.show(&id).await;
        assert_eq!((&shown["status"], &shown["size"]), (&json!("uploading"), &json!(22)));
        let import = json!({"method": {"name": "glance-direct"}});
        let path = format!("/v2/images/{id}/import");
        assert_eq!(cloud.call(OWNER, "POST", &path, import).await.status, 202);
        let task = cloud.task(&id).await;
        assert_eq!((&task["status"], &task["message"]), (&json!("success"), &json!("Copied 0 MiB")));
        assert_eq!(cloud.show(&id).await["status"], "active");
        let tasks = cloud.get(ADMIN, "/v2/tasks").await.body;
        assert_eq!(tasks["tasks"][0]["id"], task["id"]);
        let one = cloud.get(ADMIN, tasks["tasks"][0]["self"].as_str().unwrap()).await.body;
        assert_eq!(one["input"]["import_req"]["method"]["name"], "glance-direct");
        assert_eq!(cloud.files().len(), 1, "what was staged is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_from_elsewhere() {
    let (server, _) = web_server("127.0.0.3:0").await;
    let cloud = Cloud::with(reaching(&server)).await;
    for (path, status, says) in [
        ("/image", "success", "Copied"),
        ("/near", "success", "Copied"),
        ("/inside", "failure", "not allowed"),
        ("/link-local", "failure", "not allowed"),
        ("/private", "failure", "not allowed"),
        ("/file", "failure", "not allowed"),
        ("/round", "failure", "redirects"),
        ("/none", "failure", "404"),
    ] {
        let id = cloud.image("raw").await;
        let import = json!({"method": {"name": "web-download", "uri": format!("http://{server}{path}")}});
        let begun = cloud.call(OWNER, "POST", &format!("/v2/images/{id}/import"), import).await;
        assert_eq!(begun.status, 202, "{path}: {}", begun.text());
        let task = cloud.task(&id).await;
        assert_eq!(task["status"], status, "{path}: {task}");
        assert!(task["message"].as_str().unwrap().contains(says), "{path}: {task}");
        cloud.until(&id, if status == "success" { "active" } else { "queued" }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_once() {
    for cloud in clouds().await {
        let cloud = Arc::new(cloud);
        let id = cloud.image("raw").await;
        let uploads = (0..20).map(|number| {
            let (cloud, id) = (cloud.clone(), id.clone());
            async move { cloud.put(&id, "file", format!("upload {number:02}")).await.status }
        });
        let mut statuses = futures::future::join_all(uploads).await;
        statuses.sort_unstable();
        assert_eq!(statuses[0], 204);
        assert!(statuses[1..].iter().all(|status| *status == 409), "{statuses:?}");
        for (method, path, body) in [("PUT", "tags/t", false), ("POST", "members", true)] {
            let asked = (0..100).map(|number| {
                let (cloud, id) = (cloud.clone(), id.clone());
                async move {
                    let end = if body { String::new() } else { number.to_string() };
                    let body = if body { json!({"member": format!("m{number}")}) } else { Json::Null };
                    let answer =
                        cloud.call(OWNER, method, &format!("/v2/images/{id}/{path}{end}"), body).await;
                    answer.status < 300
                }
            });
            let granted =
                futures::future::join_all(asked).await.into_iter().filter(|granted| *granted).count();
            assert_eq!(granted, 10, "{path}: a hundred ask, ten get");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_cut_off() {
    let cloud = Cloud::small().await;
    for what in ["file", "stage"] {
        let id = cloud.image("raw").await;
        let half = stream::iter([Ok(Bytes::from(vec![1; 100_000])), Err(std::io::Error::other("gone"))]);
        assert_eq!(cloud.put(&id, what, Body::from_stream(half)).await.status, 400);
        assert_eq!(cloud.show(&id).await["status"], "queued");
        assert_eq!(cloud.files(), Vec::<PathBuf>::new());
        // The client goes, and the handler with it: its body ends a moment later.
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
        let body = Body::from_stream(stream::poll_fn(move |cx| receiver.poll_recv(cx)));
        sender.send(Ok(Bytes::from(vec![1; 100_000]))).await.unwrap();
        let busy = if what == "file" { "saving" } else { "uploading" };
        tokio::select! {
            _ = cloud.put(&id, what, body) => panic!("the upload ended"),
            () = cloud.until(&id, busy) => {}
        }
        sender.send(Err(std::io::Error::other("gone"))).await.unwrap();
        cloud.until(&id, "queued").await;
        assert_eq!(cloud.files(), Vec::<PathBuf>::new());
        assert_eq!(cloud.put(&id, "file", "at last").await.status, 204);
        cloud.call(OWNER, "DELETE", &format!("/v2/images/{id}"), Json::Null).await;
    }
}

/// Bytes that count how many of them there are.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_images() {
    const CHUNK_BYTES: usize = 256 * 1024;
    const CHUNKS: usize = 512;
    /// A batch that is hashed and written, one that is gathered, and the chunk that comes.
    const HELD_BYTES_MAX: usize = 9 * CHUNK_BYTES;
    let cloud = Cloud::small().await;
    for what in ["file", "stage"] {
        let id = cloud.image("raw").await;
        let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, highest) = (held.clone(), most.clone());
        let chunks = stream::iter(0..CHUNKS).map(move |number| {
            let now = counted.fetch_add(CHUNK_BYTES, Ordering::SeqCst) + CHUNK_BYTES;
            highest.fetch_max(now, Ordering::SeqCst);
            let fill = if number % 8 == 0 { 1 } else { 0 };
            Ok::<_, std::io::Error>(Bytes::from_owner(Counted(vec![fill; CHUNK_BYTES], counted.clone())))
        });
        assert_eq!(cloud.put(&id, what, Body::from_stream(chunks)).await.status, 204);
        assert!(most.load(Ordering::SeqCst) <= HELD_BYTES_MAX, "{what}: {most:?}");
        assert_eq!(held.load(Ordering::SeqCst), 0, "nothing is kept");
        if what == "file" {
            let path = format!("/v2/images/{id}/file");
            let headers = [("x-auth-token", OWNER)];
            let response = cloud.surface.open("GET", &path, &headers, Body::empty()).await;
            assert_eq!(response.headers()["content-length"], (CHUNKS * CHUNK_BYTES).to_string());
            let mut body = response.into_body();
            let mut total = 0;
            while let Some(frame) = body.frame().await {
                let bytes = frame.unwrap().into_data().unwrap();
                assert!(bytes.len() <= HELD_BYTES_MAX);
                total += bytes.len();
            }
            assert_eq!(total, CHUNKS * CHUNK_BYTES);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_sets_right_what_a_crash_left() {
    let mut cloud = Cloud::small().await;
    let (saving, kept) = (cloud.image("raw").await, cloud.image("raw").await);
    assert_eq!(cloud.put(&kept, "file", "kept").await.status, 204);
    let images = cloud.directory.path().to_path_buf();
    std::fs::write(images.join("incoming/half"), "half").unwrap();
    std::fs::write(images.join("orphan"), "of an image that is gone").unwrap();
    let id = saving.clone();
    cloud
        .database
        .db
        .write(move |tx| {
            tx.execute("UPDATE images SET status = 'importing' WHERE id = $1", db::params![id.as_str()])?;
            tx.execute(
                "INSERT INTO tasks (id, kind, status, owner, image_id, user_id, request_id, input, result, message, created_at, updated_at)
                 VALUES ('t', 'api_image_import', 'processing', 'p1', $1, 'u', 'r', '{}', 'null', '', 1, 1)",
                db::params![id.as_str()],
            )
        })
        .await
        .unwrap();
    cloud.start_again().await;
    assert_eq!(cloud.show(&saving).await["status"], "queued");
    assert_eq!(cloud.task(&saving).await["status"], "failure");
    assert_eq!(cloud.files(), [images.join(&kept)]);
    assert_eq!(cloud.put(&saving, "file", "again").await.status, 204);
}
