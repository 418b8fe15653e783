//! A directory server as the place where the users and groups of a domain live: what its entries say, and whether a
//! password is somebody's. Never written to. Who an entry is here is `directories`'.

use base::{Error, Json, Result};
use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry,
    adapters::{Adapter, EntriesOnly, PagedResults},
    ldap_escape,
};
use serde_json::json;
use std::{collections::HashMap, time::Duration};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What one list may bring at most, and what is asked for at once.
const ENTRIES_MAX: usize = 100_000;
const PAGE: i32 = 500;

/// The options of a domain, by upstream's names; every one has a value.
#[derive(Clone, Debug)]
pub struct Directory {
    options: HashMap<String, Json>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// What the directory knows it by; ours are made of it.
    pub local_id: String,
    pub dn: String,
    pub name: String,
    pub enabled: bool,
    pub default_project_id: Option<String>,
    /// E-mail, description and what else the options name.
    pub extra: Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Circle {
    pub local_id: String,
    pub dn: String,
    pub name: String,
    pub description: String,
    /// Names of entries, or local ids where the options say so.
    pub members: Vec<String>,
}

/// Which entries are asked for.
#[derive(Clone, Debug)]
pub enum Which<'a> {
    All,
    Id(&'a str),
    Name(&'a str),
    /// Groups: those that have this member.
    Member(&'a str),
    /// The entry of this name.
    Dn(&'a str),
}

impl Directory {
    /// `given` over `defaults`.
    pub fn new(defaults: &Json, given: impl IntoIterator<Item = (String, Json)>) -> Self {
        let defaults = defaults.as_object().cloned().unwrap_or_default();
        let mut options: HashMap<String, Json> = defaults.into_iter().collect();
        options.extend(given);
        Self { options }
    }

    pub async fn people(&self, which: Which<'_>) -> Result<Vec<Person>> {
        let mut ldap = self.connect().await?;
        let emulated = match self.is_set("user_enabled_emulation") {
            true => Some(self.enabled_people(&mut ldap).await?),
            false => None,
        };
        let found = self.search(&mut ldap, "user", &self.tree("user"), which).await?;
        drop(ldap.unbind().await);
        Ok(found.into_iter().filter_map(|entry| self.person(entry, emulated.as_deref())).collect())
    }

    pub async fn circles(&self, which: Which<'_>) -> Result<Vec<Circle>> {
        let mut ldap = self.connect().await?;
        let found = self.search(&mut ldap, "group", &self.tree("group"), which).await?;
        drop(ldap.unbind().await);
        Ok(found.into_iter().filter_map(|entry| self.circle(entry)).collect())
    }

    /// Whether the password is that of an entry; without one it takes as long and says no.
    pub async fn is_password_of(&self, dn: Option<&str>, password: &str) -> Result<bool> {
        // A bind without a password succeeds, as nobody.
        if password.is_empty() {
            return Ok(false);
        }
        let nobody = format!("{}=nobody,{}", self.text("user_id_attribute"), self.tree("user"));
        let mut ldap = self.open().await?;
        let bound = ldap.with_timeout(ANSWER_WITHIN).simple_bind(dn.unwrap_or(&nobody), password).await;
        let fits = bound.map_err(away)?.rc == 0;
        drop(ldap.unbind().await);
        Ok(fits && dn.is_some())
    }

    /// The name by which groups know a member.
    pub fn as_member<'a>(&self, person: &'a Person) -> &'a str {
        if self.is_set("group_members_are_ids") { &person.local_id } else { &person.dn }
    }

    /// Who a member of a group is.
    pub fn member<'a>(&self, name: &'a str) -> Which<'a> {
        if self.is_set("group_members_are_ids") { Which::Id(name) } else { Which::Dn(name) }
    }

    async fn open(&self) -> Result<Ldap> {
        let mut settings = LdapConnSettings::new()
            .set_conn_timeout(ANSWER_WITHIN)
            .set_starttls(self.is_set("use_tls"))
            .set_no_tls_verify(self.text("tls_req_cert") == "never");
        if let Some(path) = self.options["tls_cacertfile"].as_str() {
            settings = settings.set_config(trusting(path)?);
        }
        // The first of several that answers.
        let mut last = None;
        for url in self.text("url").split(',') {
            match LdapConnAsync::with_settings(settings.clone(), url.trim()).await {
                Ok((connection, ldap)) => {
                    tokio::spawn(async move {
                        if let Err(error) = connection.drive().await {
                            tracing::debug!(%error, "a connection to a directory ended");
                        }
                    });
                    return Ok(ldap);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| Error::internal("a directory without a URL"), away))
    }

    async fn connect(&self) -> Result<Ldap> {
        let mut ldap = self.open().await?;
        let user = self.text("user");
        if !user.is_empty() {
            let bound = ldap.with_timeout(ANSWER_WITHIN).simple_bind(&user, &self.text("password")).await;
            bound.and_then(ldap3::LdapResult::success).map_err(away)?;
        }
        Ok(ldap)
    }

    async fn search(
        &self,
        ldap: &mut Ldap,
        kind: &str,
        tree: &str,
        which: Which<'_>,
    ) -> Result<Vec<SearchEntry>> {
        let option = |name: &str| self.text(&format!("{kind}_{name}"));
        let is = |attribute: &str, value: &str| format!("({attribute}={})", ldap_escape(value));
        let (base, scope, narrowed) = match which {
            Which::All => (tree, self.scope(), String::new()),
            Which::Id(id) => (tree, self.scope(), is(&option("id_attribute"), id)),
            Which::Name(name) => (tree, self.scope(), is(&option("name_attribute"), name)),
            Which::Member(member) => (tree, self.scope(), is(&self.text("group_member_attribute"), member)),
            Which::Dn(dn) => (dn, Scope::Base, String::new()),
        };
        let filter =
            format!("(&(objectClass={}){}{narrowed})", ldap_escape(option("objectclass")), option("filter"));
        self.entries(ldap, base, scope, &filter).await
    }

    /// What is not there is no entry.
    async fn entries(
        &self,
        ldap: &mut Ldap,
        base: &str,
        scope: Scope,
        filter: &str,
    ) -> Result<Vec<SearchEntry>> {
        const NO_SUCH_OBJECT: u32 = 32;
        let adapters: Vec<Box<dyn Adapter<_, _>>> =
            vec![Box::new(EntriesOnly::new()), Box::new(PagedResults::new(PAGE))];
        let ldap = ldap.with_timeout(ANSWER_WITHIN);
        let mut stream =
            ldap.streaming_search_with(adapters, base, scope, filter, vec!["*"]).await.map_err(away)?;
        let mut found = Vec::new();
        loop {
            match stream.next().await {
                Ok(Some(entry)) if found.len() < ENTRIES_MAX => found.push(SearchEntry::construct(entry)),
                Ok(Some(_)) => {
                    return Err(Error::internal(format!("a directory of over {ENTRIES_MAX} entries")));
                }
                Ok(None) => break,
                Err(LdapError::LdapResult { result }) if result.rc == NO_SUCH_OBJECT => return Ok(Vec::new()),
                Err(error) => return Err(away(error)),
            }
        }
        let end = stream.finish().await;
        match end.rc {
            NO_SUCH_OBJECT => Ok(Vec::new()),
            _ => end.success().map(|_| found).map_err(away),
        }
    }

    /// Where being enabled is being in a group: its members.
    async fn enabled_people(&self, ldap: &mut Ldap) -> Result<Vec<String>> {
        let default = format!("cn=enabled_users,{}", self.tree("user"));
        let named = self.text("user_enabled_emulation_dn");
        let dn = if named.is_empty() { default } else { named };
        let attribute = match self.is_set("user_enabled_emulation_use_group_config") {
            true => self.text("group_member_attribute"),
            false => "member".into(),
        };
        let found = self.entries(ldap, &dn, Scope::Base, "(objectClass=*)").await?;
        let members = found.first().map(|entry| values(entry, &attribute)).unwrap_or_default();
        Ok(members.iter().map(|dn| dn.to_lowercase()).collect())
    }

    fn person(&self, entry: SearchEntry, emulated: Option<&[String]>) -> Option<Person> {
        let attribute = |option: &str| first(&entry, &self.text(&format!("user_{option}_attribute")));
        let mut extra = json!({});
        for (name, option) in [("email", "mail"), ("description", "description")] {
            if let Some(value) = attribute(option).filter(|_| !self.ignores(name)) {
                extra[name] = value.into();
            }
        }
        for pair in self.words("user_additional_attribute_mapping") {
            if let Some((theirs, ours)) = pair.split_once(':')
                && let Some(value) = first(&entry, theirs)
            {
                extra[ours] = value.into();
            }
        }
        let enabled = match emulated {
            Some(members) => members.contains(&entry.dn.to_lowercase()),
            None => self.is_enabled(attribute("enabled")),
        };
        let default_project_id =
            attribute("default_project_id").filter(|_| !self.ignores("default_project_id"));
        let (local_id, name) = (attribute("id")?, attribute("name")?);
        Some(Person { local_id, name, enabled, default_project_id, extra, dn: entry.dn })
    }

    fn is_enabled(&self, value: Option<String>) -> bool {
        let default = || match &self.options["user_enabled_default"] {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        let value = value.unwrap_or_else(default);
        let mask = self.options["user_enabled_mask"].as_i64().unwrap_or_default();
        if mask != 0 {
            return value.parse::<i64>().is_ok_and(|bits| bits & mask != mask);
        }
        self.ignores("enabled") || (value.eq_ignore_ascii_case("true") != self.is_set("user_enabled_invert"))
    }

    fn circle(&self, entry: SearchEntry) -> Option<Circle> {
        let attribute = |option: &str| first(&entry, &self.text(&format!("group_{option}_attribute")));
        Some(Circle {
            local_id: attribute("id")?,
            name: attribute("name")?,
            description: attribute("desc").unwrap_or_default(),
            members: values(&entry, &self.text("group_member_attribute")),
            dn: entry.dn,
        })
    }

    fn tree(&self, kind: &str) -> String {
        let named = self.text(&format!("{kind}_tree_dn"));
        let unit = if kind == "user" { "Users" } else { "UserGroups" };
        if named.is_empty() { format!("ou={unit},{}", self.text("suffix")) } else { named }
    }

    fn scope(&self) -> Scope {
        if self.text("query_scope") == "sub" { Scope::Subtree } else { Scope::OneLevel }
    }

    fn text(&self, name: &str) -> String {
        self.options.get(name).and_then(Json::as_str).unwrap_or_default().to_string()
    }

    fn is_set(&self, name: &str) -> bool {
        match self.options.get(name) {
            Some(Json::String(text)) => text.eq_ignore_ascii_case("true"),
            value => value == Some(&Json::Bool(true)),
        }
    }

    /// A list, or as one text with commas.
    fn words(&self, name: &str) -> Vec<String> {
        match self.options.get(name) {
            Some(Json::Array(words)) => words.iter().filter_map(Json::as_str).map(str::to_string).collect(),
            Some(Json::String(text)) => text.split(',').map(|word| word.trim().to_string()).collect(),
            _ => Vec::new(),
        }
    }

    fn ignores(&self, attribute: &str) -> bool {
        self.words("user_attribute_ignore").iter().any(|word| word == attribute)
    }
}

fn first(entry: &SearchEntry, attribute: &str) -> Option<String> {
    values(entry, attribute).into_iter().find(|value| !value.is_empty())
}

/// Attributes have no case.
fn values(entry: &SearchEntry, attribute: &str) -> Vec<String> {
    let found = entry.attrs.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
    found.map(|(_, values)| values.clone()).unwrap_or_default()
}

/// Only certificates of this file's authorities are taken.
fn trusting(path: &str) -> Result<std::sync::Arc<rustls::ClientConfig>> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let wrong = |e: String| Error::internal(format!("{path}: {e}"));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| wrong(e.to_string()))?;
    Ok(std::sync::Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn away(error: LdapError) -> Error {
    Error::internal(format!("the directory: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain_defaults;

    fn directory(given: Json) -> Directory {
        let given = given.as_object().unwrap().clone();
        Directory::new(&domain_defaults::all()["ldap"], given)
    }

    #[test]
    fn being_enabled_has_many_forms() {
        for (options, value, enabled) in [
            (json!({}), None, true),
            (json!({}), Some("TRUE"), true),
            (json!({}), Some("FALSE"), false),
            (json!({"user_enabled_default": false}), None, false),
            (json!({"user_enabled_invert": true, "user_enabled_default": "False"}), Some("FALSE"), true),
            (json!({"user_enabled_invert": true, "user_enabled_default": "False"}), None, true),
            (json!({"user_enabled_mask": 2, "user_enabled_default": "512"}), None, true),
            (json!({"user_enabled_mask": 2}), Some("514"), false),
            (json!({"user_enabled_mask": 2}), Some("512"), true),
            (json!({"user_enabled_mask": 2}), Some("rubbish"), false),
            (json!({"user_attribute_ignore": ["enabled"]}), Some("FALSE"), true),
        ] {
            assert_eq!(directory(options.clone()).is_enabled(value.map(String::from)), enabled, "{options}");
        }
    }

    #[test]
    fn an_entry_becomes_a_person() {
        let options = json!({"user_name_attribute": "uid", "user_additional_attribute_mapping": "title:job"});
        let entry = |attributes: &[(&str, &str)]| SearchEntry {
            dn: "cn=1,ou=Users".into(),
            attrs: attributes
                .iter()
                .map(|(name, value)| (name.to_string(), vec![value.to_string()]))
                .collect(),
            bin_attrs: HashMap::new(),
        };
        let whole = entry(&[
            ("cn", "1"),
            ("UID", "ann"),
            ("mail", "a@x"),
            ("title", "boss"),
            ("defaultProject", "p"),
        ]);
        let person = directory(options.clone()).person(whole, None).unwrap();
        assert_eq!((person.local_id.as_str(), person.name.as_str(), person.enabled), ("1", "ann", true));
        assert_eq!(person.extra, json!({"email": "a@x", "job": "boss"}));
        assert_eq!(directory(options).person(entry(&[("cn", "1")]), None), None, "nobody without a name");
    }
}
