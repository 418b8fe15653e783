//! What all control nodes of a cloud have alike: secrets and keys, which each has as files and the shared database keeps;
//! work that one of them does while the others wait; and word that what one remembers of tokens holds no more.

use crate::{Settings, state};
use base::{Clock, Context, Error, Result, Timestamp, id};
use bus::{Bus, Handlers, Message, Serving, Topic};
use db::{Db, List, Resource, Table, Tx, params, sql};
use keystone::Keystone;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Mutex, task::JoinHandle};

/// Single files and whole folders below the state directory.
const FILES: [&str; 2] = ["secrets.toml", state::BEGUN];
const FOLDERS: [&str; 4] = ["fernet-keys", "credential-keys", "jws-keys", "saml"];

/// A key is known everywhere before it is used: it is staged for hours, and copied as often as this.
const COPIED_EVERY: Duration = Duration::from_secs(10);
/// Who does something alone and dies over it is waited for as long as this.
const ALONE_FOR: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub const TABLES: &[&Table] = &[SharedFile::TABLE, Alone::TABLE];

#[derive(Clone, Debug, Resource)]
#[resource(table = "shared_file")]
struct SharedFile {
    #[field(key)]
    path: String,
    content: String,
}

#[derive(Clone, Debug, Resource)]
#[resource(table = "alone")]
struct Alone {
    #[field(key)]
    name: String,
    owner: String,
    expires_at: Timestamp,
}

type Files = BTreeMap<String, String>;

/// Of a cloud whose database can be shared.
pub struct Shared {
    db: Db,
    clock: Clock,
    directory: PathBuf,
    /// As they were when this node and the database last agreed.
    agreed: Mutex<Files>,
}

impl Shared {
    /// None where the database is a file of this machine.
    pub async fn open(settings: &Settings, clock: &Clock) -> Result<Option<Arc<Self>>> {
        let options = settings.database("hosts");
        if options.url.starts_with("sqlite:") {
            return Ok(None);
        }
        let db = Db::open(&options, TABLES, &[]).await?;
        let (clock, directory) = (clock.clone(), settings.state.clone());
        Ok(Some(Arc::new(Self { db, clock, directory, agreed: Mutex::default() })))
    }

    /// Does something that two control nodes shall not do at once, with the files as the one before has left them.
    pub async fn alone<T>(&self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let owner = id::uuid();
        while !self.take(name, &owner).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.agree().await?;
        let done = work.await;
        let agreed = self.agree().await;
        let (name, owner) = (name.to_string(), owner);
        self.db
            .write(move |tx| {
                tx.execute(sql!("DELETE FROM alone WHERE name = $1 AND owner = $2"), params![name, owner])
            })
            .await?;
        agreed.and(done)
    }

    async fn take(&self, name: &str, owner: &str) -> Result<bool> {
        let (name, owner, now) = (name.to_string(), owner.to_string(), self.clock.now());
        let expires_at = now.plus(ALONE_FOR);
        let taken = self
            .db
            .write(move |tx| {
                tx.execute(
                    sql!(
                        "INSERT INTO alone (name, owner, expires_at) VALUES ($1, $2, $3)
                         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
                         WHERE alone.expires_at < $4"
                    ),
                    params![name, owner, expires_at, now],
                )
            })
            .await?;
        Ok(taken > 0)
    }

    /// Brings what changed here to the database, unless it changed there too: then that counts.
    pub async fn agree(&self) -> Result<()> {
        let mut agreed = self.agreed.lock().await;
        let (here, before) = (read(&self.directory)?, agreed.clone());
        let mine = here.clone();
        let there = self
            .db
            .write(move |tx| {
                let there = kept(tx)?;
                // What others have beyond us is not gone, only not here yet.
                if mine != before && (there == before || there.is_empty()) {
                    keep(tx, &mine)?;
                    return Ok(mine.clone());
                }
                Ok(there)
            })
            .await?;
        if there != here {
            write(&self.directory, &here, &there)?;
        }
        *agreed = there;
        Ok(())
    }

    /// Agrees again and again until it is aborted.
    pub fn keep_agreeing(self: &Arc<Self>) -> JoinHandle<()> {
        let shared = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(COPIED_EVERY).await;
                if let Err(error) = shared.agree().await {
                    tracing::warn!(%error, "keys and secrets were not compared with those of the other control nodes");
                }
            }
        })
    }
}

fn kept(tx: &mut Tx) -> Result<Files> {
    let rows = tx.list::<SharedFile>(&List::all())?;
    Ok(rows.into_iter().map(|row| (row.path, row.content)).collect())
}

fn keep(tx: &mut Tx, files: &Files) -> Result<()> {
    tx.execute(sql!("DELETE FROM shared_file"), &[])?;
    files.iter().try_for_each(|(path, content)| {
        tx.insert(&SharedFile { path: path.clone(), content: content.clone() })
    })
}

fn read(directory: &Path) -> Result<Files> {
    let mut files = Files::new();
    for file in FILES {
        match fs::read_to_string(directory.join(file)) {
            Ok(content) => drop(files.insert(file.into(), content)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    for folder in FOLDERS {
        read_folder(directory, Path::new(folder), &mut files)?;
    }
    Ok(files)
}

fn read_folder(directory: &Path, folder: &Path, files: &mut Files) -> Result<()> {
    let entries = match fs::read_dir(directory.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read_folder(directory, &path, files)?;
        } else if path.extension().is_none_or(|extension| extension != "new") {
            let content = fs::read_to_string(entry.path())?;
            files.insert(path.display().to_string(), content);
        }
    }
    Ok(())
}

/// New files first: at no moment is a key missing that something was made with.
fn write(directory: &Path, here: &Files, there: &Files) -> Result<()> {
    for (path, content) in there.iter().filter(|(path, content)| here.get(*path) != Some(content)) {
        let target = directory.join(path);
        let wrong = || Error::internal(format!("'{path}' in the database is no path of ours"));
        if Path::new(path).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(wrong());
        }
        if let Some(folder) = target.parent().filter(|folder| *folder != directory) {
            state::make_directory(folder, 0o700)?;
        }
        state::write_private(&target, content)?;
    }
    for path in here.keys().filter(|path| !there.contains_key(*path)) {
        fs::remove_file(directory.join(path))?;
    }
    Ok(())
}

/// What one control node wrote may change what tokens are good for.
#[derive(Serialize, Deserialize)]
struct TokensChanged {
    /// The process that wrote; it has forgotten already.
    by: String,
}

impl Message for TokensChanged {
    const NAME: &'static str = "tokens.changed";
    type Reply = ();
}

const IDENTITY_TOPIC: &str = "keystone";

/// Tells the other control nodes, and hears them, until the answers are dropped and aborted.
pub async fn tell_of_tokens(bus: &Bus, keystone: &Arc<Keystone>) -> Result<(Serving, JoinHandle<()>)> {
    let me = id::uuid();
    let (hearing, by) = (keystone.clone(), me.clone());
    let handlers = Handlers::new().on(move |_, changed: TokensChanged| {
        if changed.by != by {
            hearing.forget_cached();
        }
        async { Ok(()) }
    });
    let serving = bus.serve(Topic::any(IDENTITY_TOPIC), handlers).await?;
    let (bus, keystone) = (bus.clone(), keystone.clone());
    let telling = tokio::spawn(async move {
        loop {
            keystone.changed().await;
            let (cx, changed) = (Context::internal(), TokensChanged { by: me.clone() });
            if let Err(error) = bus.fanout(&cx, IDENTITY_TOPIC, &changed).await {
                tracing::warn!(%error, "other control nodes believe their caches until they expire");
            }
        }
    });
    Ok((serving, telling))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn node(db: &Db) -> (tempfile::TempDir, Shared) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_path_buf();
        (directory, Shared { db: db.clone(), clock: Clock::real(), directory: at, agreed: Mutex::default() })
    }

    fn put(directory: &tempfile::TempDir, path: &str, content: &str) {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[tokio::test]
    async fn nodes_come_to_have_the_same_files() {
        for test in db::testing::all(TABLES, &[]).await.unwrap() {
            let ((a, on_a), (b, on_b)) = (node(&test.db).await, node(&test.db).await);
            let same = || read(a.path()).unwrap() == read(b.path()).unwrap();
            put(&a, "secrets.toml", "s");
            put(&a, "fernet-keys/0", "staged");
            put(&a, "fernet-keys/1", "primary");
            put(&a, "jws-keys/private/private.pem", "p");
            on_a.agree().await.unwrap();
            // Another one that has made its own takes those that are there.
            put(&b, "secrets.toml", "other");
            put(&b, "saml/key.pem", "other");
            on_b.agree().await.unwrap();
            assert!(same() && !b.path().join("saml/key.pem").exists());
            // Rotated on b: what was staged is the newest.
            put(&b, "fernet-keys/2", "staged");
            put(&b, "fernet-keys/0", "new");
            on_b.agree().await.unwrap();
            // And on a at the same time: one counts.
            put(&a, "fernet-keys/2", "staged");
            put(&a, "fernet-keys/0", "lost");
            on_a.agree().await.unwrap();
            on_b.agree().await.unwrap();
            assert!(same());
            assert_eq!(read(a.path()).unwrap()["fernet-keys/0"], "new");
        }
    }

    #[tokio::test]
    async fn one_at_a_time() {
        for test in db::testing::all(TABLES, &[]).await.unwrap() {
            let ((_a, on_a), (_b, on_b)) = (node(&test.db).await, node(&test.db).await);
            assert!(on_a.take("x", "a").await.unwrap());
            assert!(!on_b.take("x", "b").await.unwrap() && on_b.take("y", "b").await.unwrap());
            let one = on_a.alone("z", async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(())
            });
            let other = on_b.alone("z", async { Ok(()) });
            let (one, other) = tokio::join!(one, other);
            one.and(other).unwrap();
        }
    }
}
