//! Claims are exact on both databases, also when many come at once.

use base::{Clock, Context, ErrorKind};
use contracts::placement::{
    Allocation, AllocationChange, CONCURRENT_UPDATE, Group, Inventory, Placement as _, Provider, Wanted,
};
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
        parent_id: None,
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

/// A host with an agent that counts packets, and below it two interfaces.
async fn host_with_interfaces(placement: &Placement, id: &str) {
    let cx = Context::internal();
    placement.provide(&cx, &host(id, 4)).await.unwrap();
    let below = |name: &str, parent: &str, class: &str, total: u64, traits: &[&str]| {
        let mut made = host(&format!("{id}-{name}"), total);
        let inventory = made.inventories.remove("VCPU").unwrap();
        made.inventories.insert(class.into(), inventory);
        made.parent_id = Some(parent.into());
        made.traits = traits.iter().map(ToString::to_string).collect();
        made
    };
    let agent = format!("{id}-agent");
    for provider in [
        below("agent", id, "NET_PACKET_RATE_KILOPACKET_PER_SEC", 100, &["CUSTOM_VNIC"]),
        below("eth1", &agent, "NET_BW_EGR_KILOBIT_PER_SEC", 1000, &["CUSTOM_A", "CUSTOM_VNIC"]),
        below("eth2", &agent, "NET_BW_EGR_KILOBIT_PER_SEC", 2000, &["CUSTOM_B", "CUSTOM_VNIC"]),
    ] {
        placement.provide(&cx, &provider).await.unwrap();
        placement.provide(&cx, &provider).await.unwrap();
    }
}

fn group(id: &str, class: &str, amount: u64, required: &str) -> Group {
    let resources = BTreeMap::from([(class.into(), amount)]);
    Group { id: id.into(), resources, required_traits: vec![required.into()] }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_given_by_providers_below_a_host() {
    on_all(async |placement, _| {
        let cx = Context::internal();
        for id in ["h1", "h2"] {
            host_with_interfaces(&placement, id).await;
        }
        let wanted = |amount: u64, required: &str| Wanted {
            resources: BTreeMap::from([("VCPU".into(), 1)]),
            groups: vec![
                group("bw", "NET_BW_EGR_KILOBIT_PER_SEC", amount, required),
                group("pps", "NET_PACKET_RATE_KILOPACKET_PER_SEC", 10, "CUSTOM_VNIC"),
            ],
            same_subtrees: vec![vec!["bw".into(), "pps".into()]],
            ..Wanted::default()
        };
        let found = placement.candidates(&cx, &wanted(500, "CUSTOM_A")).await.unwrap();
        assert_eq!(found.len(), 2);
        let first = &found[0];
        let (of, host) = (|group: &str| first.mappings[group].clone(), &first.provider_id);
        assert_eq!((of("bw"), of("pps")), (format!("{host}-eth1"), format!("{host}-agent")));
        assert_eq!(first.allocations[host]["VCPU"], 1);
        assert_eq!(first.mappings.len(), 2, "what the flavor takes is no group");
        for (amount, required, count) in
            [(1500, "CUSTOM_A", 0), (1500, "CUSTOM_B", 2), (1500, "CUSTOM_VNIC", 2), (2001, "CUSTOM_VNIC", 0)]
        {
            let found = placement.candidates(&cx, &wanted(amount, required)).await.unwrap();
            assert_eq!(found.len(), count, "{amount} {required}");
        }
        // Within a tree, and nothing of the host's own.
        let only = Wanted { resources: BTreeMap::new(), in_tree: Some("h2".into()), ..wanted(1, "CUSTOM_A") };
        let found = placement.candidates(&cx, &only).await.unwrap();
        assert_eq!(found.iter().map(|one| one.provider_id.as_str()).collect::<Vec<_>>(), ["h2"]);
        assert_eq!(placement.provider_id(&cx, "h1-eth1").await.unwrap().as_deref(), Some("h1-eth1"));
        assert_eq!(placement.provider_id(&cx, "h3").await.unwrap(), None);
        // A host goes with what is below it.
        placement.remove_provider(&cx, "h1").await.unwrap();
        assert_eq!(placement.provider_id(&cx, "h1-eth1").await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_has_moves_and_changes() {
    on_all(async |placement, _| {
        let cx = Context::internal();
        host_with_interfaces(&placement, "h1").await;
        let mut server = of("server", "h1", 2);
        let bandwidth = BTreeMap::from([("NET_BW_EGR_KILOBIT_PER_SEC".to_string(), 400)]);
        server.resources.insert("h1-eth1".into(), bandwidth);
        placement.allocate(&cx, &server).await.unwrap();
        let has = async |consumer: &str| placement.allocations(&cx, consumer).await.unwrap().resources;
        let whole = has("server").await;
        assert_eq!(whole, server.resources);
        // It may be said twice.
        for _ in 0..2 {
            placement.move_allocations(&cx, "server", "move", "MIGRATION").await.unwrap();
        }
        assert_eq!((has("server").await.len(), has("move").await), (0, whole.clone()));
        for _ in 0..2 {
            placement.move_allocations(&cx, "move", "server", "").await.unwrap();
        }
        assert_eq!((has("move").await.len(), has("server").await), (0, whole));

        let change = |provider: &str, class: &str, amount: i64| AllocationChange {
            consumer_id: "server".into(),
            difference: BTreeMap::from([(provider.into(), BTreeMap::from([(class.into(), amount)]))]),
        };
        let bandwidth = |amount: i64| change("h1-eth1", "NET_BW_EGR_KILOBIT_PER_SEC", amount);
        let more = [bandwidth(500), change("h1", "VCPU", 1)];
        // However often it is said, it is made once.
        for _ in 0..2 {
            placement.change_allocations(&cx, "more", &more).await.unwrap();
        }
        let now = has("server").await;
        assert_eq!((now["h1-eth1"]["NET_BW_EGR_KILOBIT_PER_SEC"], now["h1"]["VCPU"]), (900, 3));
        // All or none: one of the two does not fit.
        let refused =
            placement.change_allocations(&cx, "a", &[change("h1", "VCPU", -1), bandwidth(101)]).await;
        assert!(refused.unwrap_err().is(ErrorKind::Conflict));
        assert_eq!(has("server").await, now);
        // What is taken back is so once, and does not come back; what was never made is not made later.
        for _ in 0..2 {
            placement.take_back_allocations(&cx, "more", &more).await.unwrap();
            assert_eq!(has("server").await["h1-eth1"]["NET_BW_EGR_KILOBIT_PER_SEC"], 400);
            let late = placement.change_allocations(&cx, "more", &more).await;
            assert!(late.unwrap_err().is(ErrorKind::Conflict));
            placement.take_back_allocations(&cx, "never", &more).await.unwrap();
            assert!(placement.change_allocations(&cx, "never", &more).await.is_err());
            assert_eq!(has("server").await["h1"]["VCPU"], 2);
        }
        placement.change_allocations(&cx, "b", &[bandwidth(-400)]).await.unwrap();
        assert!(!has("server").await.contains_key("h1-eth1"));
        let nobody = AllocationChange { consumer_id: "nobody".into(), ..bandwidth(1) };
        let refused = placement.change_allocations(&cx, "c", std::slice::from_ref(&nobody)).await;
        assert!(refused.unwrap_err().is(ErrorKind::NotFound));
        placement.take_back_allocations(&cx, "c", &[nobody]).await.unwrap();

        // Who does not know the consumer as it is changes nothing.
        let known = placement.allocations(&cx, "server").await.unwrap().generation;
        let again = |generation| Allocation { generation: Some(generation), ..of("server", "h1", 1) };
        placement.allocate(&cx, &again(known)).await.unwrap();
        for stale in [known, None] {
            let error = placement.allocate(&cx, &again(stale)).await.unwrap_err();
            assert_eq!(error.code.as_deref(), Some(CONCURRENT_UPDATE));
        }
        placement.allocate(&cx, &Allocation { generation: Some(None), ..of("new", "h1", 1) }).await.unwrap();
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
