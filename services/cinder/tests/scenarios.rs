//! Block storage answers as the reference OpenStack does: every scenario of `compat/cinder`, over real sockets, with
//! keystone for the tokens and a fake back end.

mod common;

use base::{Clock, Secret};
use cinder::{Cinder, Options, Peers, TABLES};
use compat::{Credentials, Mode};
use keystone::{Bootstrap, EndpointUrls, Keystone};
use std::{path::Path, sync::Arc};
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

#[tokio::test(flavor = "multi_thread")]
async fn scenarios() {
    let directory = tempfile::tempdir().unwrap();
    let (of_keystone, of_cinder) = (
        db::testing::sqlite(keystone::TABLES, &[]).await.unwrap(),
        db::testing::sqlite(TABLES, &[]).await.unwrap(),
    );
    let hashing = keystone::Options { password_hash_rounds: 4, ..keystone::Options::default() };
    let keystone = Keystone::new(of_keystone.db.clone(), Clock::real(), hashing, directory.path()).unwrap();
    let (identity, volume) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let identity_url = format!("http://{}", identity.local_addr().unwrap());
    let volume_url = format!("http://{}/v3", volume.local_addr().unwrap());
    let endpoints = vec![
        endpoint("identity", "keystone", format!("{identity_url}/v3")),
        endpoint("block-storage", "cinder", volume_url),
    ];
    let (admin_password, region) = (Secret::new("secret"), "RegionOne".into());
    keystone.bootstrap(Bootstrap { admin_password, region, endpoints, members: Vec::new() }).await.unwrap();

    let bus = bus::Bus::local();
    let images = Arc::new(common::OneImage::default());
    let peers = Peers { images: images.clone(), image_maker: images.clone() };
    let cinder = Cinder::new(of_cinder.db.clone(), Clock::real(), Options::default(), bus.clone(), peers);
    let agent = cinder_volume::simulated(
        cinder_volume::Options::default(),
        host_block::Fake::default(),
        Some(images),
    );
    let _servings = (cinder.start().await.unwrap(), cinder_volume::serve(&bus, agent.clone()).await.unwrap());
    let reporting = tokio::spawn(cinder_volume::run(agent, cinder.clone()));
    let servers = [
        tokio::spawn(web::serve(
            identity,
            keystone.service(None, &identity_url).unwrap().into_router().unwrap(),
            std::future::pending(),
        )),
        tokio::spawn(web::serve(
            volume,
            cinder.service(None, keystone.clone(), &identity_url).unwrap().into_router().unwrap(),
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat/cinder");
    let files = compat::files_below(&folder).unwrap();
    let outcomes = compat::play(&credentials, &files, Mode::Run, 4).await.unwrap();
    servers.iter().for_each(|server| server.abort());
    reporting.abort();
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.failed > 0)
        .map(|outcome| format!("{}\n{}", outcome.path.display(), outcome.said.join("\n")))
        .collect();
    assert!(files.len() >= 6 && failed.is_empty(), "{}", failed.join("\n"));
}
