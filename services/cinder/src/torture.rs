//! Every flow through everything that may happen to it: steps fail, run twice, lose their answer, the process is
//! killed. Afterwards the operation has ended or is undone, and nothing is left over.

use crate::{Cinder, Options, Peers, TABLES, backups, model::*, moves, requests, store};
use async_trait::async_trait;
use base::{Clock, Context, Error, Result, Timestamp, id};
use bus::{Bus, Serving};
use contracts::{
    agents::volume::VolumeReports,
    compute::ImageSink,
    fakes::volume::FakeVolumeAgent,
    images::{Image, ImageMaker, Images, NewImage},
    servers::{ExternalEvent, Servers},
};
use db::{Filter, List, testing::TestDb};
use flow::{
    Flows,
    torture::{Ordeal, World, torture},
};
use parking_lot::Mutex;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Glance: images by id, and whether they have their bytes.
#[derive(Default)]
struct Outside(Mutex<BTreeMap<String, bool>>);

#[async_trait]
impl Images for Outside {
    async fn show(&self, _cx: &Context, image_id: &str) -> Result<Image> {
        Err(Error::not_found(image_id))
    }
}

#[async_trait]
impl ImageMaker for Outside {
    async fn create(&self, _cx: &Context, image: &NewImage) -> Result<()> {
        self.0.lock().entry(image.id.clone()).or_insert(false);
        Ok(())
    }

    async fn discard(&self, _cx: &Context, image_id: &str) -> Result<()> {
        self.0.lock().retain(|id, whole| id != image_id || *whole);
        Ok(())
    }
}

#[async_trait]
impl ImageSink for Outside {
    async fn upload(
        &self,
        _cx: &Context,
        image_id: &str,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        assert_eq!(from.read(&mut [1; 16]).await?, 16, "there are bytes");
        let mut images = self.0.lock();
        *images.get_mut(image_id).ok_or_else(|| Error::not_found(image_id))? = true;
        Ok(())
    }
}

/// Nova: the servers that were told of a volume that has grown.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

#[async_trait]
impl Servers for Told {
    async fn external_event(&self, _cx: &Context, event: &ExternalEvent) -> Result<()> {
        assert_eq!(event.name, "volume-extended");
        self.0.lock().push(event.server_id.clone());
        Ok(())
    }

    async fn attachment(&self, _: &Context, _: &str, _: &str) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Cinder, its agent and a back end, with a volume that is ready.
struct Base {
    database: TestDb,
    bus: Bus,
    clock: Clock,
    fake: FakeVolumeAgent,
    /// A second back end, which cinder knows of when a case says so.
    other: FakeVolumeAgent,
    cinder: Arc<Cinder>,
    outside: Arc<Outside>,
    told: Arc<Told>,
    _agents: [Serving; 2],
    _serving: Serving,
    cx: Context,
    volume: String,
}

const SIZE: i64 = 2;

impl Base {
    async fn new() -> Self {
        let database = db::testing::sqlite(TABLES, &[]).await.unwrap();
        let bus = Bus::local();
        let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30Z").unwrap());
        let (outside, told) = (Arc::new(Outside::default()), Arc::new(Told::default()));
        let fake = FakeVolumeAgent::new("h1@files").uploads_to(outside.clone());
        let other = FakeVolumeAgent::new("h1@other");
        let _agents = [fake.serve(&bus).await.unwrap(), other.serve(&bus).await.unwrap()];
        let (cinder, _serving) = start(&database, &bus, &clock, &outside, &told).await;
        let cx = Context { project_id: "p".into(), user_id: "u".into(), ..Context::default() };
        let volume = id::uuid();
        let base =
            Self { database, bus, clock, fake, other, cinder, outside, told, _agents, _serving, cx, volume };
        base.cinder.back_end_reported(&base.cx, &base.fake.back_end()).await.unwrap();
        base.create(&base.volume).await;
        base.cinder.flows.settled().await;
        base
    }

    async fn create(&self, id: &str) {
        let wanted = requests::Wanted { id: id.into(), size: Some(SIZE), ..requests::Wanted::default() };
        let (cinder, cx) = (self.cinder.clone(), self.cx.clone());
        self.cinder.write(move |tx| requests::create(&cinder, tx, &cx, &wanted)).await.unwrap();
    }

    async fn restart(&mut self) {
        (self.cinder, self._serving) =
            start(&self.database, &self.bus, &self.clock, &self.outside, &self.told).await;
    }

    async fn find(&self, id: &str) -> Option<Volume> {
        let id = id.to_string();
        self.cinder.read(move |tx| tx.find::<Volume>(&id)).await.unwrap()
    }

    async fn reserved(&self) -> String {
        let (cinder, volume, id) = (self.cinder.clone(), self.volume.clone(), id::uuid());
        let attachment = id.clone();
        self.cinder
            .write(move |tx| {
                requests::reserve(&cinder, tx, &volume, &attachment, Some("s"), "null").map(drop)
            })
            .await
            .unwrap();
        id
    }

    async fn connect(&self, attachment_id: &str) {
        let (cinder, cx, id) = (self.cinder.clone(), self.cx.clone(), attachment_id.to_string());
        let connector = json!({"host": "h1", "mountpoint": "/dev/vdb"});
        self.cinder
            .write(move |tx| requests::connect(&cinder, tx, &cx, &id, &connector).map(drop))
            .await
            .unwrap();
    }

    async fn attachment(&self, id: &str) -> Option<Attachment> {
        let id = id.to_string();
        self.cinder.read(move |tx| tx.find::<Attachment>(&id)).await.unwrap()
    }

    async fn told(&self) -> i64 {
        self.cinder.read(|tx| tx.count::<Message>(&[])).await.unwrap()
    }

    async fn used(&self) -> store::Usage {
        let used = self.cinder.read(|tx| store::usage_by_type(tx, "p")).await.unwrap();
        used.into_values().next().unwrap_or_default()
    }
}

async fn start(
    database: &TestDb,
    bus: &Bus,
    clock: &Clock,
    outside: &Arc<Outside>,
    told: &Arc<Told>,
) -> (Arc<Cinder>, Serving) {
    let options = Options { retry_pause_milliseconds: 1, ..Options::default() };
    let peers = Peers { images: outside.clone(), image_maker: outside.clone() };
    let cinder = Cinder::new(database.db.clone(), clock.clone(), options, bus.clone(), peers);
    let servers: Arc<dyn Servers> = told.clone();
    cinder.tells(Arc::downgrade(&servers));
    let serving = cinder.start().await.unwrap();
    (cinder, serving)
}

/// One operation: what comes before it, itself, and what must be true afterwards. The text is the id of what it is
/// about.
#[async_trait]
trait Case: Send + 'static {
    async fn build(_base: &Base) -> String {
        String::new()
    }

    async fn start(base: &Base, id: &mut String);

    async fn check(base: &Base, id: &str, fails: bool);
}

struct Played<C> {
    base: Base,
    id: String,
    _case: std::marker::PhantomData<C>,
}

#[async_trait]
impl<C: Case> World for Played<C> {
    async fn build() -> Self {
        let base = Base::new().await;
        let id = C::build(&base).await;
        Self { base, id, _case: std::marker::PhantomData }
    }

    fn flows(&self) -> &Flows {
        &self.base.cinder.flows
    }

    async fn start(&mut self) {
        C::start(&self.base, &mut self.id).await;
    }

    async fn restart(&mut self) {
        self.base.restart().await;
    }

    async fn check(&mut self, ordeal: &Ordeal) {
        C::check(&self.base, &self.id, ordeal.fails()).await;
    }
}

struct Creating;

#[async_trait]
impl Case for Creating {
    async fn build(_base: &Base) -> String {
        id::uuid()
    }

    async fn start(base: &Base, id: &mut String) {
        base.create(id).await
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let volume = base.find(id).await.unwrap();
        if fails {
            assert_eq!((volume.status, volume.host), (VolumeStatus::Error, None));
            assert!(!base.fake.volumes().contains_key(id), "left on the back end");
            assert_eq!(base.told().await, 1);
        } else {
            assert_eq!(volume.status, VolumeStatus::Available);
            assert_eq!(base.fake.volumes().get(id), Some(&(2 << 30)));
            assert_eq!(base.told().await, 0);
        }
        assert_eq!(base.used().await.volumes, 2, "what failed counts until it is deleted");
    }
}

struct Deleting;

#[async_trait]
impl Case for Deleting {
    async fn start(base: &Base, _id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), base.volume.clone());
        base.cinder.write(move |tx| requests::delete(&cinder, tx, &cx, &id, false, false)).await.unwrap();
    }

    async fn check(base: &Base, _id: &str, fails: bool) {
        let volume = base.find(&base.volume).await;
        if fails {
            assert_eq!(volume.unwrap().status, VolumeStatus::ErrorDeleting);
        } else {
            assert!(volume.is_none() && base.fake.volumes().is_empty());
            assert_eq!(base.used().await, store::Usage::default());
        }
    }
}

struct Extending;

#[async_trait]
impl Case for Extending {
    async fn start(base: &Base, _id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), base.volume.clone());
        base.cinder.write(move |tx| requests::extend(&cinder, tx, &cx, &id, 5, false)).await.unwrap();
    }

    async fn check(base: &Base, _id: &str, fails: bool) {
        let volume = base.find(&base.volume).await.unwrap();
        // It may fail when it has grown, too: that stays.
        let (status, size) = match volume.size == 5 {
            false => (VolumeStatus::ErrorExtending, SIZE),
            true => (VolumeStatus::Available, 5),
        };
        assert!(fails || size == 5);
        assert_eq!((volume.status, volume.size, volume.wanted_size), (status, size, 0));
        assert_eq!(base.used().await.gigabytes, size);
    }
}

/// While a server has it, which is told.
struct Reimaging;

#[async_trait]
impl Case for Reimaging {
    async fn start(base: &Base, _id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), base.volume.clone());
        let image = Image {
            id: "image".into(),
            status: "active".into(),
            disk_format: "raw".into(),
            container_format: "bare".into(),
            ..Image::default()
        };
        base.cinder.write(move |tx| requests::reimage(&cinder, tx, &cx, &id, &image, false)).await.unwrap();
    }

    async fn check(base: &Base, _id: &str, fails: bool) {
        let volume = base.find(&base.volume).await.unwrap();
        let disks: Vec<String> = base.fake.volumes().into_keys().collect();
        match volume.status {
            VolumeStatus::Available => {
                assert_eq!(disks, std::slice::from_ref(&base.volume));
                assert!(volume.bootable && volume.image_metadata.0["image_id"] == "image");
            }
            // What was half written is nowhere; the old disk may have made room already.
            status => {
                assert!(fails && status == VolumeStatus::Error, "{status}");
                assert!(disks.iter().all(|disk| *disk == base.volume), "{disks:?}");
            }
        }
    }
}

struct ExtendingAttached;

#[async_trait]
impl Case for ExtendingAttached {
    async fn build(base: &Base) -> String {
        Disconnecting::build(base).await
    }

    async fn start(base: &Base, _id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), base.volume.clone());
        base.cinder.write(move |tx| requests::extend(&cinder, tx, &cx, &id, 5, true)).await.unwrap();
    }

    async fn check(base: &Base, _id: &str, fails: bool) {
        let volume = base.find(&base.volume).await.unwrap();
        let told = base.told.0.lock().clone();
        // It may fail when it has grown, too: that stays.
        let grown = volume.size == 5;
        let status = if grown { VolumeStatus::InUse } else { VolumeStatus::ErrorExtending };
        assert_eq!((volume.status, volume.wanted_size), (status, 0));
        assert_eq!(base.used().await.gigabytes, volume.size);
        if !fails {
            assert!(grown && !told.is_empty() && told.iter().all(|server| server == "s"));
            assert_eq!(base.fake.volumes()[&base.volume], 5 << 30);
        }
    }
}

/// An image of the volume: there with its bytes, or not at all.
struct Uploading;

#[async_trait]
impl Case for Uploading {
    async fn build(_base: &Base) -> String {
        id::uuid()
    }

    async fn start(base: &Base, id: &mut String) {
        let image = NewImage { id: id.clone(), disk_format: "raw".into(), ..NewImage::default() };
        let (cinder, cx, volume) = (base.cinder.clone(), base.cx.clone(), base.volume.clone());
        base.cinder
            .write(move |tx| requests::upload(&cinder, tx, &cx, &volume, &image, false).map(drop))
            .await
            .unwrap();
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let volume = base.find(&base.volume).await.unwrap();
        assert_eq!((volume.status, volume.previous_status), (VolumeStatus::Available, None));
        let whole = base.outside.0.lock().get(id).copied();
        match fails {
            true => assert!(whole != Some(false) && base.told().await == 1, "an image without bytes is left"),
            false => assert_eq!(whole, Some(true)),
        }
    }
}

/// A disk that somebody left on the back end becomes a volume.
struct Managing;

const LEFT: &str = "0e8a7f6c-0000-4000-8000-00000000000f";

#[async_trait]
impl Case for Managing {
    async fn build(base: &Base) -> String {
        base.fake.leave(LEFT, (3 << 30) - 512);
        id::uuid()
    }

    async fn start(base: &Base, id: &mut String) {
        let wanted = requests::WantedDisk {
            id: id.clone(),
            host: "h1@files".into(),
            source: Some(format!("volume-{LEFT}")),
            ..requests::WantedDisk::default()
        };
        let (cinder, cx) = (base.cinder.clone(), base.cx.clone());
        base.cinder.write(move |tx| requests::manage(&cinder, tx, &cx, &wanted)).await.unwrap();
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let volume = base.find(id).await.unwrap();
        let disks = base.fake.volumes();
        if fails {
            assert_eq!((volume.status, volume.size), (VolumeStatus::ErrorManaging, 0));
            assert!(disks.contains_key(LEFT) && !disks.contains_key(id), "it is where it was");
        } else {
            assert_eq!((volume.status, volume.size), (VolumeStatus::Available, 3));
            assert_eq!((disks.get(id), disks.contains_key(LEFT)), (Some(&(3 << 30)), false));
        }
    }
}

/// A volume leaves, its disk stays.
struct Unmanaging;

#[async_trait]
impl Case for Unmanaging {
    async fn start(base: &Base, _id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), base.volume.clone());
        base.cinder.write(move |tx| requests::unmanage(&cinder, tx, &cx, &id)).await.unwrap();
    }

    async fn check(base: &Base, _id: &str, fails: bool) {
        let status = base.find(&base.volume).await.map(|volume| volume.status);
        assert_eq!(status, fails.then_some(VolumeStatus::ErrorDeleting));
        assert!(base.fake.volumes().contains_key(&base.volume));
    }
}

/// To another back end: the volume is on one of them, and on one alone.
struct Migrating;

#[async_trait]
impl Case for Migrating {
    async fn build(base: &Base) -> String {
        base.cinder.back_end_reported(&base.cx, &base.other.back_end()).await.unwrap();
        String::new()
    }

    async fn start(base: &Base, _id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), base.volume.clone());
        let to = "h1@other#other".to_string();
        base.cinder
            .write(move |tx| {
                let volume = store::volume(tx, &id)?;
                moves::begin(&cinder, tx, &cx, &volume, to.clone(), None)
            })
            .await
            .unwrap();
    }

    async fn check(base: &Base, _id: &str, fails: bool) {
        let volume = base.find(&base.volume).await.unwrap();
        assert_eq!((volume.status, volume.previous_status), (VolumeStatus::Available, None));
        let moved = volume.host.as_deref() == Some("h1@other#other");
        let (here, there) = (base.fake.volumes().len(), base.other.volumes().len());
        let migrated = volume.migration_status.as_deref();
        match moved {
            // What fails after that is the removal of the old disk.
            true => assert_eq!((migrated, here <= usize::from(fails), there), (Some("success"), true, 1)),
            false => assert_eq!((migrated, fails, here, there), (Some("error"), true, 1, 0)),
        }
        assert!(base.fake.exports().is_empty());
    }
}

struct BackingUp;

#[async_trait]
impl Case for BackingUp {
    async fn start(base: &Base, id: &mut String) {
        let wanted = backups::Wanted { volume_id: base.volume.clone(), ..Default::default() };
        let (cinder, cx) = (base.cinder.clone(), base.cx.clone());
        let made = base.cinder.write(move |tx| backups::create(&cinder, tx, &cx, &wanted)).await;
        *id = made.unwrap().id;
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let found = id.to_string();
        let backup = base.cinder.read(move |tx| tx.find::<Backup>(&found)).await.unwrap().unwrap();
        let (wanted, at) = if fails { (BackupStatus::Error, 0) } else { (BackupStatus::Available, 1) };
        assert_eq!((backup.status, base.fake.backups().len()), (wanted, at));
        assert_eq!(backup.fail_reason.is_some(), fails);
        let volume = base.find(&base.volume).await.unwrap();
        assert_eq!((volume.status, volume.previous_status), (VolumeStatus::Available, None));
    }
}

/// A backup that is there, for what follows.
async fn backed_up(base: &Base) -> String {
    let mut id = String::new();
    BackingUp::start(base, &mut id).await;
    base.cinder.flows.settled().await;
    id
}

struct DeletingBackup;

#[async_trait]
impl Case for DeletingBackup {
    async fn build(base: &Base) -> String {
        backed_up(base).await
    }

    async fn start(base: &Base, id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), id.clone());
        base.cinder.write(move |tx| backups::delete(&cinder, tx, &cx, &id, false)).await.unwrap();
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let found = id.to_string();
        let backup = base.cinder.read(move |tx| tx.find::<Backup>(&found)).await.unwrap();
        assert_eq!(backup.map(|one| one.status), fails.then_some(BackupStatus::ErrorDeleting));
        assert!(fails || base.fake.backups().is_empty());
    }
}

struct Restoring;

#[async_trait]
impl Case for Restoring {
    async fn build(base: &Base) -> String {
        backed_up(base).await
    }

    async fn start(base: &Base, id: &mut String) {
        let (cinder, cx, id, onto) = (base.cinder.clone(), base.cx.clone(), id.clone(), base.volume.clone());
        base.cinder
            .write(move |tx| backups::restore(&cinder, tx, &cx, &id, Some(&onto), None).map(drop))
            .await
            .unwrap();
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let found = id.to_string();
        let backup = base.cinder.read(move |tx| tx.find::<Backup>(&found)).await.unwrap().unwrap();
        let volume = base.find(&base.volume).await.unwrap();
        let status = if fails { VolumeStatus::ErrorRestoring } else { VolumeStatus::Available };
        assert_eq!((backup.status, volume.status), (BackupStatus::Available, status));
    }
}

struct Snapshotting;

#[async_trait]
impl Case for Snapshotting {
    async fn start(base: &Base, id: &mut String) {
        let wanted = requests::WantedSnapshot { volume_id: base.volume.clone(), ..Default::default() };
        let (cinder, cx) = (base.cinder.clone(), base.cx.clone());
        let made = base.cinder.write(move |tx| requests::create_snapshot(&cinder, tx, &cx, &wanted)).await;
        *id = made.unwrap().id;
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let (wanted, at) = match fails {
            true => (SnapshotStatus::Error, 0),
            false => (SnapshotStatus::Available, 1),
        };
        let found = id.to_string();
        let snapshot = base.cinder.read(move |tx| store::snapshot(tx, &found)).await.unwrap();
        assert_eq!((snapshot.status, base.fake.snapshots().len()), (wanted, at));
        assert_eq!(base.find(&base.volume).await.unwrap().status, VolumeStatus::Available);
    }
}

struct Connecting;

#[async_trait]
impl Case for Connecting {
    async fn build(base: &Base) -> String {
        base.reserved().await
    }

    async fn start(base: &Base, id: &mut String) {
        base.connect(id).await;
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let attached = base.attachment(id).await.unwrap();
        let volume = base.find(&base.volume).await.unwrap();
        if fails {
            assert_eq!(
                (attached.attach_status, volume.status),
                (AttachStatus::Reserved, VolumeStatus::Reserved)
            );
            assert!(attached.connection.is_none() && base.fake.exports().is_empty());
        } else {
            assert_eq!(
                (attached.attach_status, volume.status),
                (AttachStatus::Attaching, VolumeStatus::Attaching)
            );
            assert!(attached.connection.is_some() && base.fake.exports().contains_key(&base.volume));
        }
    }
}

struct Disconnecting;

#[async_trait]
impl Case for Disconnecting {
    async fn build(base: &Base) -> String {
        let attachment = base.reserved().await;
        base.connect(&attachment).await;
        base.cinder.flows.settled().await;
        let (cinder, id) = (base.cinder.clone(), attachment.clone());
        base.cinder.write(move |tx| requests::complete(&cinder, tx, &id)).await.unwrap();
        attachment
    }

    async fn start(base: &Base, id: &mut String) {
        let (cinder, cx, id) = (base.cinder.clone(), base.cx.clone(), id.clone());
        base.cinder
            .write(move |tx| requests::disconnect(&cinder, tx, &cx, &id, false).map(drop))
            .await
            .unwrap();
    }

    async fn check(base: &Base, id: &str, fails: bool) {
        let attached = base.attachment(id).await;
        let volume = base.find(&base.volume).await.unwrap();
        if fails {
            assert_eq!(attached.unwrap().attach_status, AttachStatus::ErrorDetaching);
        } else {
            assert!(attached.is_none() && base.fake.exports().is_empty());
            assert_eq!(
                (volume.status, volume.attach_status),
                (VolumeStatus::Available, AttachStatus::Detached)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating() {
    assert!(torture::<Played<Creating>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting() {
    assert!(torture::<Played<Deleting>>().await > 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn extending() {
    assert!(torture::<Played<Extending>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn reimaging() {
    assert!(torture::<Played<Reimaging>>().await > 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn extending_attached() {
    assert!(torture::<Played<ExtendingAttached>>().await > 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploading() {
    assert!(torture::<Played<Uploading>>().await > 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn managing() {
    assert!(torture::<Played<Managing>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn unmanaging() {
    assert!(torture::<Played<Unmanaging>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating() {
    assert!(torture::<Played<Migrating>>().await > 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn backing_up() {
    assert!(torture::<Played<BackingUp>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_backup() {
    assert!(torture::<Played<DeletingBackup>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring() {
    assert!(torture::<Played<Restoring>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshotting() {
    assert!(torture::<Played<Snapshotting>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting() {
    assert!(torture::<Played<Connecting>>().await > 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnecting() {
    assert!(torture::<Played<Disconnecting>>().await > 6);
}

/// Nova gives a server up while its volume is still made: nothing of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_made_is_deleted() {
    use contracts::volumes::{NewVolume, Volumes};
    let base = Base::new().await;
    let wanted = NewVolume { id: id::uuid(), size_gb: 1, ..NewVolume::default() };
    let made = base.cinder.create(&base.cx, &wanted).await.unwrap();
    assert_eq!(made.status, "creating");
    base.cinder.delete_volume_for_test(&wanted.id, &base.cx).await;
    base.cinder.flows.settled().await;
    assert!(base.find(&wanted.id).await.is_none());
    assert_eq!(base.fake.volumes().len(), 1, "the other one");
}

impl Cinder {
    async fn delete_volume_for_test(&self, id: &str, cx: &Context) {
        contracts::volumes::Volumes::delete(self, cx, id).await.unwrap();
        // And again: gone is fine.
        contracts::volumes::Volumes::delete(self, cx, id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_understood() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        assert!(db::testing::prepare_all(&database.db, TABLES).await.unwrap() > 60);
        let none = database
            .db
            .read(|tx| tx.list::<Volume>(&List::all().filter(Filter::eq("id", "x"))))
            .await
            .unwrap();
        assert!(none.is_empty());
    }
}
