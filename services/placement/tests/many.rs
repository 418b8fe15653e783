//! Thousands of providers: claims stay exact when many come at once, candidates are found in pages, and how long that
//! takes can be measured.

use base::{Clock, Context, ErrorKind, Json};
use contracts::placement::{Allocation, Placement as _, Wanted};
use db::{params, testing::TestDb};
use http_body_util::BodyExt;
use placement::{Options, Placement, TABLES};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};
use web::testing::{People, Surface};

fn host(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Hosts with processors, memory and disk, eight traits each; the first `full` have no processor left.
async fn hosts(count: usize, full: usize, vcpus: i64) -> (TestDb, Arc<Placement>) {
    hosts_on(db::testing::sqlite(TABLES, &[]).await.unwrap(), count, full, vcpus).await
}

async fn hosts_on(database: TestDb, count: usize, full: usize, vcpus: i64) -> (TestDb, Arc<Placement>) {
    let placement = Placement::new(database.db.clone(), Clock::real(), Options::default());
    let insert = move |tx: &mut db::Tx| {
        for number in 0..count {
            let (id, made) = (host(number), number as i64);
            tx.execute(
                "INSERT INTO resource_providers (uuid, name, generation, parent_uuid, root_uuid, created_at, updated_at)
                 VALUES ($1, $1, 0, NULL, $1, $2, $2)",
                params![id.as_str(), made],
            )?;
            for (class, total) in [("VCPU", vcpus), ("MEMORY_MB", 65536), ("DISK_GB", 2000)] {
                let used = if class == "VCPU" && number < full { total } else { 0 };
                tx.execute(
                    "INSERT INTO inventories (provider_uuid, resource_class, total, reserved, min_unit, max_unit, step_size, allocation_ratio, used, updated_at)
                     VALUES ($1, $2, $3, 0, 1, $3, 1, 1.0, $4, 1)",
                    params![id.as_str(), class, total, used],
                )?;
            }
            for name in ["AES", "AVX", "AVX2", "BMI", "BMI2", "F16C", "FMA3", "SSE"] {
                let name = format!("HW_CPU_X86_{name}");
                tx.execute(
                    "INSERT INTO provider_traits (provider_uuid, trait_name) VALUES ($1, $2)",
                    params![id.as_str(), name.as_str()],
                )?;
            }
        }
        Ok(())
    };
    database.db.write(insert).await.unwrap();
    (database, placement)
}

fn surface(placement: &Arc<Placement>) -> Surface {
    let service = placement.service(None, Arc::new(People), "http://127.0.0.1:5000").unwrap();
    Surface::new(service, "c:8778").with("openstack-api-version", "placement 1.39")
}

async fn candidates(placement: &Arc<Placement>, query: &str) -> Json {
    surface(placement).get("admin", &format!("/allocation_candidates?{query}")).await
}

fn providers(answer: &Json) -> BTreeSet<String> {
    let all = answer["allocation_requests"].as_array().unwrap_or_else(|| panic!("{answer}"));
    all.iter().flat_map(|one| one["allocations"].as_object().unwrap().keys().cloned()).collect()
}

const ASKED: &str = "resources=VCPU:1,MEMORY_MB:512,DISK_GB:10&required=HW_CPU_X86_AVX2";

/// The pages in which roots are looked at show neither in what is found nor in how much.
#[tokio::test(flavor = "multi_thread")]
async fn pages_do_not_show() {
    let (_database, placement) = hosts(3000, 2500, 4).await;
    let all = candidates(&placement, ASKED).await;
    assert_eq!(providers(&all), (2500..3000).map(host).collect());
    for (limit, count) in [(1, 1), (300, 300), (500, 500), (1000, 500)] {
        let some = candidates(&placement, &format!("{ASKED}&limit={limit}")).await;
        let found = providers(&some);
        assert_eq!(found.len(), count, "{limit}");
        assert!(found.is_subset(&providers(&all)), "{limit}");
        assert_eq!(some["provider_summaries"].as_object().unwrap().len(), count, "{limit}");
    }
    let groups = "resources_A=VCPU:1&resources_B=MEMORY_MB:1&group_policy=none&same_subtree=_A,_B&limit=200";
    assert_eq!(providers(&candidates(&placement, groups).await).len(), 200);
    let nobody = format!("{ASKED}&root_required=!HW_CPU_X86_AVX2&limit=10");
    assert_eq!(providers(&candidates(&placement, &nobody).await).len(), 0);
}

/// Behind the first that are full, those with room are found, in whatever part of a tree they have it.
#[tokio::test(flavor = "multi_thread")]
async fn room_is_found_behind_the_full() {
    for database in db::testing::all(TABLES, &[]).await.unwrap() {
        let (database, placement) = hosts_on(database, 300, 250, 4).await;
        let child = "00000000-0000-4000-8000-00000000cccc";
        let insert = move |tx: &mut db::Tx| {
            let root = host(110);
            tx.execute(
                "INSERT INTO resource_providers (uuid, name, generation, parent_uuid, root_uuid, created_at, updated_at)
                 VALUES ($1, $1, 0, $2, $2, 900, 900)",
                params![child, root.as_str()],
            )?;
            tx.execute(
                "INSERT INTO inventories (provider_uuid, resource_class, total, reserved, min_unit, max_unit, step_size, allocation_ratio, used, updated_at)
                 VALUES ($1, 'VCPU', 4, 0, 1, 4, 1, 1.0, 0, 1)",
                params![child],
            )
        };
        database.db.write(insert).await.unwrap();
        let wanted = "resources=VCPU:1,MEMORY_MB:512,DISK_GB:10";
        let roots: BTreeSet<String> = (250..300).chain([110]).map(host).collect();
        for limit in ["", "&limit=51", "&limit=60"] {
            let mut found = providers(&candidates(&placement, &format!("{wanted}{limit}")).await);
            assert!(found.remove(child), "{limit}");
            assert_eq!(found, roots, "{limit}");
        }
        for too_much in ["resources=VCPU:5", "resources=VCPU:1,CUSTOM_GOLD:1"] {
            let answer = surface(&placement)
                .call("admin", "GET", &format!("/allocation_candidates?{too_much}&limit=60"), Json::Null)
                .await;
            assert!(answer.status == 400 || providers(&answer.body).is_empty(), "{}", answer.text());
        }
    }
}

/// A hundred at a time, five for each host that has room for four.
#[tokio::test(flavor = "multi_thread")]
async fn claims_of_a_thousand_hosts_are_exact() {
    const HOSTS: usize = 1000;
    let (database, placement) = hosts(HOSTS, 0, 4).await;
    let begun = Instant::now();
    let claimers = (0..100).map(|claimer| {
        let placement = placement.clone();
        tokio::spawn(async move {
            let (mut taken, cx) = (0, Context::internal());
            for turn in 0..HOSTS * 5 / 100 {
                let number = claimer * (HOSTS * 5 / 100) + turn;
                let resources = BTreeMap::from([(
                    host(number % HOSTS),
                    BTreeMap::from([("VCPU".into(), 1), ("MEMORY_MB".into(), 512)]),
                )]);
                let (project_id, user_id) = ("p".into(), "u".into());
                let claim = Allocation {
                    consumer_id: format!("c{number}"),
                    project_id,
                    user_id,
                    resources,
                    ..Allocation::default()
                };
                match placement.allocate(&cx, &claim).await {
                    Ok(()) => taken += 1,
                    Err(error) => assert!(error.is(ErrorKind::Conflict), "{error:?}"),
                }
            }
            taken
        })
    });
    let taken: usize = futures::future::join_all(claimers).await.into_iter().map(Result::unwrap).sum();
    eprintln!("{} claims in {:?}", HOSTS * 5, begun.elapsed());
    assert_eq!(taken, HOSTS * 4);
    let wrong = database.db.read(|tx| {
        tx.query(
            "SELECT i.provider_uuid FROM inventories i
             LEFT JOIN (SELECT provider_uuid, resource_class, SUM(used) AS used FROM allocations GROUP BY 1, 2) a
             ON a.provider_uuid = i.provider_uuid AND a.resource_class = i.resource_class
             WHERE i.used <> COALESCE(a.used, 0) OR i.used > i.total OR (i.resource_class = 'VCPU' AND i.used <> 4)",
            &[],
        )
    });
    assert_eq!(wrong.await.unwrap().len(), 0);
    let wanted = Wanted { resources: BTreeMap::from([("VCPU".into(), 1)]), ..Wanted::default() };
    assert!(placement.candidates(&Context::internal(), &wanted).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for an optimised build: make measure"]
async fn how_long_candidates_take() {
    let rounds = std::env::var("MEASURE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7usize);
    for full in [0, 9000] {
        let (_database, placement) = hosts(10_000, full, 64).await;
        for query in [format!("{ASKED}&limit=1000"), ASKED.to_string(), "resources=VCPU:1&limit=1000".into()]
        {
            let (surface, path) = (surface(&placement), format!("/allocation_candidates?{query}"));
            let mut times: Vec<_> = Vec::new();
            let mut bytes = 0;
            for _ in 0..rounds.max(1) {
                let begun = Instant::now();
                let headers = [("x-auth-token", "admin")];
                let response = surface.open("GET", &path, &headers, axum::body::Body::empty()).await;
                bytes = response.into_body().collect().await.unwrap().to_bytes().len();
                times.push(begun.elapsed());
            }
            times.sort();
            eprintln!(
                "{full} of 10,000 full: {bytes} bytes in {:?} (median of {rounds}, quickest {:?}) {query}",
                times[times.len() / 2],
                times[0]
            );
        }
    }
}
