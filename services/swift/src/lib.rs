//! Swift: accounts, containers and objects. Objects' bytes are files, written whole or not at all; all that is known
//! of them is in the database. Who may do what follows from roles and from containers' own lists.

mod acl;
mod answer;
mod api;
mod archive;
mod auth;
mod call;
mod conditional;
mod constraints;
mod content;
mod cors;
mod expirer;
mod files;
mod forms;
mod listing;
mod manifest;
mod media_types;
mod metadata;
mod model;
mod options;
mod quotas;
mod report;
mod segments;
mod signatures;
mod store;
mod symlinks;
mod tempurl;
mod versions;

pub use api::routes;
pub use model::TABLES;
pub use options::Options;

use base::{Clock, Result};
use db::Db;
use files::Files;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// The service. Handlers get it in an `Arc`.
pub struct Swift {
    db: Db,
    clock: Clock,
    options: Options,
    files: Files,
}

const SERVICE: web::Declaration<Swift> = web::Declaration {
    name: "swift",
    routes: api::routes,
    // Swift asks roles and access lists, never a policy file.
    rules: &[],
    refusal: |_| String::new(),
    faults: web::Faults::Swift,
    microversions: None,
    prefixes: &[web::Prefix { from: "/v1.0", to: "/v1", lowest_microversion: false }],
    body_bytes_max: 1 << 20,
};

/// How many files one question to the database is about.
const SWEPT_AT_ONCE: usize = 500;

impl Swift {
    /// On a database opened with [`TABLES`]; objects are files below `directory` unless the options say otherwise.
    pub fn new(db: Db, clock: Clock, options: Options, directory: &Path) -> Result<Arc<Self>> {
        let files = match options.directory.as_str() {
            "" => Files::open(directory)?,
            other => Files::open(Path::new(other))?,
        };
        Ok(Arc::new(Self { db, clock, options, files }))
    }

    /// Clears away what an earlier process left half done, then removes objects when their time comes, as long as the
    /// task is kept.
    pub async fn start(self: &Arc<Self>) -> Result<JoinHandle<()>> {
        self.sweep().await?;
        Ok(tokio::spawn(expirer::run(self.clone())))
    }

    /// The HTTP service.
    pub fn service(
        self: &Arc<Self>,
        overrides: Option<&str>,
        identity: Arc<dyn web::Authenticate>,
        identity_url: &str,
    ) -> Result<web::Service<Self>> {
        SERVICE.serve(self, overrides, identity, identity_url)
    }

    /// Files that no object has. On a database of its own nobody writes at start; on a shared one another node may, and
    /// only what is old is removed.
    async fn sweep(self: &Arc<Self>) -> Result<()> {
        let age = match self.db.is_postgres() {
            true => Duration::from_secs(self.options.orphan_age_seconds),
            false => Duration::ZERO,
        };
        let cut_off = self.files.forget_cut_off(age)?;
        let mut orphans = 0;
        for some in self.files.old(age)?.chunks(SWEPT_AT_ONCE) {
            let some = some.to_vec();
            let unknown = self.db.read(move |tx| {
                let mut unknown = Vec::new();
                for file in &some {
                    if !store::is_file_known(tx, file)? {
                        unknown.push(file.clone());
                    }
                }
                Ok(unknown)
            });
            for file in unknown.await? {
                self.files.remove(&file)?;
                orphans += 1;
            }
        }
        if cut_off + orphans > 0 {
            tracing::info!(cut_off, orphans, "removed files without an object");
        }
        Ok(())
    }

    /// Removes the objects whose time has come; how many.
    pub async fn expire(&self) -> Result<usize> {
        expirer::once(self).await
    }
}
