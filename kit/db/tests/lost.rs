//! A PostgreSQL server that ends connections in the middle of transactions.

use base::ErrorKind;
use db::{Db, Options, Resource, Tx, params, sql, testing};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

#[derive(Clone, Debug, PartialEq, Resource)]
#[resource(table = "thing")]
struct Thing {
    #[field(key)]
    id: String,
    /// A word of SQL.
    binary: String,
}

async fn database() -> Db {
    let test = testing::postgres(&[Thing::TABLE], &[]).await.unwrap();
    test.expect("FERROSTACK_TEST_POSTGRES names a server").db
}

/// Ends the connection of the transaction from another one.
fn cut(tx: &mut Tx, other: &Db) {
    let pid: i64 =
        tx.one(sql!("SELECT CAST(pg_backend_pid() AS BIGINT)"), &[]).unwrap().unwrap().at(0).unwrap();
    let other = other.clone();
    let (told, tell) = std::sync::mpsc::channel();
    tokio::runtime::Handle::current().spawn(async move {
        let end = move |tx: &mut Tx| {
            tx.query(sql!("SELECT pg_terminate_backend(CAST($1 AS INTEGER))"), params![pid])
        };
        other.read(end).await.unwrap();
        told.send(()).unwrap();
    });
    tell.recv().unwrap();
}

fn is_there(tx: &mut Tx, id: &str) -> bool {
    tx.find::<Thing>(id).unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn a_transaction_that_is_cut_off_is_done_again_as_a_whole() {
    let (db, other, tries) = (database().await, database().await, Arc::new(AtomicU32::new(0)));
    let tried = tries.clone();
    db.write(move |tx| {
        tx.insert(&Thing { id: "a".into(), binary: "x".into() })?;
        if tried.fetch_add(1, Ordering::SeqCst) == 0 {
            cut(tx, &other);
        }
        tx.insert(&Thing { id: "b".into(), binary: "x".into() })
    })
    .await
    .unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    assert!(db.read(|tx| Ok(is_there(tx, "a") && is_there(tx, "b"))).await.unwrap());
}

/// Nobody can know whether the server wrote it: it is not done again, and not said to have failed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn a_commit_that_is_cut_off_is_an_unknown_outcome() {
    let (db, other, tries) = (database().await, database().await, Arc::new(AtomicU32::new(0)));
    let tried = tries.clone();
    let error = db
        .write(move |tx| {
            tried.fetch_add(1, Ordering::SeqCst);
            tx.insert(&Thing { id: "a".into(), binary: "x".into() })?;
            cut(tx, &other);
            Ok(())
        })
        .await
        .unwrap_err();
    assert_eq!((error.kind, tries.load(Ordering::SeqCst)), (ErrorKind::Timeout, 1), "{error:?}");
    // The next one has a connection again.
    assert!(!db.read(|tx| Ok(is_there(tx, "a"))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL in FERROSTACK_TEST_POSTGRES: make test"]
async fn a_database_that_is_missing_is_made_once() {
    let server = std::env::var(testing::POSTGRES_URL).unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    let options = Options::new(format!("{server}/made_{}", std::process::id()));
    let (a, b) =
        tokio::join!(Db::open(&options, &[Thing::TABLE], &[]), Db::open(&options, &[Thing::TABLE], &[]));
    let thing = Thing { id: "a".into(), binary: "x".into() };
    let kept = thing.clone();
    a.unwrap().write(move |tx| tx.insert(&thing)).await.unwrap();
    assert_eq!(b.unwrap().read(|tx| tx.find::<Thing>("a")).await.unwrap(), Some(kept));
    let wrong = Options::new(format!("{}/x", server.replace("postgres@", "nobody@")));
    assert!(Db::open(&wrong, &[Thing::TABLE], &[]).await.is_err());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let options = Options::new("postgres://postgres@127.0.0.1:1/x");
    let error = Db::open(&options, &[Thing::TABLE], &[]).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
}
