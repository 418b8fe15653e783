//! Domains whose users and groups live in a directory. What it says of them is kept in our tables, as the rest of
//! keystone knows users, and read again whenever one logs in or is looked at.

use crate::{
    Keystone, domain_defaults,
    federation::public_id,
    ldap::{Circle, Directory, Person, Which},
    model::*,
    store,
};
use base::{Error, Json, Result, Secret, Timestamp};
use db::{List, Resource, Tx};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

/// Made of a digest; ids that we choose are shorter.
const PUBLIC_ID_LETTERS: usize = 64;

impl Keystone {
    /// The directory of a domain that has one. A domain's own configuration comes before the file's.
    pub(crate) async fn directory_of(&self, domain_id: &str) -> Result<Option<Directory>> {
        let id = domain_id.to_string();
        let (name, own) = self
            .read(move |tx| {
                let own = tx.list::<DomainOption>(&List::all().eq("domain_id", id.as_str()))?;
                Ok((tx.find::<Project>(&id)?.map(|domain| domain.name), own))
            })
            .await?;
        let defaults = &domain_defaults::all()["ldap"];
        let is_driver = |option: &&DomainOption| option.section == "identity" && option.name == "driver";
        if let Some(driver) = own.iter().find(is_driver) {
            if driver.value != "ldap" {
                return Ok(None);
            }
            let mut options = Vec::new();
            for option in own.into_iter().filter(|option| option.section == "ldap") {
                let value = match (&option.value, option.sensitive) {
                    (Json::String(sealed), true) => serde_json::from_str(&self.reveal(sealed)?)?,
                    (value, _) => value.clone(),
                };
                options.push((option.name, value));
            }
            return Ok(Some(Directory::new(defaults, options)));
        }
        let in_file = name.and_then(|name| self.options.ldap.get(&name));
        Ok(in_file.map(|options| Directory::new(defaults, options.clone())))
    }

    /// Directories are not written to.
    pub(crate) async fn check_writable(&self, domain_id: &str) -> Result<()> {
        match self.directory_of(domain_id).await? {
            Some(_) => Err(Error::forbidden("LDAP does not support write operations")),
            None => Ok(()),
        }
    }

    /// The users of a domain (or of each that has a directory) as the directory has them now.
    pub(crate) async fn refresh_users(&self, asked: Option<&str>, name: Option<&str>) -> Result<()> {
        for (domain_id, directory) in self.directories(asked).await? {
            let which = name.map_or(Which::All, Which::Name);
            let Some(people) = answered(asked, &domain_id, directory.people(which).await)? else { continue };
            self.keep_people(&domain_id, people, name.is_none()).await?;
        }
        Ok(())
    }

    pub(crate) async fn refresh_groups(&self, asked: Option<&str>, name: Option<&str>) -> Result<()> {
        for (domain_id, directory) in self.directories(asked).await? {
            let which = name.map_or(Which::All, Which::Name);
            let Some(circles) = answered(asked, &domain_id, directory.circles(which).await)? else {
                continue;
            };
            self.keep_circles(&domain_id, circles, name.is_none()).await?;
        }
        Ok(())
    }

    /// One user that came from a directory, with its groups, unless that was read lately.
    pub(crate) async fn refresh_user(&self, id: &str, older_than: Duration) -> Result<()> {
        let Some((entry, directory)) = self.entry(id, older_than).await? else { return Ok(()) };
        let found = directory.people(Which::Id(&entry.local_id)).await?;
        match only(found) {
            Some(person) => self.keep_with_groups(&entry.domain_id, &directory, person).await.map(drop),
            None => self.forget(entry).await,
        }
    }

    /// One group that came from a directory, with its members.
    pub(crate) async fn refresh_group(&self, id: &str) -> Result<()> {
        let Some((entry, directory)) = self.entry(id, Duration::ZERO).await? else { return Ok(()) };
        let Some(circle) = only(directory.circles(Which::Id(&entry.local_id)).await?) else {
            return self.forget(entry).await;
        };
        let mut people = Vec::new();
        for member in &circle.members {
            people.extend(only(directory.people(directory.member(member)).await?));
        }
        let user_ids = self.keep_people(&entry.domain_id, people, false).await?;
        self.keep_circles(&entry.domain_id, vec![circle], false).await?;
        let id = id.to_string();
        self.keep_memberships(
            "group_id",
            id.clone(),
            user_ids.into_iter().map(|user_id| (user_id, id.clone())),
        )
        .await
    }

    /// The user that a login names, where its domain has a directory: outer None where it has none, inner None where
    /// the password is not that user's.
    pub(crate) async fn by_directory(
        &self,
        domain_id: &str,
        named: &Json,
        password: &Secret,
    ) -> Result<Option<Option<User>>> {
        let Some(directory) = self.directory_of(domain_id).await? else { return Ok(None) };
        let found = match (named["name"].as_str(), named["id"].as_str()) {
            (Some(name), _) => directory.people(Which::Name(name)).await?,
            (None, id) => match self.entry(id.unwrap_or_default(), Duration::ZERO).await? {
                Some((entry, _)) => directory.people(Which::Id(&entry.local_id)).await?,
                None => Vec::new(),
            },
        };
        let person = only(found);
        let dn = person.as_ref().map(|person| person.dn.as_str());
        let fits = directory.is_password_of(dn, password.expose()).await?;
        let Some(person) = person else { return Ok(Some(None)) };
        let user = self.keep_with_groups(domain_id, &directory, person).await?;
        let now = self.clock.now();
        if self.options.security_compliance.is_locked(&user, now) {
            return Ok(Some(None));
        }
        if !fits {
            self.count_failure(&user, now).await?;
        }
        Ok(Some(Some(user).filter(|user| fits && user.enabled)))
    }

    async fn directories(&self, domain_id: Option<&str>) -> Result<Vec<(String, Directory)>> {
        let domain_ids = match domain_id {
            Some(id) => vec![id.to_string()],
            None => {
                let names: Vec<String> = self.options.ldap.keys().cloned().collect();
                self.read(move |tx| store::domains_with_directories(tx, &names)).await?
            }
        };
        let mut found = Vec::new();
        for id in domain_ids {
            if let Some(directory) = self.directory_of(&id).await? {
                found.push((id, directory));
            }
        }
        Ok(found)
    }

    /// What a user or group is in its directory, if it came from one and was not read lately.
    async fn entry(&self, id: &str, older_than: Duration) -> Result<Option<(DirectoryEntry, Directory)>> {
        if id.len() != PUBLIC_ID_LETTERS {
            return Ok(None);
        }
        let (key, now) = (id.to_string(), self.clock.now());
        let Some(entry) = self.read(move |tx| tx.find::<DirectoryEntry>(&key)).await? else {
            return Ok(None);
        };
        if now.since(entry.read_at) < older_than {
            return Ok(None);
        }
        match self.directory_of(&entry.domain_id).await? {
            Some(directory) => Ok(Some((entry, directory))),
            // The domain left its directory, and with it whoever lived there.
            None => self.forget(entry).await.map(|()| None),
        }
    }

    async fn keep_with_groups(&self, domain_id: &str, directory: &Directory, person: Person) -> Result<User> {
        let circles = directory.circles(Which::Member(directory.as_member(&person))).await?;
        let user_ids = self.keep_people(domain_id, vec![person], false).await?;
        let group_ids = self.keep_circles(domain_id, circles, false).await?;
        let user_id = user_ids.into_iter().next().unwrap_or_default();
        let pairs = group_ids.into_iter().map(|group_id| (user_id.clone(), group_id));
        self.keep_memberships("user_id", user_id.clone(), pairs).await?;
        self.read(move |tx| store::find::<User>(tx, &user_id)).await
    }

    /// Answers their ids. `all`: who is not among them is gone.
    async fn keep_people(&self, domain_id: &str, people: Vec<Person>, all: bool) -> Result<Vec<String>> {
        let (domain_id, now) = (domain_id.to_string(), self.clock.now());
        let changed = self.write_if_new(move |tx, is_dry| {
            let mut kept = Kept::new(&domain_id, EntryKind::User, now, is_dry);
            for person in &people {
                let id = kept.entry(tx, &person.local_id, &person.dn)?;
                let held = tx.find::<User>(&id)?;
                let user = user_of(&domain_id, &id, person, held.as_ref());
                let differs = held.as_ref().is_none_or(|held| held.values() != user.values());
                if differs {
                    let other = store::user_by_name(tx, &user.name, &domain_id)?;
                    kept.put(
                        tx,
                        &user,
                        held.is_none(),
                        other.filter(|other| other.id != id).map(|one| one.id),
                    )?;
                }
            }
            kept.finish::<User>(tx, all)
        });
        changed.await
    }

    async fn keep_circles(&self, domain_id: &str, circles: Vec<Circle>, all: bool) -> Result<Vec<String>> {
        let (domain_id, now) = (domain_id.to_string(), self.clock.now());
        let changed = self.write_if_new(move |tx, is_dry| {
            let mut kept = Kept::new(&domain_id, EntryKind::Group, now, is_dry);
            for circle in &circles {
                let id = kept.entry(tx, &circle.local_id, &circle.dn)?;
                let held = tx.find::<Group>(&id)?;
                let group = Group {
                    id: id.clone(),
                    name: circle.name.clone(),
                    domain_id: domain_id.clone(),
                    description: circle.description.clone(),
                    extra: json!({}),
                };
                let differs = held.as_ref().is_none_or(|held| held.values() != group.values());
                if differs {
                    let wanted =
                        List::all().eq("domain_id", domain_id.as_str()).eq("name", group.name.as_str());
                    let other = tx.list::<Group>(&wanted)?.into_iter().find(|other| other.id != id);
                    kept.put(tx, &group, held.is_none(), other.map(|one| one.id))?;
                }
            }
            kept.finish::<Group>(tx, all)
        });
        changed.await
    }

    /// A user's groups or a group's users are now these.
    async fn keep_memberships(
        &self,
        column: &'static str,
        id: String,
        pairs: impl Iterator<Item = (String, String)>,
    ) -> Result<()> {
        let wanted: BTreeSet<(String, String)> = pairs.collect();
        self.write_if_new(move |tx, is_dry| {
            let held = tx.list::<Membership>(&List::all().eq(column, id.as_str()))?;
            let held: BTreeSet<_> = held.into_iter().map(|one| (one.user_id, one.group_id)).collect();
            if is_dry {
                return Ok((if held == wanted { Change::None } else { Change::Rows }, ()));
            }
            for (user_id, group_id) in held.difference(&wanted).cloned() {
                tx.delete::<Membership>(&Membership { user_id, group_id }.values())?;
            }
            for (user_id, group_id) in wanted.difference(&held).cloned() {
                tx.insert(&Membership { user_id, group_id })?;
            }
            Ok((Change::Rows, ()))
        })
        .await
    }

    /// Writes only what differs: first dry, then if anything does.
    async fn write_if_new<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx, bool) -> Result<(Change, T)> + Clone + Send + 'static,
    ) -> Result<T> {
        let dry = work.clone();
        let (change, found) = self.read(move |tx| dry(tx, true)).await?;
        let (_, found) = match change {
            Change::None => return Ok(found),
            Change::Notes => self.db.write(move |tx| work(tx, false)).await?,
            Change::Rows => self.write(move |tx| work(tx, false)).await?,
        };
        Ok(found)
    }

    /// Who is gone from the directory is gone here; its rights wait for it to come back.
    async fn forget(&self, entry: DirectoryEntry) -> Result<()> {
        self.write(move |tx| forget(tx, &entry)).await
    }
}

/// A directory that does not answer is an error for who asks of its domain, not for who asks of all.
fn answered<T>(asked: Option<&str>, domain_id: &str, answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if asked.is_none() => {
            tracing::warn!(domain_id, %error, "its directory does not answer: what was known is listed");
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

fn forget(tx: &mut Tx, entry: &DirectoryEntry) -> Result<()> {
    match entry.kind {
        EntryKind::User => tx.remove::<User>(&entry.id)?,
        EntryKind::Group => tx.remove::<Group>(&entry.id)?,
    };
    store::forget_memberships(tx, &entry.id)
}

/// Notes of when an entry was read concern nobody's token.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Change {
    None,
    Notes,
    Rows,
}

/// What of a directory's entries is written, or would be.
struct Kept {
    domain_id: String,
    kind: EntryKind,
    now: Timestamp,
    is_dry: bool,
    change: Change,
    ids: Vec<String>,
}

/// How old the note of an entry's last reading may be before it is written anew.
const NOTED_EVERY: Duration = Duration::from_secs(30);

impl Kept {
    fn new(domain_id: &str, kind: EntryKind, now: Timestamp, is_dry: bool) -> Self {
        Self { domain_id: domain_id.into(), kind, now, is_dry, change: Change::None, ids: Vec::new() }
    }

    fn entry(&mut self, tx: &mut Tx, local_id: &str, dn: &str) -> Result<String> {
        let id = public_id(&self.domain_id, self.kind.as_str(), local_id);
        let known = tx.find::<DirectoryEntry>(&id)?;
        let fresh = |entry: &DirectoryEntry| entry.dn == dn && self.now.since(entry.read_at) < NOTED_EVERY;
        if !known.as_ref().is_some_and(fresh) {
            self.found(Change::Notes);
            let entry = DirectoryEntry {
                id: id.clone(),
                domain_id: self.domain_id.clone(),
                kind: self.kind,
                local_id: local_id.into(),
                dn: dn.into(),
                read_at: self.now,
            };
            match (self.is_dry, known.is_some()) {
                (true, _) => {}
                (false, true) => drop(tx.update(&entry)?),
                (false, false) => tx.insert(&entry)?,
            }
        }
        self.ids.push(id.clone());
        Ok(id)
    }

    fn found(&mut self, change: Change) {
        if change > self.change {
            self.change = change;
        }
    }

    /// `other`: had the name before; two of one name in one directory are one too many, and the last is seen.
    fn put<T: Resource>(&mut self, tx: &mut Tx, row: &T, is_new: bool, other: Option<String>) -> Result<()> {
        self.found(Change::Rows);
        if self.is_dry {
            return Ok(());
        }
        if let Some(other) = other {
            tx.remove::<T>(&other)?;
        }
        match is_new {
            true => tx.insert(row),
            false => tx.update(row).map(drop),
        }
    }

    fn finish<T: Resource>(mut self, tx: &mut Tx, all: bool) -> Result<(Change, Vec<String>)> {
        if all {
            let seen: BTreeSet<String> = self.ids.iter().cloned().collect();
            let wanted = List::all().eq("domain_id", self.domain_id.as_str()).eq("kind", self.kind);
            for entry in tx.list::<DirectoryEntry>(&wanted)?.iter().filter(|entry| !seen.contains(&entry.id))
            {
                if tx.find::<T>(&entry.id)?.is_none() {
                    continue;
                }
                self.found(Change::Rows);
                if !self.is_dry {
                    forget(tx, entry)?;
                }
            }
        }
        Ok((self.change, self.ids))
    }
}

fn user_of(domain_id: &str, id: &str, person: &Person, held: Option<&User>) -> User {
    User {
        id: id.into(),
        name: person.name.clone(),
        domain_id: domain_id.into(),
        enabled: person.enabled,
        default_project_id: person.default_project_id.clone(),
        password_hash: None,
        password_changed_at: None,
        password_expires_at: None,
        password_set_by_owner: false,
        failed_logins: held.map_or(0, |held| held.failed_logins),
        failed_login_at: held.and_then(|held| held.failed_login_at),
        last_active_at: held.and_then(|held| held.last_active_at),
        options: json!({}),
        extra: person.extra.clone(),
    }
}

/// None of several: a name that two have is nobody's.
fn only<T>(found: Vec<T>) -> Option<T> {
    let mut found = found.into_iter();
    found.next().filter(|_| found.next().is_none())
}
