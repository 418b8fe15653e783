//! Every flow through everything that may happen to it: steps fail, run twice, lose their answer, the process is
//! killed. Afterwards the operation has ended or is undone, and nothing is left over.

use crate::{Cinder, Options, Peers, TABLES, model::*, requests, store};
use async_trait::async_trait;
use base::{Clock, Context, Error, Result, Timestamp, id};
use bus::{Bus, Serving};
use cinder_volume::Agent;
use contracts::{
    agents::volume::VolumeReports,
    images::{Image, Images},
};
use db::{Filter, List, testing::TestDb};
use flow::{
    Flows,
    torture::{Ordeal, World, torture},
};
use host_block::Fake;
use serde_json::json;
use std::sync::Arc;

struct NoImages;

#[async_trait]
impl Images for NoImages {
    async fn show(&self, _cx: &Context, image_id: &str) -> Result<Image> {
        Err(Error::not_found(image_id))
    }
}

/// Cinder, its agent and a back end, with a volume that is ready.
struct Base {
    database: TestDb,
    bus: Bus,
    clock: Clock,
    fake: Fake,
    agent: Arc<Agent>,
    cinder: Arc<Cinder>,
    _agent_serving: Serving,
    _serving: Serving,
    cx: Context,
    volume: String,
}

const SIZE: i64 = 2;

impl Base {
    async fn new() -> Self {
        let database = db::testing::sqlite(TABLES, &[]).await.unwrap();
        let (bus, fake) = (Bus::local(), Fake::default());
        let clock = Clock::test(Timestamp::parse("2026-11-20T08:15:30Z").unwrap());
        let options = cinder_volume::Options { host: "h1".into(), ..cinder_volume::Options::default() };
        let agent = cinder_volume::simulated(options, fake.clone());
        let _agent_serving = cinder_volume::serve(&bus, agent.clone()).await.unwrap();
        let (cinder, _serving) = start(&database, &bus, &clock).await;
        let cx = Context { project_id: "p".into(), user_id: "u".into(), ..Context::default() };
        let volume = id::uuid();
        let base = Self { database, bus, clock, fake, agent, cinder, _agent_serving, _serving, cx, volume };
        base.cinder.back_end_reported(&base.cx, &base.agent.back_end().await.unwrap()).await.unwrap();
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
        (self.cinder, self._serving) = start(&self.database, &self.bus, &self.clock).await;
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

async fn start(database: &TestDb, bus: &Bus, clock: &Clock) -> (Arc<Cinder>, Serving) {
    let options = Options { retry_pause_milliseconds: 1, ..Options::default() };
    let peers = Peers { images: Arc::new(NoImages) };
    let cinder = Cinder::new(database.db.clone(), clock.clone(), options, bus.clone(), peers);
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
        base.cinder.write(move |tx| requests::extend(&cinder, tx, &cx, &id, 5)).await.unwrap();
    }

    async fn check(base: &Base, _id: &str, fails: bool) {
        let volume = base.find(&base.volume).await.unwrap();
        let (status, size) = match fails {
            true => (VolumeStatus::ErrorExtending, SIZE),
            false => (VolumeStatus::Available, 5),
        };
        assert_eq!((volume.status, volume.size, volume.wanted_size), (status, size, 0));
        assert_eq!(base.used().await.gigabytes, size);
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
            assert!(attached.connection.is_some() && base.fake.exports().contains(&base.volume));
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
        base.cinder.write(move |tx| requests::disconnect(&cinder, tx, &cx, &id).map(drop)).await.unwrap();
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
    assert!(torture::<Played<Creating>>().await > 12);
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
