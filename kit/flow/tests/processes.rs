//! Several processes on one PostgreSQL database: who has which flow, and what becomes of it when its owner dies.

use base::{Clock, Context, Error, ErrorKind, Result};
use db::{Db, Resource, Tx, params, sql, testing};
use flow::{Effect, Flow, Flows, Options, Step, step};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

#[derive(Clone, Debug, Resource)]
#[resource(table = "letter")]
struct Letter {
    #[field(key)]
    id: String,
    status: String,
}

/// Which process has done which step of which letter: letter, step, process.
type Done = Arc<Mutex<Vec<(String, &'static str, &'static str)>>>;

/// One process's view of the world outside, which all share.
struct Post {
    process: &'static str,
    done: Done,
    /// Steps of this process go on by it.
    gate: Semaphore,
}

impl Post {
    fn note(&self, id: &str, step: &'static str) {
        self.done.lock().unwrap().push((id.into(), step, self.process));
    }

    fn done_by(&self, id: &str, step: &str) -> Vec<&'static str> {
        let done = self.done.lock().unwrap();
        done.iter().filter(|(of, what, _)| of == id && *what == step).map(|(.., who)| *who).collect()
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Deliver {
    id: String,
}

impl Flow for Deliver {
    const KIND: &'static str = "deliver";
    type Service = Post;

    fn steps() -> &'static [Step<Self>] {
        const { &[step!(stamp), step!(carry).interruptible(), step!(hand_over)] }
    }

    fn failed(&self, _: &Post, tx: &mut Tx, _: &Context, error: &Error) -> Result<()> {
        let status = if flow::is_cancelled(error) { "CANCELLED" } else { "ERROR" };
        set_status(tx, &self.id, status)
    }
}

async fn stamp(post: &Arc<Post>, _: &Context, flow: &mut Deliver) -> Result<Effect> {
    post.note(&flow.id, "stamp");
    Ok(Effect::none())
}

async fn carry(post: &Arc<Post>, _: &Context, flow: &mut Deliver) -> Result<Effect> {
    post.note(&flow.id, "carry");
    post.gate.acquire().await.unwrap().forget();
    let id = flow.id.clone();
    Ok(Effect::write(move |tx| set_status(tx, &id, "CARRIED")))
}

async fn hand_over(post: &Arc<Post>, _: &Context, flow: &mut Deliver) -> Result<Effect> {
    post.note(&flow.id, "hand_over");
    let id = flow.id.clone();
    Ok(Effect::write(move |tx| set_status(tx, &id, "DELIVERED")))
}

fn set_status(tx: &mut Tx, id: &str, status: &str) -> Result<()> {
    tx.execute(sql!("UPDATE letter SET status = $2 WHERE id = $1"), params![id, status]).map(drop)
}

const OPEN: usize = 1_000;

struct Process {
    db: Db,
    post: Arc<Post>,
    flows: Flows,
}

struct Town {
    test: testing::TestDb,
    done: Done,
}

impl Town {
    async fn build() -> Self {
        let tables = Box::leak([&[Letter::TABLE], flow::TABLES].concat().into_boxed_slice());
        let test =
            testing::postgres(tables, &[]).await.unwrap().expect("FERROSTACK_TEST_POSTGRES names a server");
        Self { test, done: Arc::default() }
    }

    async fn process(&self, name: &'static str, gate: usize) -> Process {
        let lease = Duration::from_millis(1500);
        let options = Options { pause: Duration::from_millis(10), lease, ..Options::default() };
        let flows = Flows::new(self.test.db.clone(), Clock::real(), options);
        let post = Arc::new(Post { process: name, done: self.done.clone(), gate: Semaphore::new(gate) });
        flows.register::<Deliver>(post.clone());
        flows.resume().await.unwrap();
        Process { db: self.test.db.clone(), post, flows }
    }

    async fn status(&self, id: &str) -> String {
        let id = id.to_string();
        self.test.db.read(move |tx| tx.find::<Letter>(&id)).await.unwrap().unwrap().status
    }

    async fn comes(&self, id: &str, status: &str) {
        for _ in 0..400 {
            if self.status(id).await == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{id} is {}, not {status}", self.status(id).await);
    }

    async fn flows_left(&self) -> i64 {
        let count = |tx: &mut Tx| tx.one(sql!("SELECT COUNT(*) FROM flow"), &[])?.unwrap().at(0);
        self.test.db.read(count).await.unwrap()
    }
}

impl Process {
    async fn send(&self, id: &str) -> flow::Outcome {
        let (flows, letter) = (self.flows.clone(), Letter { id: id.into(), status: "NEW".into() });
        self.db
            .write(move |tx| {
                tx.insert(&letter)?;
                flows.start(tx, &Context::default(), &Deliver { id: letter.id.clone() }, &letter.id)
            })
            .await
            .unwrap()
    }

    async fn reaches(&self, id: &str, step: &str) {
        for _ in 0..400 {
            if self.post.done_by(id, step).contains(&self.post.process) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{id} does not reach {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn the_flow_of_a_dead_process_is_taken_over_and_finished() {
    let town = Town::build().await;
    let (dying, living) = (town.process("dying", 0).await, town.process("living", OPEN).await);
    let outcome = dying.send("a").await;
    dying.reaches("a", "carry").await;
    // As kill -9: nobody is told, the lease stays.
    dying.flows.stop();
    assert_eq!(town.status("a").await, "NEW", "its lease is still good");
    town.comes("a", "DELIVERED").await;
    assert_eq!(town.flows_left().await, 0);
    let post = &living.post;
    assert_eq!((post.done_by("a", "stamp"), post.done_by("a", "hand_over")), (vec!["dying"], vec!["living"]));
    assert_eq!(outcome.wait().await.unwrap_err().kind, ErrorKind::Timeout);
}

/// A process that was cut off, as one that stood still, and comes back when another has its flow: it records nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn who_lost_its_lease_records_nothing_any_more() {
    let town = Town::build().await;
    let frozen = town.process("frozen", 0).await;
    frozen.send("a").await;
    frozen.reaches("a", "carry").await;
    // Its lease is somebody else's: it cannot renew it before another process has looked.
    let lose = |tx: &mut Tx| tx.execute(sql!("UPDATE flow_lease SET owner = 'nobody'"), &[]);
    town.test.db.write(lose).await.unwrap();
    let living = town.process("living", 0).await;
    living.reaches("a", "carry").await;
    frozen.post.gate.add_permits(1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(town.status("a").await, "NEW", "the step of the one who lost it has no effect");
    assert!(frozen.post.done_by("a", "hand_over").is_empty());
    living.post.gate.add_permits(1);
    town.comes("a", "DELIVERED").await;
    assert_eq!(living.post.done_by("a", "hand_over"), ["living"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn of_many_who_claim_at_once_one_has_it() {
    let town = Town::build().await;
    let dying = town.process("dying", 0).await;
    for number in 0..20 {
        let id = format!("l{number}");
        dying.send(&id).await;
        dying.reaches(&id, "carry").await;
    }
    dying.flows.leave().await;
    let (a, b, c) = tokio::join!(town.process("a", OPEN), town.process("b", OPEN), town.process("c", OPEN));
    for number in 0..20 {
        town.comes(&format!("l{number}"), "DELIVERED").await;
        assert_eq!(a.post.done_by(&format!("l{number}"), "hand_over").len(), 1, "done once");
    }
    assert_eq!(town.flows_left().await, 0);
    drop((b, c));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn who_leaves_gives_his_flows_away_at_once() {
    let town = Town::build().await;
    let (leaving, staying) = (town.process("leaving", 0).await, town.process("staying", OPEN).await);
    leaving.send("a").await;
    leaving.reaches("a", "carry").await;
    leaving.flows.leave().await;
    town.comes("a", "DELIVERED").await;
    assert_eq!(staying.post.done_by("a", "hand_over"), ["staying"]);
}

/// What hangs in one process is stopped by another; who waits there hears that it went elsewhere.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn a_flow_is_cancelled_from_another_process() {
    let town = Town::build().await;
    let (one, other) = (town.process("one", 0).await, town.process("other", OPEN).await);
    one.send("a").await;
    one.reaches("a", "carry").await;
    let flows = other.flows.clone();
    let start =
        move |tx: &mut Tx| flows.start_instead(tx, &Context::default(), &Deliver { id: "a".into() }, "a");
    let outcome = other.db.write(start).await.unwrap();
    town.comes("a", "CANCELLED").await;
    // The next of the subject is taken by who ended the one before.
    one.post.gate.add_permits(OPEN);
    town.comes("a", "DELIVERED").await;
    assert_eq!(outcome.wait().await.unwrap_err().kind, ErrorKind::Timeout);
}

/// The database was away when a step was to be recorded: its process goes on with it, and no other one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn a_flow_that_stands_still_in_its_own_process_goes_on() {
    let town = Town::build().await;
    let one = town.process("one", OPEN).await;
    // As if the beginning had been committed and its answer lost.
    let owner = |tx: &mut Tx| tx.one(sql!("SELECT owner FROM flow_lease"), &[])?.unwrap().at::<String>(0);
    let owner = town.test.db.read(owner).await.unwrap();
    let context = serde_json::to_string(&Context::default()).unwrap();
    let insert = move |tx: &mut Tx| {
        tx.insert(&Letter { id: "a".into(), status: "NEW".into() })?;
        tx.execute(
            sql!(
                "INSERT INTO flow (id, kind, subject, number, state, context, step, undoing, cancelled, cancellable,
                 owner, created_at) VALUES ('f', 'deliver', 'a', 1, '{\"id\":\"a\"}', $2, 0, FALSE, FALSE, TRUE, $1, 0)"
            ),
            params![owner, context],
        )
    };
    town.test.db.write(insert).await.unwrap();
    town.comes("a", "DELIVERED").await;
    assert_eq!(one.post.done_by("a", "hand_over"), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn a_task_runs_in_one_process_and_in_the_next_when_that_dies() {
    let town = Town::build().await;
    let counts: [Arc<AtomicUsize>; 2] = Default::default();
    let mut processes = Vec::new();
    for (name, count) in ["one", "other"].into_iter().zip(&counts) {
        let (process, counted) = (town.process(name, OPEN).await, count.clone());
        process.flows.every("task", Duration::from_millis(100), move || {
            let counted = counted.clone();
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        });
        processes.push(process);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let count = |n: usize| counts[n].load(Ordering::SeqCst);
    let grows = async |n: usize| {
        for _ in 0..200 {
            if count(n) > 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the task does not run in process {n}: {counts:?}");
    };
    grows(0).await;
    assert_eq!(count(1), 0, "the task runs in one process");
    processes[0].flows.stop();
    grows(1).await;
}
