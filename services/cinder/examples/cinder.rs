//! Identity and block storage alone, volumes as files: `cargo run -p cinder --example cinder -- DIRECTORY PASSWORD`.

use async_trait::async_trait;
use base::{Clock, Context, Error, Result, Secret};
use contracts::{
    compute::{ImageSink, ImageSource},
    images::{Image, ImageMaker, Images, NewImage},
};
use keystone::{Bootstrap, EndpointUrls, Keystone};
use std::{path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

const IDENTITY: &str = "127.0.0.1:15900";
const VOLUME: &str = "127.0.0.1:15976";

struct NoImages;

#[async_trait]
impl Images for NoImages {
    async fn show(&self, _cx: &Context, image_id: &str) -> Result<Image> {
        Err(Error::not_found(format!("No image found with ID {image_id}")))
    }
}

#[async_trait]
impl ImageSource for NoImages {
    async fn download(
        &self,
        _cx: &Context,
        image_id: &str,
        _into: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<()> {
        Err(Error::not_found(format!("No image found with ID {image_id}")))
    }
}

#[async_trait]
impl ImageMaker for NoImages {
    async fn create(&self, _cx: &Context, _image: &NewImage) -> Result<()> {
        Err(Error::conflict("There are no images here."))
    }

    async fn discard(&self, _cx: &Context, _image_id: &str) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl ImageSink for NoImages {
    async fn upload(
        &self,
        _cx: &Context,
        image_id: &str,
        _from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<()> {
        Err(Error::not_found(format!("No image found with ID {image_id}")))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    base::logging::init("info");
    let mut arguments = std::env::args().skip(1);
    let mut next =
        |name: &str| arguments.next().ok_or_else(|| Error::bad_request(format!("{name} is missing")));
    let (directory, password) = (next("DIRECTORY")?, next("PASSWORD")?);
    std::fs::create_dir_all(&directory)?;
    let directory = Path::new(&directory);
    let database = |name: &str| db::Options::new(format!("sqlite:{}/{name}.db", directory.display()));

    let keystone_db = db::Db::open(&database("keystone"), keystone::TABLES, &[]).await?;
    let keystone = Keystone::new(keystone_db, Clock::real(), keystone::Options::default(), directory)?;
    let endpoint = |service_type: &str, name: &str, url: String| EndpointUrls {
        service_type: service_type.into(),
        service_name: name.into(),
        public: url.clone(),
        internal: url.clone(),
        admin: url,
    };
    let endpoints = vec![
        endpoint("identity", "keystone", format!("http://{IDENTITY}/v3")),
        endpoint("block-storage", "cinder", format!("http://{VOLUME}/v3/$(project_id)s")),
    ];
    let (admin_password, region) = (Secret::new(password), "RegionOne".into());
    keystone.bootstrap(Bootstrap { admin_password, region, endpoints, members: Vec::new() }).await?;

    let bus = bus::Bus::local();
    let cinder_db = db::Db::open(&database("cinder"), cinder::TABLES, &[]).await?;
    let peers = cinder::Peers { images: Arc::new(NoImages), image_maker: Arc::new(NoImages) };
    let cinder =
        cinder::Cinder::new(cinder_db, Clock::real(), cinder::Options::default(), bus.clone(), peers);
    let _serving = cinder.start().await?;
    let agent = cinder_volume::on_files(
        cinder_volume::Options::default(),
        directory,
        Arc::new(NoImages),
        Arc::new(NoImages),
    )?;
    let _agent_serving = cinder_volume::serve(&bus, agent.clone()).await?;
    tokio::spawn(cinder_volume::run(agent, cinder.clone()));

    let identity_url = format!("http://{IDENTITY}");
    let identity = keystone.service(None, &identity_url)?.into_router()?;
    let volume = cinder.service(None, keystone.clone(), &identity_url)?.into_router()?;
    let (first, second) = (TcpListener::bind(IDENTITY).await?, TcpListener::bind(VOLUME).await?);
    tokio::try_join!(
        web::serve(first, identity, std::future::pending()),
        web::serve(second, volume, std::future::pending())
    )?;
    Ok(())
}
