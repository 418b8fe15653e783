//! Cinder over its HTTP surface, with its agent on a fake back end and people who need no keystone.

use async_trait::async_trait;
use base::{Clock, Context, Error, Json, Result, Timestamp, id};
use bus::{Bus, Serving};
use cinder::{Cinder, Options, Peers, TABLES};
use contracts::{
    agents::volume::VolumeReports,
    compute::ImageSink,
    fakes::volume::FakeVolumeAgent,
    images::{Image, ImageMaker, Images, NewImage},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::io::AsyncRead;
pub use web::testing::{Answer, OTHER, PROJECT};
use web::testing::{People, Surface};

/// An id that nothing has.
pub const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
pub const IMAGE: &str = "0e8a7f6c-0000-4000-8000-0000000000aa";

/// One image, a gigabyte at least, and those that cinder makes: with what it is, and how many bytes it got.
#[derive(Default)]
pub struct OneImage {
    pub made: Mutex<BTreeMap<String, (NewImage, Option<u64>)>>,
}

#[async_trait]
impl ImageMaker for OneImage {
    async fn create(&self, _cx: &Context, image: &NewImage) -> Result<()> {
        self.made.lock().entry(image.id.clone()).or_insert_with(|| (image.clone(), None));
        Ok(())
    }

    async fn discard(&self, _cx: &Context, image_id: &str) -> Result<()> {
        self.made.lock().remove(image_id);
        Ok(())
    }
}

#[async_trait]
impl ImageSink for OneImage {
    async fn upload(
        &self,
        _cx: &Context,
        image_id: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        let count = tokio::io::copy(from, &mut tokio::io::sink()).await?;
        let mut made = self.made.lock();
        made.get_mut(image_id).ok_or_else(|| Error::not_found(image_id))?.1 = Some(count);
        Ok(())
    }
}

#[async_trait]
impl Images for OneImage {
    async fn show(&self, _cx: &Context, image_id: &str) -> Result<Image> {
        match image_id {
            IMAGE => Ok(Image {
                id: IMAGE.into(),
                name: "cirros".into(),
                status: "active".into(),
                disk_format: "qcow2".into(),
                container_format: "bare".into(),
                size_bytes: 20 << 20,
                virtual_size_bytes: Some(2 << 30),
                properties: BTreeMap::from([("hw_disk_bus".to_string(), "virtio".to_string())]),
                ..Image::default()
            }),
            other => match self.made.lock().get(other) {
                Some((image, _)) => Ok(Image { id: image.id.clone(), ..Image::default() }),
                None => Err(Error::not_found(format!("No image found with ID {other}"))),
            },
        }
    }
}

pub struct Cloud {
    pub cinder: Arc<Cinder>,
    pub fake: FakeVolumeAgent,
    pub clock: Clock,
    pub bus: Bus,
    pub images: Arc<OneImage>,
    pub surface: Surface,
    _servings: Vec<Serving>,
    _database: db::testing::TestDb,
}

/// A back end without anything.
pub fn fake() -> FakeVolumeAgent {
    FakeVolumeAgent::new("h1@files")
}

pub fn options() -> Options {
    Options { retry_pause_milliseconds: 1, ..Options::default() }
}

impl Cloud {
    pub async fn new() -> Self {
        Self::with(options(), fake(), db::testing::sqlite(TABLES, &[]).await.unwrap()).await
    }

    pub async fn with(options: Options, fake: FakeVolumeAgent, database: db::testing::TestDb) -> Self {
        let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30.5Z").unwrap());
        let bus = Bus::local_twice();
        let images = Arc::new(OneImage::default());
        let peers = Peers { images: images.clone(), image_maker: images.clone() };
        let cinder = Cinder::new(database.db.clone(), clock.clone(), options, bus.clone(), peers);
        let fake = fake.uploads_to(images.clone());
        let servings = vec![cinder.start().await.unwrap(), fake.serve(&bus).await.unwrap()];
        let surface = Surface::new(cinder.service(None, Arc::new(People), "http://k").unwrap(), "c:8776");
        let cloud =
            Self { cinder, fake, clock, bus, images, surface, _servings: servings, _database: database };
        cloud.report().await;
        cloud
    }

    /// The back end's sign of life.
    pub async fn report(&self) {
        self.cinder.back_end_reported(&Context::internal(), &self.fake.back_end()).await.unwrap();
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Option<Json>>,
    ) -> Answer {
        self.surface.ask(method, path, headers, body).await
    }

    /// At the newest version.
    pub async fn call(&self, token: &str, method: &str, path: &str, body: impl Into<Option<Json>>) -> Answer {
        let headers = [("x-auth-token", token), ("openstack-api-version", "volume 3.71")];
        self.ask(method, path, &headers, body).await
    }

    pub async fn get(&self, path: &str) -> Json {
        let answer = self.call("member", "GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    pub async fn post(&self, path: &str, body: Json) -> Answer {
        self.call("member", "POST", path, Some(body)).await
    }

    /// The back end fails at what it is asked next; the bus asks twice.
    pub fn refuse(&self, why: &str) {
        (0..2).for_each(|_| self.fake.refuse(Error::conflict(why)));
    }

    /// A volume that is ready.
    pub async fn volume(&self, body: Json) -> String {
        let answer = self.post("/v3/volumes", serde_json::json!({"volume": body})).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.cinder.settled().await;
        let id = answer.body["volume"]["id"].as_str().unwrap().to_string();
        assert_eq!(self.status(&id).await, "available");
        id
    }

    pub async fn status(&self, volume_id: &str) -> String {
        let body = self.get(&format!("/v3/volumes/{volume_id}")).await;
        body["volume"]["status"].as_str().unwrap().to_string()
    }

    /// An attachment that a server has.
    pub async fn attached(&self, volume_id: &str) -> String {
        let attachment = serde_json::json!({"volume_uuid": volume_id, "instance_uuid": id::uuid()});
        let answer = self.post("/v3/attachments", serde_json::json!({"attachment": attachment})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let id = answer.body["attachment"]["id"].as_str().unwrap().to_string();
        let path = format!("/v3/attachments/{id}");
        let connector = serde_json::json!({"host": "h1", "ip": "127.0.0.1", "mountpoint": "/dev/vdb"});
        let update = serde_json::json!({"attachment": {"connector": connector}});
        let answer = self.call("member", "PUT", &path, Some(update)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let done = self.post(&format!("{path}/action"), serde_json::json!({"os-complete": null})).await;
        assert_eq!(done.status, 204, "{}", done.body);
        id
    }
}
