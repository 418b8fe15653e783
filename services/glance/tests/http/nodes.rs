//! Several nodes of one cloud: what one staged is imported and deleted by the others' word, and what one has begun is not
//! lost when another starts.

use crate::cloud::{Cloud, FOREIGN, IMAGE, OWNER, open, options};
use axum::body::Body;
use base::Json;
use bytes::Bytes;
use db::testing::TestDb;
use futures::channel::mpsc;
use glance::{Glance, Options, TABLES};
use serde_json::json;
use std::{path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use web::testing::{People, Surface};

/// One that others reach over a socket, with a directory of its own for what is staged.
struct Node {
    cloud: Cloud,
    serving: JoinHandle<()>,
}

impl Node {
    async fn new(database: TestDb) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (glance, surface) = open(&database, &directory, named(&listener, directory.path())).await;
        let serving = serve(listener, &glance);
        Self { cloud: Cloud { glance, surface, database, directory }, serving }
    }

    /// Another one, whose images are in the same place.
    async fn beside(&self) -> (Arc<Glance>, Surface, TempDir) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let staging = tempfile::tempdir().unwrap();
        let named = named(&listener, staging.path());
        let (glance, surface) = open(&self.cloud.database, &self.cloud.directory, named).await;
        serve(listener, &glance);
        (glance, surface, staging)
    }

    fn staged(&self, id: &str) -> bool {
        self.cloud.directory.path().join("own").join(id).exists()
    }
}

fn named(listener: &TcpListener, directory: &Path) -> Options {
    let url = format!("http://{}", listener.local_addr().unwrap());
    let staging_directory = directory.join("own").display().to_string();
    Options { worker_self_reference_url: url, staging_directory, ..options() }
}

fn serve(listener: TcpListener, glance: &Arc<Glance>) -> JoinHandle<()> {
    let service = glance.service(None, Arc::new(People), "http://127.0.0.1:5000").unwrap();
    let router = service.into_router().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

async fn sqlite() -> TestDb {
    db::testing::sqlite(TABLES, &[]).await.unwrap()
}

const DIRECT: &str = "glance-direct";

async fn import(surface: &Surface, token: &str, id: &str) -> (u16, String) {
    let body = json!({"method": {"name": DIRECT}});
    let answer = surface.call(token, "POST", &format!("/v2/images/{id}/import"), body).await;
    (answer.status, answer.text().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_staged_another_imports() {
    let one = Node::new(sqlite().await).await;
    let (_other, surface, _staging) = one.beside().await;
    let id = one.cloud.image("raw").await;
    assert_eq!(one.cloud.put(&id, "stage", IMAGE).await.status, 204);
    assert!(one.staged(&id));
    let shown = surface.get(OWNER, &format!("/v2/images/{id}")).await;
    assert_eq!(
        (&shown["status"], shown.get("stage_host"), shown.get("process")),
        (&json!("uploading"), None, None)
    );
    // Who may not is refused before anybody else is asked.
    assert_eq!(import(&surface, FOREIGN, &id).await.0, 404);
    let body = json!({"method": {"name": DIRECT}});
    let answer = surface.call(OWNER, "POST", &format!("/v2/images/{id}/import"), body).await;
    assert_eq!(answer.status, 202);
    one.cloud.until(&id, "active").await;
    let task = one.cloud.task(&id).await;
    assert_eq!(task["status"], "success");
    // Both nodes did it for one request.
    assert_eq!(answer.header("x-openstack-request-id"), task["request_id"]);
    assert!(!one.staged(&id));
    let file = format!("/v2/images/{id}/file");
    assert_eq!(surface.call(OWNER, "GET", &file, Json::Null).await.text(), IMAGE);
    // What the other node answers is the answer.
    assert_eq!(import(&surface, OWNER, &id).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_staged_another_deletes() {
    let one = Node::new(sqlite().await).await;
    let (_other, surface, _staging) = one.beside().await;
    let id = one.cloud.image("raw").await;
    assert_eq!(one.cloud.put(&id, "stage", IMAGE).await.status, 204);
    let path = format!("/v2/images/{id}");
    assert_eq!(surface.call(FOREIGN, "DELETE", &path, Json::Null).await.status, 404);
    assert!(one.staged(&id));
    assert_eq!(surface.call(OWNER, "DELETE", &path, Json::Null).await.status, 204);
    assert!(!one.staged(&id));
    assert_eq!(surface.call(OWNER, "GET", &path, Json::Null).await.status, 404);
}

/// It is said that nobody imports it; deleted it is all the same, and the node clears up when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_staged_is_away() {
    let mut one = Node::new(sqlite().await).await;
    let (_other, surface, _staging) = one.beside().await;
    let id = one.cloud.image("raw").await;
    assert_eq!(one.cloud.put(&id, "stage", IMAGE).await.status, 204);
    one.serving.abort();
    let _ = (&mut one.serving).await;
    let (status, text) = import(&surface, OWNER, &id).await;
    assert_eq!(status, 504);
    assert!(text.contains("Stage host is unavailable"), "{text}");
    let path = format!("/v2/images/{id}");
    assert_eq!(surface.get(OWNER, &path).await["status"], "uploading");
    assert_eq!(surface.call(OWNER, "DELETE", &path, Json::Null).await.status, 204);
    assert!(one.staged(&id));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    open(&one.cloud.database, &one.cloud.directory, named(&listener, one.cloud.directory.path())).await;
    assert!(!one.staged(&id));
}

/// A load balancer's name instead of the node's own leads to others: they do not send it round.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_another_node() {
    let database = sqlite().await;
    let balancer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (glance, surface) = open(&database, &directory, named(&balancer, directory.path())).await;
    let one = Cloud { glance, surface, database, directory };
    let staging = tempfile::tempdir().unwrap();
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (other, surface) = open(&one.database, &one.directory, named(&own, staging.path())).await;
    serve(balancer, &other);
    let id = one.image("raw").await;
    assert_eq!(one.put(&id, "stage", IMAGE).await.status, 204);
    let (status, text) = import(&surface, OWNER, &id).await;
    assert_eq!(status, 503);
    assert!(text.contains("leads to another node than the one that staged the image"), "{text}");
    assert_eq!(one.show(&id).await["status"], "uploading");
    // It is deleted where it ends up.
    assert_eq!(surface.call(OWNER, "DELETE", &format!("/v2/images/{id}"), Json::Null).await.status, 204);
    assert_eq!(one.get(OWNER, &format!("/v2/images/{id}")).await.status, 404);
}

/// Of two nodes with one name, each takes for its own what the other staged.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_name() {
    let database = sqlite().await;
    let balancer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (glance, surface) = open(&database, &directory, named(&balancer, directory.path())).await;
    let one = Cloud { glance, surface, database, directory };
    let staging = tempfile::tempdir().unwrap();
    let (_other, surface) = open(&one.database, &one.directory, named(&balancer, staging.path())).await;
    let id = one.image("raw").await;
    assert_eq!(one.put(&id, "stage", IMAGE).await.status, 204);
    let (status, text) = import(&surface, OWNER, &id).await;
    assert_eq!(status, 503);
    assert!(text.contains("is not on this node"), "{text}");
    // The next try may reach the one that has it.
    assert_eq!(import(&one.surface, OWNER, &id).await.0, 202);
    one.until(&id, "active").await;
}

/// Bytes that come one at a time, as long as the other end is held.
fn slowly() -> (mpsc::UnboundedSender<std::io::Result<Bytes>>, Body) {
    let (sender, receiver) = mpsc::unbounded();
    (sender, Body::from_stream(receiver))
}

/// Two nodes with their images in one place: one starts while the other takes an upload, stages and has staged.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_loses_nothing_of_other_nodes() {
    let Some(database) = db::testing::postgres(TABLES, &[]).await.unwrap() else { return };
    let one = Arc::new(Cloud::on(database, options()).await);
    let staged = one.image("raw").await;
    assert_eq!(one.put(&staged, "stage", IMAGE).await.status, 204);
    let mut begun = Vec::new();
    for what in ["file", "stage"] {
        let id = one.image("raw").await;
        let (sender, body) = slowly();
        sender.unbounded_send(Ok(Bytes::from_static(b"some bytes "))).unwrap();
        let (cloud, path) = (one.clone(), id.clone());
        begun.push((id, sender, tokio::spawn(async move { cloud.put(&path, what, body).await.status })));
    }
    one.until(&begun[0].0, "saving").await;
    one.until(&begun[1].0, "uploading").await;
    let incoming = || one.files().iter().filter(|file| file.to_string_lossy().contains("incoming")).count();
    assert_eq!(incoming(), 2);

    let (other, surface) = open(&one.database, &one.directory, options()).await;
    assert_eq!(incoming(), 2);
    let ids: Vec<String> = begun.iter().map(|(id, ..)| id.clone()).collect();
    for (_, sender, upload) in begun {
        sender.unbounded_send(Ok(Bytes::from_static(b"of an image"))).unwrap();
        drop(sender);
        assert_eq!(upload.await.unwrap(), 204);
    }
    // The directory of what is staged is that of both: either imports it.
    for id in [&ids[1], &staged] {
        assert_eq!(import(&surface, OWNER, id).await.0, 202);
        assert_eq!(one.task(id).await["status"], "success");
    }
    for id in ids.iter().chain([&staged]) {
        let file = surface.call(OWNER, "GET", &format!("/v2/images/{id}/file"), Json::Null).await;
        assert_eq!(file.text(), IMAGE);
    }

    // One that ended in the middle is no other's loss but its own.
    let id = one.image("raw").await;
    let (sender, body) = slowly();
    sender.unbounded_send(Ok(Bytes::from_static(b"some bytes "))).unwrap();
    let path = format!("/v2/images/{id}/file");
    let headers = [("x-auth-token", OWNER), ("content-type", crate::cloud::BYTES)];
    let upload = {
        let (surface, path) = (surface.clone(), path.clone());
        tokio::spawn(async move { surface.send("PUT", &path, &headers, body).await.status })
    };
    one.until(&id, "saving").await;
    other.stop().await;
    let (_third, third) = open(&one.database, &one.directory, options()).await;
    assert_eq!(one.show(&id).await["status"], "queued");
    assert_eq!(incoming(), 0);
    // Another one's bytes are the image's now, whatever comes of the first.
    let headers = [("x-auth-token", OWNER), ("content-type", crate::cloud::BYTES)];
    assert_eq!(third.send("PUT", &path, &headers, IMAGE.into()).await.status, 204);
    sender.unbounded_send(Ok(Bytes::from_static(b"that came too late"))).unwrap();
    drop(sender);
    assert_eq!(upload.await.unwrap(), 410);
    assert_eq!(one.get(OWNER, &path).await.text(), IMAGE);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(one.show(&id).await["status"], "active");
}
