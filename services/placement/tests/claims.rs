//! Claims are exact on both databases, also when many come at once.

use base::{Clock, Context, ErrorKind};
use contracts::placement::{Allocation, Inventory, Placement as _, Provider, Wanted};
use db::testing::TestDb;
use placement::{Options, Placement, TABLES};
use std::{collections::BTreeMap, sync::Arc};

async fn on_all(test: impl AsyncFn(Arc<Placement>, &TestDb)) {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        test(Placement::new(database.db.clone(), Clock::real(), Options::default()), &database).await;
    }
}

fn host(id: &str, vcpus: u64) -> Provider {
    let inventory = Inventory {
        total: vcpus,
        reserved: 0,
        min_unit: 1,
        max_unit: vcpus,
        step_size: 1,
        allocation_ratio: 1.0,
    };
    Provider {
        id: id.into(),
        name: id.into(),
        inventories: BTreeMap::from([("VCPU".into(), inventory)]),
        traits: vec!["HW_CPU_X86_AVX".into()],
    }
}

fn of(consumer: &str, host: &str, vcpus: u64) -> Allocation {
    Allocation {
        consumer_id: consumer.into(),
        project_id: "p".into(),
        user_id: "u".into(),
        resources: BTreeMap::from([(host.into(), BTreeMap::from([("VCPU".into(), vcpus)]))]),
        ..Allocation::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_take_exactly_what_there_is() {
    on_all(async |placement, _| {
        let cx = Context::internal();
        placement.provide(&cx, &host("h1", 10)).await.unwrap();
        let claims = (0..100).map(|number| {
            let (placement, cx) = (placement.clone(), cx.clone());
            tokio::spawn(async move { placement.allocate(&cx, &of(&format!("c{number}"), "h1", 1)).await })
        });
        let mut taken = 0;
        for outcome in futures::future::join_all(claims).await {
            match outcome.unwrap() {
                Ok(()) => taken += 1,
                Err(error) => assert!(error.is(ErrorKind::Conflict), "{error:?}"),
            }
        }
        assert_eq!(taken, 10);
        let wanted = Wanted { resources: BTreeMap::from([("VCPU".into(), 1)]), ..Wanted::default() };
        assert!(placement.candidates(&cx, &wanted).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_replaces_and_is_given_back() {
    on_all(async |placement, _| {
        let cx = Context::internal();
        placement.provide(&cx, &host("h1", 4)).await.unwrap();
        placement.provide(&cx, &host("h2", 4)).await.unwrap();
        placement.allocate(&cx, &of("c", "h1", 4)).await.unwrap();
        let whole = Wanted { resources: BTreeMap::from([("VCPU".into(), 4)]), ..Wanted::default() };
        let found = placement.candidates(&cx, &whole).await.unwrap();
        assert_eq!(found.iter().map(|c| c.provider_id.as_str()).collect::<Vec<_>>(), ["h2"]);
        assert!(placement.remove_provider(&cx, "h1").await.unwrap_err().is(ErrorKind::Conflict));
        placement.allocate(&cx, &of("c", "h2", 2)).await.unwrap();
        placement.remove_provider(&cx, "h1").await.unwrap();
        placement.remove_provider(&cx, "h1").await.unwrap();
        placement.release(&cx, "c").await.unwrap();
        placement.release(&cx, "c").await.unwrap();
        let with = |required: &[&str], forbidden: &[&str]| {
            let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            Wanted { required_traits: texts(required), forbidden_traits: texts(forbidden), ..whole.clone() }
        };
        for (wanted, count) in [
            (with(&["HW_CPU_X86_AVX"], &[]), 1),
            (with(&["HW_CPU_X86_AVX2"], &[]), 0),
            (with(&[], &["HW_CPU_X86_AVX"]), 0),
        ] {
            assert_eq!(placement.candidates(&cx, &wanted).await.unwrap().len(), count, "{wanted:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_understood() {
    on_all(async |_, database| {
        assert!(db::testing::prepare_all(&database.db, TABLES).await.unwrap() > 20);
    })
    .await;
}
