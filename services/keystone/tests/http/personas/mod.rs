//! Every operation of identity asked by every persona, about things of its own and of others. What is let through is
//! compared with `table.tsv`, which holds what the reference OpenStack lets through with its default policies.
//!
//! `PERSONAS_RECORD=PART` writes the lines of the operations whose path contains that part (all of them: `/`) anew,
//! from the cloud that `OS_*` names.

mod walk;
mod world;

use base::{Clock, Secret};
use keystone::{Bootstrap, EndpointUrls, Keystone, Options};
use std::{collections::BTreeMap, path::Path};
use walk::Walk;

/// Where we are stricter or looser than the reference, and why: the beginning of a line, the reason.
const DIFFERS: &[(&str, &str)] = &[];

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_lets_through_whom_the_reference_lets_through() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/personas/table.tsv");
    let read = || std::fs::read_to_string(&file).unwrap();
    if let Ok(part) = std::env::var("PERSONAS_RECORD") {
        let of = |name: &str| std::env::var(name).unwrap();
        let url = of("OS_AUTH_URL");
        let url = url.trim_end_matches('/').trim_end_matches("/v3");
        let fresh = walk(url, &of("OS_USERNAME"), &of("OS_PASSWORD"), &part).await;
        let old = read();
        let what = |line: &str| line.rsplit_once('\t').unwrap().0.to_string();
        let mut table: BTreeMap<String, String> =
            old.lines().map(|line| (what(line), line.to_string())).collect();
        table.extend(fresh.into_iter().map(|line| (what(&line), line)));
        std::fs::write(&file, table.into_values().collect::<Vec<_>>().join("\n") + "\n").unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let database = crate::cloud::database().await;
    let options = Options { password_hash_rounds: 4, ..Options::default() };
    let keystone = Keystone::new(database.db.clone(), Clock::real(), options, directory.path()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let identity = EndpointUrls {
        service_type: "identity".into(),
        service_name: "keystone".into(),
        public: format!("{url}/v3"),
        internal: format!("{url}/v3"),
        admin: format!("{url}/v3"),
    };
    let (admin_password, region) = (Secret::new("secret"), "RegionOne".into());
    let begin = Bootstrap { admin_password, region, endpoints: vec![identity], members: Vec::new() };
    keystone.bootstrap(begin).await.unwrap();
    let router = keystone.service(None, &url).unwrap().into_router().unwrap();
    let server = tokio::spawn(web::serve(listener, router, std::future::pending()));
    let lines = walk(&url, "admin", "secret", "/").await;
    server.abort();

    let table = read();
    let expected: BTreeMap<&str, &str> = table.lines().filter_map(|line| line.rsplit_once('\t')).collect();
    let mut wrong = Vec::new();
    for line in &lines {
        let (what, got) = line.rsplit_once('\t').unwrap();
        let known = DIFFERS.iter().any(|(beginning, _)| what.starts_with(beginning));
        match expected.get(what) {
            Some(wanted) if *wanted == got || known => {}
            wanted => wrong
                .push(format!("{what}\n  reference {}\n  ours      {got}", wanted.unwrap_or(&"(nothing)"))),
        }
    }
    assert!(lines.len() > 300, "{} lines", lines.len());
    assert!(
        wrong.is_empty(),
        "{} of {} differ; {}\n{}",
        wrong.len(),
        lines.len(),
        lines[0],
        wrong.join("\n")
    );
}

/// Several at once, each in domains of its own.
async fn walk(url: &str, user: &str, password: &str, about: &str) -> Vec<String> {
    let parts = (0..WALKS)
        .map(|part| async move { Walk::new(url, user, password).await.part(about, part, WALKS).await });
    let mut lines: Vec<String> = futures::future::join_all(parts).await.into_iter().flatten().collect();
    lines.sort();
    lines.dedup();
    lines
}

const WALKS: usize = 8;
