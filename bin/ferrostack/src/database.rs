//! What an operator does to the whole cloud's state: copy it to another database, say what an upgrade would do, back it
//! up and restore it.

use crate::{Settings, say::say, shared, state, state::Running};
use base::{Error, Result};
use db::{Db, Migration, Table, copy::Schema};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A database and what is in it.
struct Part {
    name: &'static str,
    tables: &'static [&'static Table],
    migrations: &'static [Migration],
}

/// Every one there is. What control nodes share has tables of its own beside the hosts'.
const PARTS: [Part; 9] = [
    Part { name: "keystone", tables: keystone::TABLES, migrations: &[] },
    Part { name: "glance", tables: glance::TABLES, migrations: glance::MIGRATIONS },
    Part { name: "placement", tables: placement::TABLES, migrations: &[] },
    Part { name: "neutron", tables: neutron::TABLES, migrations: neutron::MIGRATIONS },
    Part { name: "cinder", tables: cinder::TABLES, migrations: cinder::MIGRATIONS },
    Part { name: "nova", tables: nova::TABLES, migrations: nova::MIGRATIONS },
    Part { name: "swift", tables: swift::TABLES, migrations: &[] },
    Part { name: "hosts", tables: hosts::TABLES, migrations: &[] },
    Part { name: "hosts", tables: shared::TABLES, migrations: &[] },
];

/// A service's, made or brought up to date when it is not.
pub async fn open(settings: &Settings, service: &str) -> Result<Db> {
    let part = PARTS.iter().find(|part| part.name == service);
    let part = part.ok_or_else(|| Error::internal(format!("{service} has no database")))?;
    Db::open(&settings.database(service), part.tables, part.migrations).await
}

/// Files of a control node beside its databases; images and objects are big and come last.
const KEPT: [&str; 10] = [
    "secrets.toml",
    "begun",
    "fernet-keys",
    "credential-keys",
    "jws-keys",
    "saml",
    "ferrostack.toml",
    "policy",
    "images",
    "objects",
];
const BACKUP_DATABASES: &str = "db";

/// The whole cloud of a stopped control node into another database.
pub fn copy(settings: &Settings, to: &str) -> Result<()> {
    let _running = stopped(settings)?;
    let mut target = settings.clone();
    target.options.database = to.into();
    if settings.database("nova").url == target.database("nova").url {
        return Err(Error::bad_request("that is the database that the cloud has"));
    }
    let rows = block_on(copy_all(settings, &target, true))?;
    say!("{rows} rows copied. To use them, in ferrostack.toml:\n\n[ferrostack]\ndatabase = \"{to}\"");
    Ok(())
}

async fn copy_all(from: &Settings, to: &Settings, tell: bool) -> Result<usize> {
    let mut sum = 0;
    for part in &PARTS {
        if !exists(from, part) {
            continue;
        }
        let source = Db::open(&from.database(part.name), part.tables, part.migrations).await?;
        let target = Db::open(&to.database(part.name), part.tables, part.migrations).await?;
        let copied = db::copy::copy(&source, &target, part.tables).await.map_err(|mut error| {
            error.message = format!("{}: {}", part.name, error.message);
            error
        })?;
        for copied in copied.iter().filter(|copied| copied.rows > 0) {
            if tell {
                say!("{:<10} {:<40} {:>9}", part.name, copied.table, copied.rows);
            }
            sum += copied.rows;
        }
    }
    Ok(sum)
}

/// A cloud without hosts of its own has no database of them.
fn exists(settings: &Settings, part: &Part) -> bool {
    match settings.database(part.name).url.strip_prefix("sqlite:") {
        Some(path) => Path::new(path).exists(),
        None => true,
    }
}

/// A service's database as the running cloud has it; none where it has none yet.
pub async fn existing(settings: &Settings, service: &str) -> Result<Option<Db>> {
    let Some(part) = PARTS.iter().find(|part| part.name == service && exists(settings, part)) else {
        return Ok(None);
    };
    let options = settings.database(service);
    match db::copy::schema(&options, part.tables, part.migrations).await? {
        Schema::New => Ok(None),
        Schema::Current => Db::open(&options, part.tables, part.migrations).await.map(Some),
        Schema::Older(_) | Schema::Newer { .. } => {
            Err(Error::conflict(format!("another version of this program has the database of {service}")))
        }
    }
}

/// What the next start would do to the databases; an error when this program may not have them.
pub fn check(settings: &Settings) -> Result<()> {
    let mut newer = 0;
    for part in &PARTS {
        let schema = block_on(db::copy::schema(&settings.database(part.name), part.tables, part.migrations))?;
        let said = match schema {
            Schema::New => "is made at the first start".into(),
            Schema::Current => "is as this program has it".into(),
            Schema::Older(names) => format!("is older; the next start migrates it: {}", names.join(", ")),
            Schema::Newer { found, known } => {
                newer += 1;
                format!("is newer: schema {found}, this program knows up to {known}")
            }
        };
        say!("{:<10} {:<16} {said}", part.name, part.tables.first().map_or("", |table| table.name));
    }
    match newer {
        0 => Ok(()),
        _ => Err(Error::conflict("a newer program has used this cloud: this one would not start")),
    }
}

/// Everything of the control plane into a new directory. Each database as it is at one moment; of a cloud that runs,
/// these moments are seconds apart.
pub fn backup(settings: &Settings, to: &Path, images: bool) -> Result<()> {
    if !state::exists(&settings.state) {
        return Err(Error::not_found(format!("no cloud was ever on {}", settings.state.display())));
    }
    if to.exists() {
        return Err(Error::conflict(format!("{} is there already", to.display())));
    }
    state::make_directory(&to.join(BACKUP_DATABASES), 0o700)?;
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let rows = block_on(copy_all(settings, &on_files(settings, to)?, false))?;
    let mut files = 0;
    for name in KEPT.iter().filter(|name| images || **name != "images") {
        files += copy_files(&settings.state.join(name), &to.join(name))?;
    }
    say!("{rows} rows and {files} files are in {}.", to.display());
    Ok(())
}

/// A backup into a state directory without a cloud, and the database that its configuration names.
pub fn restore(settings: &Settings, from: &Path) -> Result<()> {
    if !from.join(BACKUP_DATABASES).is_dir() || !from.join("secrets.toml").exists() {
        return Err(Error::bad_request(format!("{} is no backup", from.display())));
    }
    if settings.state.join("secrets.toml").exists() {
        return Err(Error::conflict(format!("{} has a cloud already", settings.state.display())));
    }
    let _running = Running::take(&settings.state, settings.listen)?;
    state::make_directory(&settings.state.join("db"), 0o700)?;
    let rows = block_on(copy_all(&on_files(settings, from)?, settings, false))?;
    let mut files = 0;
    for name in KEPT {
        // The configuration of this machine, when it has one, is the newer one.
        if name != "ferrostack.toml" || !settings.state.join(name).exists() {
            files += copy_files(&from.join(name), &settings.state.join(name))?;
        }
    }
    say!("{rows} rows and {files} files are in place. Start it: ferrostack run.");
    Ok(())
}

/// The same cloud on SQLite files below a directory.
fn on_files(settings: &Settings, directory: &Path) -> Result<Settings> {
    let mut on_files = settings.clone();
    on_files.state = std::path::absolute(directory)?;
    on_files.options.database = "sqlite".into();
    Ok(on_files)
}

fn copy_files(from: &PathBuf, to: &PathBuf) -> Result<usize> {
    if from.is_file() {
        // With its mode; a partial file of an upload that runs is copied as it is.
        fs::copy(from, to)?;
        return Ok(1);
    }
    if !from.is_dir() {
        return Ok(0);
    }
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    let mut count = 0;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        count += copy_files(&from.join(&name), &to.join(&name))?;
    }
    Ok(count)
}

fn stopped(settings: &Settings) -> Result<Running> {
    if !state::exists(&settings.state) {
        return Err(Error::not_found(format!("no cloud was ever on {}", settings.state.display())));
    }
    Running::take(&settings.state, settings.listen)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new()?.block_on(work)
}
