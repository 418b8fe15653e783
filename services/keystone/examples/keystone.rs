//! Identity alone, on SQLite: `cargo run --example keystone -- DIRECTORY ADDRESS PASSWORD`.

use base::{Clock, Secret};
use keystone::{Bootstrap, EndpointUrls, Keystone, Options, TABLES};
use std::path::Path;

#[tokio::main]
async fn main() -> base::Result<()> {
    base::logging::init("info");
    let mut arguments = std::env::args().skip(1);
    let mut next =
        |name: &str| arguments.next().ok_or_else(|| base::Error::bad_request(format!("{name} is missing")));
    let (directory, address, password) = (next("DIRECTORY")?, next("ADDRESS")?, next("PASSWORD")?);
    std::fs::create_dir_all(&directory)?;
    let url = format!("http://{address}");
    let db = db::Db::open(&db::Options::new(format!("sqlite:{directory}/keystone.db")), TABLES, &[]).await?;
    let keystone = Keystone::new(db, Clock::real(), Options::default(), Path::new(&directory))?;
    let own = EndpointUrls {
        service_type: "identity".into(),
        service_name: "keystone".into(),
        public: format!("{url}/v3"),
        internal: format!("{url}/v3"),
        admin: format!("{url}/v3"),
    };
    let (admin_password, region) = (Secret::new(password), "RegionOne".into());
    keystone
        .bootstrap(Bootstrap { admin_password, region, endpoints: vec![own], members: Vec::new() })
        .await?;
    let router = keystone.service(None, &url)?.into_router()?;
    let listener = tokio::net::TcpListener::bind(&address).await?;
    web::serve(listener, router, std::future::pending()).await
}
