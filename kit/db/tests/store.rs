//! The same stories on SQLite and, where a server is named, on PostgreSQL.

use base::{Error, Timestamp};
use db::{Direction, Filter, List, Resource, params, sql, testing};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

db::text_enum! { pub enum Colour { Red = "RED", Blue = "BLUE" } }

#[derive(Clone, Debug, PartialEq, Resource)]
#[resource(table = "thing", unique = "project_id, name", index = "name")]
struct Thing {
    #[field(key)]
    id: String,
    #[field(create, update, required, filter, sort, max = 64)]
    name: String,
    #[field(filter)]
    project_id: String,
    #[field(create, sort, since = "2.5")]
    size: Option<i64>,
    colour: Colour,
    enabled: bool,
    #[field(hidden)]
    made: Timestamp,
    tags: Vec<String>,
}

fn thing(n: i64) -> Thing {
    Thing {
        id: format!("id{n:03}"),
        name: format!("n{n}"),
        project_id: "p".into(),
        size: (n % 3 != 0).then_some(n % 5),
        colour: Colour::Red,
        enabled: n % 2 == 0,
        made: Timestamp(n),
        tags: vec!["a".into()],
    }
}

async fn databases() -> Vec<testing::TestDb> {
    testing::all(&[Thing::TABLE], &[]).await.unwrap()
}

#[tokio::test]
async fn rows_come_back_as_they_went() {
    for test in databases().await {
        let mut one = thing(1);
        let row = one.clone();
        test.db.write(move |tx| tx.insert(&row)).await.unwrap();
        assert_eq!(test.db.read(|tx| tx.find::<Thing>("id001")).await.unwrap(), Some(one.clone()));
        one.size = None;
        one.colour = Colour::Blue;
        let row = one.clone();
        assert!(test.db.write(move |tx| tx.update(&row)).await.unwrap());
        assert_eq!(test.db.read(|tx| tx.find::<Thing>("id001")).await.unwrap(), Some(one));
        assert!(test.db.write(|tx| tx.remove::<Thing>("id001")).await.unwrap());
        assert!(!test.db.write(|tx| tx.remove::<Thing>("id001")).await.unwrap());
    }
}

#[tokio::test]
async fn an_error_leaves_nothing_and_a_key_is_unique() {
    for test in databases().await {
        let failed = test.db.write(|tx| {
            tx.insert(&thing(1))?;
            Err::<(), _>(Error::conflict("no"))
        });
        assert_eq!(failed.await.unwrap_err().message, "no");
        assert_eq!(test.db.read(|tx| tx.count::<Thing>(&[])).await.unwrap(), 0);
        test.db.write(|tx| tx.insert(&thing(1))).await.unwrap();
        let again = test.db.write(|tx| tx.insert(&Thing { id: "other".into(), ..thing(1) })).await;
        assert!(db::is_constraint(&again.unwrap_err()));
    }
}

#[tokio::test]
async fn compare_and_swap_has_one_winner() {
    for test in databases().await {
        test.db.write(|tx| tx.insert(&thing(1))).await.unwrap();
        let swap = || {
            test.db.write(|tx| {
                let red = [Filter::eq("id", "id001"), Filter::eq("colour", Colour::Red)];
                tx.set::<Thing>(&red, &[("colour", db::Value::Text("BLUE".into()))])
            })
        };
        let (a, b, c) = tokio::join!(swap(), swap(), swap());
        assert_eq!(a.unwrap() + b.unwrap() + c.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_quota_in_the_transaction_is_exact() {
    for test in databases().await {
        let tries = (0..100).map(|n| {
            let db = test.db.clone();
            tokio::spawn(async move {
                db.write(move |tx| {
                    if tx.count::<Thing>(&[Filter::eq("project_id", "p")])? >= 10 {
                        return Err(Error::over_quota("full"));
                    }
                    tx.insert(&thing(n))
                })
                .await
            })
        });
        let mut made = 0;
        for one in tries.collect::<Vec<_>>() {
            made += one.await.unwrap().is_ok() as i64;
        }
        assert_eq!(made, 10);
        assert_eq!(test.db.read(|tx| tx.count::<Thing>(&[])).await.unwrap(), 10);
    }
}

#[tokio::test]
async fn pages_join_to_the_whole_in_every_order() {
    for test in databases().await {
        test.db.write(|tx| (0..50).try_for_each(|n| tx.insert(&thing(n)))).await.unwrap();
        for direction in [Direction::Asc, Direction::Desc] {
            let order = List::all().sort("size", direction).sort("name", Direction::Asc);
            let wanted = order.clone();
            let whole = test.db.read(move |tx| tx.list::<Thing>(&wanted)).await.unwrap();
            assert_eq!(whole.len(), 50);
            let mut joined: Vec<Thing> = Vec::new();
            loop {
                let mut wanted = order.clone().limit(7);
                wanted.marker = joined.last().map(|t| t.id.clone());
                let page = test.db.read(move |tx| tx.list::<Thing>(&wanted)).await.unwrap();
                if page.is_empty() {
                    break;
                }
                joined.extend(page);
            }
            assert_eq!(joined, whole, "{direction:?}");
            let wanted = order.limit(7).marker(whole[30].id.clone());
            let few = test.db.read(move |tx| tx.columns::<Thing>(&["name", "id"], &wanted)).await.unwrap();
            let few: Vec<(String, String)> =
                few.iter().map(|r| (r.at(0).unwrap(), r.at(1).unwrap())).collect();
            let same: Vec<_> = whole[31..38].iter().map(|t| (t.name.clone(), t.id.clone())).collect();
            assert_eq!(few, same);
        }
        let lost = test.db.read(|tx| tx.list::<Thing>(&List::all().marker("none"))).await.unwrap_err();
        assert_eq!(lost.code.as_deref(), Some("marker"));
    }
}

#[tokio::test]
async fn views_follow_the_microversion() {
    let old = thing(1).view(db::TimeForm::Seconds, Some(base::Version(2, 4)));
    let new = thing(1).view(db::TimeForm::Seconds, Some(base::Version(2, 5)));
    assert!(!old.contains_key("size") && new.contains_key("size") && !new.contains_key("made"));
}

#[tokio::test]
async fn what_follows_a_commit_runs_once_and_only_then() {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };
    for test in databases().await {
        let ran = Arc::new(AtomicU32::new(0));
        for fail in [true, false] {
            let counter = ran.clone();
            let _ = test
                .db
                .write(move |tx| {
                    let counter = counter.clone();
                    tx.after_commit(move || {
                        counter.fetch_add(1, SeqCst);
                    });
                    if fail { Err(Error::conflict("no")) } else { Ok(()) }
                })
                .await;
        }
        assert_eq!(ran.load(SeqCst), 1);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = db::Options::new(format!("sqlite:{}", directory.path().join("x.db").display()));
    let opened = db::Db::open(&options, &[Thing::TABLE], &[]).await.unwrap();
    opened.write(|tx| tx.execute("UPDATE schema_version SET number = 9", &[])).await.unwrap();
    let refused = db::Db::open(&options, &[Thing::TABLE], &[]).await.err().unwrap();
    assert!(refused.message.contains("schema 9"), "{refused}");
}

/// Not in the first release's tables.
#[derive(Clone, Debug, PartialEq, Resource)]
#[resource(table = "later", index = "size")]
struct Later {
    #[field(key)]
    id: String,
    size: i64,
}

#[tokio::test]
async fn a_table_that_came_later_is_made_and_the_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let options = db::Options::new(format!("sqlite:{}", directory.path().join("x.db").display()));
    let first = db::Db::open(&options, &[Thing::TABLE], &[]).await.unwrap();
    first.write(|tx| tx.insert(&thing(1))).await.unwrap();
    drop(first);
    for _ in 0..2 {
        let second = db::Db::open(&options, &[Thing::TABLE, Later::TABLE], &[]).await.unwrap();
        assert_eq!(second.read(|tx| tx.count::<Later>(&[])).await.unwrap(), 0);
        assert_eq!(second.read(|tx| tx.count::<Thing>(&[])).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn every_statement_is_understood() {
    let _ = sql!("SELECT name FROM thing WHERE project_id = $1 AND size > $2");
    for test in databases().await {
        assert!(testing::prepare_all(&test.db, &[Thing::TABLE]).await.unwrap() > 4);
        let rows = test.db.read(|tx| {
            tx.query("SELECT name FROM thing WHERE id = $2 AND project_id = $1", params!["p", "x"])
        });
        assert!(rows.await.unwrap().is_empty());
    }
}

/// Else a process that ends would take the loss of its own threads for the outcome of what it does, and record it.
#[test]
fn a_read_ends_with_its_runtime_and_says_nothing() {
    let failed = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let test = runtime.block_on(testing::sqlite(&[Thing::TABLE], &[])).unwrap();
        for _ in 0..16 {
            let (db, failed) = (test.db.clone(), failed.clone());
            runtime.spawn(async move {
                while db.read(|tx| tx.find::<Thing>("id001")).await.is_ok() {}
                failed.fetch_add(1, Ordering::SeqCst);
            });
        }
        std::thread::sleep(Duration::from_millis(5));
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
    assert_eq!(failed.load(Ordering::SeqCst), 0);
}

/// A request stands behind a few transactions of background work, however many of those wait.
#[tokio::test(flavor = "multi_thread")]
async fn background_work_makes_way() {
    const WAITING: usize = 2000;
    for database in testing::all(&[Thing::TABLE], &[]).await.unwrap() {
        let done = Arc::new(AtomicUsize::new(0));
        let work = (0..WAITING).map(|number| {
            let (db, done) = (database.db.clone(), done.clone());
            tokio::spawn(base::background(async move {
                db.write(move |tx| tx.insert(&thing(number as i64))).await.unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            }))
        });
        let work: Vec<_> = work.collect();
        while done.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let before = done.load(Ordering::SeqCst);
        database.db.write(|tx| tx.insert(&thing(WAITING as i64))).await.unwrap();
        let meanwhile = done.load(Ordering::SeqCst) - before;
        assert!(meanwhile < WAITING / 4, "{meanwhile} went first");
        for one in work {
            one.await.unwrap();
        }
    }
}
