//! Images that go: at once or later, and not while somebody uses their bytes.

use crate::cloud::{ADMIN, Cloud, FOREIGN, OWNER, open_with, options, said};
use base::{Error, Json, Result};
use contracts::images::{Pool, PoolDisk, Pools};
use glance::{Options, StoreKind, StoreOptions, TABLES};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::io::AsyncRead;

/// A pool in memory, of which some disks are in use.
#[derive(Default)]
struct Shelf {
    disks: Mutex<BTreeMap<String, Vec<u8>>>,
    used: Mutex<BTreeSet<String>>,
}

impl Shelf {
    fn disk(&self, name: &str) -> Result<Vec<u8>> {
        let missing = || Error::not_found(format!("no {name}"));
        self.disks.lock().unwrap().get(name).cloned().ok_or_else(missing)
    }
}

#[async_trait::async_trait]
impl Pools for Shelf {
    async fn cluster_id(&self, _: &Pool) -> Result<String> {
        Ok("c1".into())
    }

    async fn keep(&self, pool: &Pool, disk: &PoolDisk, file: &Path) -> Result<()> {
        assert_eq!((pool.name.as_str(), disk.snapshot.as_str()), ("images", "snap"));
        self.disks.lock().unwrap().insert(disk.name.clone(), std::fs::read(file)?);
        Ok(())
    }

    async fn read(
        &self,
        _: &Pool,
        disk: &PoolDisk,
        range: Range<u64>,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let bytes = self.disk(&disk.name)?.split_off(range.start as usize);
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }

    async fn bytes(&self, _: &Pool, disk: &PoolDisk) -> Result<u64> {
        Ok(self.disk(&disk.name)?.len() as u64)
    }

    async fn remove(&self, _: &Pool, disk: &PoolDisk) -> Result<()> {
        self.disk(&disk.name)?;
        if self.used.lock().unwrap().contains(&disk.name) {
            return Err(Error::conflict("it has clones"));
        }
        self.disks.lock().unwrap().remove(&disk.name);
        Ok(())
    }
}

/// `ceph`, the default, beside `file`.
async fn cloud(more: Options) -> (Cloud, Arc<Shelf>) {
    let mut stores = options().stores;
    stores.push(StoreOptions {
        id: "ceph".into(),
        kind: StoreKind::Rbd,
        weight: 5,
        ..StoreOptions::default()
    });
    let options = Options { stores, default_store: "ceph".into(), show_multiple_locations: true, ..more };
    let shelf = Arc::new(Shelf::default());
    let database = db::testing::sqlite(TABLES, &[]).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (glance, surface) = open_with(&database, &directory, options, shelf.clone()).await;
    (Cloud { glance, surface, database, directory }, shelf)
}

async fn image(cloud: &Cloud) -> String {
    let id = cloud.image("raw").await;
    assert_eq!(cloud.put(&id, "file", "abcdefgh").await.status, 204);
    id
}

async fn delete(cloud: &Cloud, id: &str) -> crate::cloud::Answer {
    cloud.call(OWNER, "DELETE", &format!("/v2/images/{id}"), Json::Null).await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_in_a_pool() {
    let (cloud, shelf) = cloud(options()).await;
    let id = image(&cloud).await;
    assert_eq!(shelf.disk(&id).unwrap(), b"abcdefgh");
    let shown = cloud.show(&id).await;
    assert_eq!(shown["stores"], "ceph");
    assert_eq!(shown["direct_url"], format!("rbd://c1/images/{id}/snap"));
    let file = format!("/v2/images/{id}/file");
    assert_eq!(cloud.get(OWNER, &file).await.text(), "abcdefgh");
    let part = [("x-auth-token", OWNER), ("range", "bytes=2-4")];
    let part = cloud.surface.ask("GET", &file, &part, Json::Null).await;
    assert_eq!((part.status, part.text()), (206, "cde"));
    let copy = json!({"method": {"name": "copy-image"}, "stores": ["file"]});
    assert_eq!(cloud.import(ADMIN, &id, copy).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "success");
    assert_eq!(cloud.show(&id).await["stores"], "ceph,file");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_stays() {
    let (cloud, shelf) = cloud(options()).await;
    let id = image(&cloud).await;
    shelf.used.lock().unwrap().insert(id.clone());
    let refused = delete(&cloud, &id).await;
    assert_eq!(refused.status, 409);
    let sentence = format!(
        "Image {id} could not be deleted because it is in use: The image cannot be deleted because it is in use through the backend store outside of Glance."
    );
    assert!(said(&refused).contains(&sentence), "{}", said(&refused));
    assert_eq!(cloud.show(&id).await["status"], "active");
    assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.text(), "abcdefgh");

    let copy = json!({"method": {"name": "copy-image"}, "stores": ["file"]});
    assert_eq!(cloud.import(ADMIN, &id, copy).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "success");
    let path = format!("/v2/stores/ceph/{id}");
    let refused = cloud.call(ADMIN, "DELETE", &path, Json::Null).await;
    assert_eq!(refused.status, 409);
    assert!(said(&refused).contains("The data for Image"), "{}", said(&refused));
    assert_eq!(cloud.show(&id).await["stores"], "ceph,file");

    shelf.used.lock().unwrap().clear();
    assert_eq!(delete(&cloud, &id).await.status, 204);
    assert_eq!(delete(&cloud, &id).await.status, 404);
    assert!(shelf.disk(&id).is_err());
    assert!(!cloud.directory.path().join(&id).exists());
}

/// Of an image in two stores, one of which keeps it, the other's bytes are gone and nobody is told that they are there.
#[tokio::test(flavor = "multi_thread")]
async fn half_gone_is_said_to_be_so() {
    let (cloud, shelf) = cloud(options()).await;
    let id = image(&cloud).await;
    let copy = json!({"method": {"name": "copy-image"}, "stores": ["file"]});
    assert_eq!(cloud.import(ADMIN, &id, copy).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "success");
    let place = cloud.directory.path().join(&id);
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    let failed = delete(&cloud, &id).await;
    assert_eq!(failed.status, 500, "{}", said(&failed));
    let shown = cloud.show(&id).await;
    assert_eq!((&shown["status"], &shown["stores"]), (&json!("active"), &json!("file")));
    assert!(shelf.disk(&id).is_err());
}

/// An import that fails in its second store has ended, even though the first does not give back what it got.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_import_ends_whatever_stores_say() {
    let (cloud, shelf) = cloud(options()).await;
    let id = cloud.image("raw").await;
    assert_eq!(cloud.put(&id, "stage", "abcdefgh").await.status, 204);
    std::fs::create_dir(cloud.directory.path().join(&id)).unwrap();
    shelf.used.lock().unwrap().insert(id.clone());
    let direct = json!({"method": {"name": "glance-direct"}, "stores": ["ceph", "file"]});
    assert_eq!(cloud.import(OWNER, &id, direct).await.status, 202);
    assert_eq!(cloud.task(&id).await["status"], "failure");
    let shown = cloud.show(&id).await;
    assert_eq!((&shown["status"], &shown["os_glance_failed_import"]), (&json!("queued"), &json!("file")));
    assert!(shelf.disk(&id).is_ok());
}

/// Others may trust the image that had it.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_the_id_of_one_that_is_gone() {
    let (cloud, _) = cloud(options()).await;
    let id = image(&cloud).await;
    assert_eq!(delete(&cloud, &id).await.status, 204);
    for token in [OWNER, FOREIGN] {
        let again = json!({"id": id, "name": "another"});
        let refused = cloud.call(token, "POST", "/v2/images", again).await;
        assert_eq!(refused.status, 409);
        assert!(said(&refused).contains(&format!("Image ID {id} already exists!")), "{}", said(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_deletes_are_scrubbed() {
    let (cloud, shelf) = cloud(Options { delayed_delete: true, ..options() }).await;
    let (id, used) = (image(&cloud).await, image(&cloud).await);
    let path = format!("/v2/images/{id}");
    let protect = |on: bool| json!([{"op": "replace", "path": "/protected", "value": on}]);
    assert_eq!(cloud.call(OWNER, "PATCH", &path, protect(true)).await.status, 200);
    assert_eq!(delete(&cloud, &id).await.status, 403);
    assert_eq!(cloud.call(OWNER, "PATCH", &path, protect(false)).await.status, 200);
    assert_eq!(cloud.call(FOREIGN, "DELETE", &path, Json::Null).await.status, 404);
    shelf.used.lock().unwrap().insert(used.clone());
    for gone in [&id, &used] {
        assert_eq!(delete(&cloud, gone).await.status, 204);
        assert_eq!(delete(&cloud, gone).await.status, 404);
    }
    for token in [OWNER, ADMIN] {
        assert_eq!(cloud.get(token, &path).await.status, 404);
        assert_eq!(cloud.get(token, &format!("{path}/file")).await.status, 404);
        assert_eq!(cloud.get(token, "/v2/images").await.body["images"], json!([]));
        assert_eq!(cloud.get(token, "/v2/images?status=pending_delete").await.body["images"], json!([]));
    }
    let again = json!({"id": id, "name": "another"});
    assert_eq!(cloud.call(OWNER, "POST", "/v2/images", again).await.status, 409);
    assert_eq!(shelf.disk(&id).unwrap(), b"abcdefgh");
    assert_eq!(cloud.glance.scrub().await.unwrap(), 1);
    assert!(shelf.disk(&id).is_err() && shelf.disk(&used).is_ok());
    shelf.used.lock().unwrap().clear();
    assert_eq!(cloud.glance.scrub().await.unwrap(), 1);
    assert!(shelf.disk(&used).is_err());
    // What never had bytes has nothing to be scrubbed.
    let empty = cloud.image("raw").await;
    assert_eq!(delete(&cloud, &empty).await.status, 204);
    assert_eq!(cloud.glance.scrub().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrubber_waits_as_long_as_it_is_told() {
    let (cloud, shelf) = cloud(Options { delayed_delete: true, scrub_time_seconds: 3600, ..options() }).await;
    let id = image(&cloud).await;
    assert_eq!(delete(&cloud, &id).await.status, 204);
    assert_eq!(cloud.glance.scrub().await.unwrap(), 0);
    assert!(shelf.disk(&id).is_ok());
}

/// As nova says where the disk is that it made of a server.
#[tokio::test(flavor = "multi_thread")]
async fn services_say_where_disks_are() {
    const SERVICE: &str = "service@p1";
    let (cloud, shelf) = cloud(options()).await;
    shelf.disks.lock().unwrap().insert("server-1".into(), b"a server's disk".to_vec());
    let id = cloud.image("raw").await;
    let path = format!("/v2/images/{id}/locations");
    let body = |url: &str| json!({"url": url});
    let url = "rbd://c1/vms/server-1/snap";
    assert_eq!(cloud.call(OWNER, "POST", &path, body(url)).await.status, 403);
    for bad in ["rbd://c2/vms/server-1/snap", "rbd://c1/vms/server-1", "file:///etc/passwd"] {
        assert_eq!(cloud.call(SERVICE, "POST", &path, body(bad)).await.status, 403, "{bad}");
    }
    let added = cloud.call(SERVICE, "POST", &path, body(url)).await;
    assert_eq!(added.status, 202, "{}", said(&added));
    assert_eq!(cloud.task(&id).await["status"], "success");
    let shown = cloud.show(&id).await;
    assert_eq!((&shown["status"], &shown["size"]), (&json!("active"), &json!(15)));
    assert_eq!(cloud.get(OWNER, &format!("/v2/images/{id}/file")).await.text(), "a server's disk");
    assert_eq!(delete(&cloud, &id).await.status, 204);
    assert!(shelf.disk("server-1").is_err(), "it goes with the image");
}
