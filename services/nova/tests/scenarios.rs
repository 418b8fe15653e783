//! Compute answers as the reference OpenStack does: the scenarios of `compat/nova` that need no server, over real
//! sockets, with keystone for the tokens and a host that only reports.

mod common;

use base::{Clock, Context, Result, Secret};
use compat::{Credentials, Mode};
use contracts::compute::ComputeReports;
use keystone::{Bootstrap, EndpointUrls, Keystone};
use nova::{Nova, Options, Peers, TABLES};
use std::path::Path;
use tokio::net::TcpListener;

fn endpoint(service_type: &str, name: &str, url: String) -> EndpointUrls {
    EndpointUrls {
        service_type: service_type.into(),
        service_name: name.into(),
        public: url.clone(),
        internal: url.clone(),
        admin: url,
    }
}

const FILES: &[&str] = &["flavors", "keypairs", "server_groups", "aggregates", "hosts", "quotas", "versions"];

#[tokio::test(flavor = "multi_thread")]
async fn scenarios() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (of_keystone, of_nova) =
        (db::testing::sqlite(keystone::TABLES, &[]).await?, db::testing::sqlite(TABLES, &[]).await?);
    let hashing = keystone::Options { password_hash_rounds: 4, ..keystone::Options::default() };
    let keystone = Keystone::new(of_keystone.db.clone(), Clock::real(), hashing, directory.path())?;
    let (identity, compute) =
        (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let identity_url = format!("http://{}", identity.local_addr()?);
    let compute_url = format!("http://{}/v2.1", compute.local_addr()?);
    let endpoints = vec![
        endpoint("identity", "keystone", format!("{identity_url}/v3")),
        endpoint("compute", "nova", compute_url),
    ];
    let (admin_password, region) = (Secret::new("secret"), "RegionOne".into());
    keystone.bootstrap(Bootstrap { admin_password, region, endpoints, members: Vec::new() }).await?;

    let peers = Peers { identity: keystone.clone(), ..common::peers() };
    let nova =
        Nova::new(of_nova.db.clone(), Clock::real(), Options::default(), bus::Bus::local_twice(), peers);
    nova.bootstrap().await?;
    nova.host_reported(&Context::internal(), &common::host("h1")).await?;
    let servers = [
        tokio::spawn(web::serve(
            identity,
            keystone.service(None, &identity_url)?.into_router()?,
            std::future::pending(),
        )),
        tokio::spawn(web::serve(
            compute,
            nova.service(None, keystone.clone(), &identity_url)?.into_router()?,
            std::future::pending(),
        )),
    ];

    let credentials = Credentials {
        auth_url: identity_url,
        username: "admin".into(),
        password: "secret".into(),
        project_name: "admin".into(),
        user_domain: "default".into(),
        project_domain: "default".into(),
        region: None,
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat/nova");
    let files: Vec<_> = FILES.iter().map(|name| folder.join(format!("{name}.yaml"))).collect();
    let outcomes = compat::play(&credentials, &files, Mode::Run, 4).await?;
    servers.iter().for_each(|server| server.abort());
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.failed > 0)
        .map(|outcome| format!("{}\n{}", outcome.path.display(), outcome.said.join("\n")))
        .collect();
    assert!(outcomes.len() == FILES.len() && failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
