//! A toy operation under everything that can happen to it.

use async_trait::async_trait;
use base::{Clock, Context, Error, Result};
use db::{Resource, Tx, params, sql, testing};
use flow::{
    Effect, Flow, Flows, Options, Step, step,
    torture::{self, Ordeal, World},
    trail::{self, State, Told},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

#[derive(Clone, Debug, Resource)]
#[resource(table = "house")]
struct House {
    #[field(key)]
    id: String,
    status: String,
    fault: Option<String>,
}

/// The world outside: what has been bought and built, by id.
#[derive(Default)]
struct Outside {
    ground: Mutex<BTreeSet<String>>,
    walls: Mutex<BTreeSet<String>>,
    silent: AtomicU32,
    absent: AtomicU32,
    hangs: Mutex<Option<Arc<Notify>>>,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
}

#[derive(Clone, Serialize, Deserialize)]
struct Build {
    id: String,
    ground_id: String,
}

impl Flow for Build {
    const KIND: &'static str = "build";
    type Service = Outside;

    fn steps() -> &'static [Step<Self>] {
        const {
            &[
                step!(buy_ground, undo sell_ground),
                step!(put_up_walls, undo pull_down_walls).interruptible(),
                step!(hand_over),
            ]
        }
    }

    fn failed(&self, _: &Outside, tx: &mut Tx, _: &Context, error: &Error) -> Result<()> {
        let status = if flow::is_cancelled(error) { "CANCELLED" } else { "ERROR" };
        tx.execute(
            sql!("UPDATE house SET status = $2, fault = $3 WHERE id = $1"),
            params![self.id, status, error.message],
        )
        .map(drop)
    }
}

async fn buy_ground(outside: &Arc<Outside>, cx: &Context, flow: &mut Build) -> Result<Effect> {
    assert_eq!((cx.user_id.as_str(), cx.token.as_str()), ("u", ""));
    let now = outside.at_once.fetch_add(1, Ordering::SeqCst) + 1;
    outside.at_once_max.fetch_max(now, Ordering::SeqCst);
    tokio::task::yield_now().await;
    outside.ground.lock().insert(flow.ground_id.clone());
    outside.at_once.fetch_sub(1, Ordering::SeqCst);
    Ok(Effect::none())
}

async fn sell_ground(outside: &Arc<Outside>, _: &Context, flow: &mut Build) -> Result<Effect> {
    outside.ground.lock().remove(&flow.ground_id);
    Ok(Effect::none())
}

async fn put_up_walls(outside: &Arc<Outside>, _: &Context, flow: &mut Build) -> Result<Effect> {
    let hang = outside.hangs.lock().clone();
    if let Some(reached) = hang {
        reached.notify_one();
        std::future::pending::<()>().await;
    }
    if outside.silent.load(Ordering::SeqCst) > 0 {
        outside.silent.fetch_sub(1, Ordering::SeqCst);
        return Err(Error::timeout("no answer"));
    }
    if outside.absent.load(Ordering::SeqCst) > 0 {
        outside.absent.fetch_sub(1, Ordering::SeqCst);
        return Err(Error::unavailable("nobody there"));
    }
    outside.walls.lock().insert(flow.id.clone());
    let id = flow.id.clone();
    Ok(Effect::write(move |tx| set_status(tx, &id, "WALLS")))
}

async fn pull_down_walls(outside: &Arc<Outside>, _: &Context, flow: &mut Build) -> Result<Effect> {
    outside.walls.lock().remove(&flow.id);
    Ok(Effect::none())
}

async fn hand_over(_: &Arc<Outside>, _: &Context, flow: &mut Build) -> Result<Effect> {
    let id = flow.id.clone();
    Ok(Effect::write(move |tx| set_status(tx, &id, "ACTIVE")))
}

fn set_status(tx: &mut Tx, id: &str, status: &str) -> Result<()> {
    tx.execute(sql!("UPDATE house SET status = $2 WHERE id = $1"), params![id, status]).map(drop)
}

#[derive(Clone, Serialize, Deserialize)]
struct Demolish {
    id: String,
}

impl Flow for Demolish {
    const KIND: &'static str = "demolish";
    type Service = Outside;
    const CANCELLABLE: bool = false;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(demolish)] }
    }

    fn failed(&self, _: &Outside, _: &mut Tx, _: &Context, _: &Error) -> Result<()> {
        Ok(())
    }
}

async fn demolish(outside: &Arc<Outside>, _: &Context, flow: &mut Demolish) -> Result<Effect> {
    outside.walls.lock().remove(&flow.id);
    let id = flow.id.clone();
    Ok(Effect::write(move |tx| tx.remove::<House>(&id).map(drop)))
}

struct Town {
    test: testing::TestDb,
    outside: Arc<Outside>,
    flows: Flows,
}

fn options() -> Options {
    let absence_max = Duration::from_secs(1);
    Options { pause: Duration::from_millis(1), absence_max, ..Options::default() }
}

impl Town {
    async fn on(test: testing::TestDb) -> Self {
        let outside = Arc::new(Outside::default());
        let flows = open_flows(&test, &outside).await;
        Self { test, outside, flows }
    }

    async fn all() -> Vec<Self> {
        let tables = [&[House::TABLE], flow::TABLES].concat();
        let mut towns = Vec::new();
        for test in testing::all(&tables, &[]).await.unwrap() {
            towns.push(Self::on(test).await);
        }
        towns
    }

    async fn build_house(&self, id: &str) {
        let (flows, house) = (self.flows.clone(), id.to_string());
        let work = move |tx: &mut Tx| {
            tx.insert(&House { id: house.clone(), status: "BUILD".into(), fault: None })?;
            let flow = Build { id: house.clone(), ground_id: format!("g-{house}") };
            flows.start(tx, &cx(), &flow, &house).map(drop)
        };
        self.test.db.write(work).await.unwrap();
    }

    async fn demolish_house(&self, id: &str) {
        let (flows, id) = (self.flows.clone(), id.to_string());
        let work =
            move |tx: &mut Tx| flows.start_instead(tx, &cx(), &Demolish { id: id.clone() }, &id).map(drop);
        self.test.db.write(work).await.unwrap();
    }

    async fn house(&self, id: &str) -> Option<House> {
        let id = id.to_string();
        self.test.db.read(move |tx| tx.find::<House>(&id)).await.unwrap()
    }

    async fn flows_left(&self) -> i64 {
        let count = |tx: &mut Tx| tx.one(sql!("SELECT COUNT(*) FROM flow"), &[])?.unwrap().at(0);
        self.test.db.read(count).await.unwrap()
    }
}

async fn open_flows(test: &testing::TestDb, outside: &Arc<Outside>) -> Flows {
    let flows = Flows::new(test.db.clone(), Clock::real(), options());
    flows.register::<Build>(outside.clone());
    flows.register::<Demolish>(outside.clone());
    flows.resume().await.unwrap();
    flows
}

fn cx() -> Context {
    Context { user_id: "u".into(), token: "secret".into(), ..Context::default() }
}

#[async_trait]
impl World for Town {
    async fn build() -> Self {
        let tables = [&[House::TABLE], flow::TABLES].concat();
        Self::on(testing::sqlite(&tables, &[]).await.unwrap()).await
    }

    fn flows(&self) -> &Flows {
        &self.flows
    }

    async fn start(&mut self) {
        self.build_house("h").await;
    }

    async fn restart(&mut self) {
        self.flows = open_flows(&self.test, &self.outside).await;
    }

    async fn check(&mut self, ordeal: &Ordeal) {
        let house = self.house("h").await.unwrap();
        let (status, count) = if ordeal.fails() { ("ERROR", 0) } else { ("ACTIVE", 1) };
        assert_eq!(house.status, status, "{ordeal}");
        assert_eq!(house.fault.is_some(), ordeal.fails(), "{ordeal}");
        assert_eq!(self.outside.ground.lock().len(), count, "{ordeal}");
        assert_eq!(self.outside.walls.lock().len(), count, "{ordeal}");
        assert_eq!(self.flows_left().await, 0, "{ordeal}");
    }
}

#[tokio::test]
async fn whatever_happens_it_ends_or_is_undone() {
    let runs = torture::torture::<Town>().await;
    assert_eq!(runs, 1 + 3 * 6 + 2 * 5);
}

#[tokio::test]
async fn a_silent_world_is_asked_again_and_given_up_in_the_end() {
    for town in Town::all().await {
        town.outside.silent.store(2, Ordering::SeqCst);
        town.build_house("a").await;
        town.flows.settled().await;
        assert_eq!(town.house("a").await.unwrap().status, "ACTIVE");
        town.outside.silent.store(5, Ordering::SeqCst);
        town.build_house("b").await;
        town.flows.settled().await;
        let given_up = town.house("b").await.unwrap();
        assert_eq!((given_up.status.as_str(), given_up.fault.as_deref()), ("ERROR", Some("no answer")));
        assert_eq!(town.outside.ground.lock().len(), 1);
        town.flows.stop();
    }
}

#[tokio::test]
async fn a_delete_does_not_wait_for_a_build_that_hangs() {
    for town in Town::all().await {
        let reached = Arc::new(Notify::new());
        *town.outside.hangs.lock() = Some(reached.clone());
        town.build_house("a").await;
        reached.notified().await;
        town.demolish_house("a").await;
        town.flows.settled().await;
        assert!(town.house("a").await.is_none());
        assert!(town.outside.ground.lock().is_empty());
        assert_eq!(town.flows_left().await, 0);
        town.flows.stop();
    }
}

#[tokio::test]
async fn flows_of_one_subject_wait_for_each_other_even_through_a_restart() {
    for mut town in Town::all().await {
        let reached = Arc::new(Notify::new());
        *town.outside.hangs.lock() = Some(reached.clone());
        town.build_house("a").await;
        reached.notified().await;
        let (flows, again) = (town.flows.clone(), Build { id: "a".into(), ground_id: "second".into() });
        town.test.db.write(move |tx| flows.start(tx, &cx(), &again, "a").map(drop)).await.unwrap();
        assert_eq!(town.flows_left().await, 2);
        assert_eq!(town.outside.ground.lock().len(), 1, "the second has not begun");
        town.flows.stop();
        *town.outside.hangs.lock() = None;
        if town.test.db.is_postgres() {
            let expired = sql!("UPDATE flow_lease SET expires_at = 0");
            town.test.db.write(move |tx| tx.execute(expired, &[])).await.unwrap();
        }
        town.flows = open_flows(&town.test, &town.outside).await;
        town.flows.settled().await;
        assert_eq!(town.outside.ground.lock().len(), 2);
        assert_eq!(town.flows_left().await, 0);
        town.flows.stop();
    }
}

#[tokio::test]
async fn who_waits_hears_how_it_ended() {
    for town in Town::all().await {
        let start = |id: &'static str| {
            let flows = town.flows.clone();
            let work = move |tx: &mut Tx| {
                let flow = Build { id: id.into(), ground_id: id.into() };
                flows.start(tx, &cx(), &flow, "same")
            };
            town.test.db.write(work)
        };
        start("a").await.unwrap().wait().await.unwrap();
        town.outside.silent.store(5, Ordering::SeqCst);
        let (failing, second) = (start("b").await.unwrap(), start("c").await.unwrap());
        assert_eq!(failing.wait().await.unwrap_err().message, "no answer");
        second.wait().await.unwrap();
        town.flows.stop();
    }
}

#[tokio::test]
async fn what_is_rolled_back_does_not_begin() {
    for town in Town::all().await {
        let flows = town.flows.clone();
        let work = move |tx: &mut Tx| {
            flows.start(tx, &cx(), &Build { id: "a".into(), ground_id: "g".into() }, "a")?;
            Err::<(), _>(Error::over_quota("full"))
        };
        assert!(town.test.db.write(work).await.is_err());
        town.flows.settled().await;
        assert!(town.outside.ground.lock().is_empty());
        town.flows.stop();
    }
}

/// After a start the hosts' agents come up behind the services.
#[tokio::test]
async fn who_is_not_there_yet_is_waited_for() {
    for town in Town::all().await {
        town.outside.absent.store(8, Ordering::SeqCst);
        town.build_house("a").await;
        town.flows.settled().await;
        assert_eq!(town.house("a").await.unwrap().status, "ACTIVE", "more often than attempts_max");
        town.outside.absent.store(u32::MAX, Ordering::SeqCst);
        town.build_house("b").await;
        town.flows.settled().await;
        let given_up = town.house("b").await.unwrap();
        assert_eq!((given_up.status.as_str(), given_up.fault.as_deref()), ("ERROR", Some("nobody there")));
        town.flows.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_run_side_by_side() {
    for town in Town::all().await {
        let begun = futures::future::join_all((0..300).map(|n| {
            let town = &town;
            async move { town.build_house(&format!("h{n}")).await }
        }));
        begun.await;
        town.flows.settled().await;
        assert_eq!(town.outside.walls.lock().len(), 300);
        assert!(town.outside.at_once_max.load(Ordering::SeqCst) > 1);
        town.flows.stop();
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_run_at_their_time_until_stopped() {
    let town = Town::build().await;
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    town.flows.every("count", Duration::from_secs(60), move || {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        // One that fails is tried again at its time.
        async move { if n == 0 { Err(Error::unavailable("not yet")) } else { Ok(()) } }
    });
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
    town.flows.stop();
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn every_statement_is_understood_by_both_databases() {
    const TABLES: &[&db::Table] = &[House::TABLE, flow::TABLES[0], flow::TABLES[1], flow::TABLES[2]];
    for test in testing::all(TABLES, &[]).await.unwrap() {
        assert!(testing::prepare_all(&test.db, TABLES).await.unwrap() > 8);
    }
}

impl Town {
    async fn told(&self, id: &str) -> Vec<Told> {
        let (id, shared, now) = (id.to_string(), self.test.db.is_postgres(), Clock::real().now());
        self.test.db.read(move |tx| trail::find(tx, &id, now, shared)).await.unwrap()
    }
}

#[tokio::test]
async fn one_can_see_where_an_operation_is_and_how_it_ended() {
    for town in Town::all().await {
        assert!(town.told("a").await.is_empty());
        let reached = Arc::new(Notify::new());
        *town.outside.hangs.lock() = Some(reached.clone());
        town.build_house("a").await;
        reached.notified().await;
        let told = &town.told("a").await[0];
        assert_eq!(told.state, State::Runs { step: "put_up_walls".into() });
        assert_eq!((told.steps.len(), told.attempt, told.ended_at), (3, 1, None));
        // Of a step that takes long.
        while town.told("a").await[0].noted_at.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        *town.outside.hangs.lock() = None;
        // The next one of the house waits for its turn, and its wish ends the first.
        town.demolish_house("a").await;
        town.flows.settled().await;
        let told = town.told("a").await;
        assert_eq!(told[0].state, State::Failed { step: "put_up_walls".into() });
        assert_eq!((told[1].kind.as_str(), &told[1].state), ("demolish", &State::Done));
        assert!(told.iter().all(|told| told.ended_at.is_some()));

        town.outside.silent.store(5, Ordering::SeqCst);
        town.build_house("b").await;
        town.flows.settled().await;
        let told = &town.told("b").await[0];
        assert_eq!(told.state, State::Failed { step: "put_up_walls".into() });
        assert_eq!(told.error.as_deref(), Some("no answer"));
        assert!(town.told("nobody").await.is_empty());
    }
}
