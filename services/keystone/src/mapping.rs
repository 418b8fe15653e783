//! The mapping language: rules that make of what an identity provider asserts a user with groups and projects.
//! Pure; whether those groups and projects are there is asked by who uses it.

use base::{Error, Json, Result};
use fancy_regex::Regex;
use schema::{Dialect, Schema, python};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeMap, sync::LazyLock};

/// What an identity provider says: attribute and value; several values are split by semicolons.
pub type Assertion = BTreeMap<String, String>;

/// Whom rules made of an assertion.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Mapped {
    pub user: User,
    pub group_ids: Vec<String>,
    pub group_names: Vec<Group>,
    pub projects: Vec<Project>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub id: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub domain: Option<Domain>,
    #[serde(rename = "type", default)]
    pub kind: UserKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserKind {
    /// Known here only by what the provider says.
    #[default]
    Ephemeral,
    /// Somebody who is here anyway.
    Local,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    pub domain: Domain,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub name: String,
    pub domain: Option<Domain>,
    pub roles: Vec<RoleName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleName {
    pub name: String,
}

/// From this version a rule's domain is that of its user and projects too.
const HONORS_DOMAIN: &str = "2.0";
/// From this version projects and roles that are not named (any more) are taken away at a login.
pub const SYNCS_PROJECTS: &str = "3.0";

const VERSIONS: &[&str] = &["1.0", HONORS_DOMAIN, SYNCS_PROJECTS];

/// Whether rules are well formed; answers the version of the language that they are in.
pub fn check(mapping: &Json) -> Result<String> {
    // The official client sends null where its user says nothing, and upstream takes an empty word alike.
    let mut mapping = mapping.clone();
    if matches!(mapping.get("schema_version"), Some(said) if said.is_null() || said == "") {
        mapping["schema_version"] = VERSIONS[0].into();
    }
    let version = mapping.get("schema_version").and_then(Json::as_str).unwrap_or(VERSIONS[0]);
    let place = VERSIONS.iter().position(|known| *known == version);
    let place = place.ok_or_else(|| {
        let known = python::repr(&json!(VERSIONS));
        Error::bad_request(format!("{} is not one of {known}\n", python::quote(version)))
    })?;
    let wrong = FORMS[place].sentences(&mapping);
    match wrong.is_empty() {
        true => Ok(version.to_string()),
        false => {
            Err(Error::bad_request(wrong.iter().map(|sentence| format!("{sentence}\n")).collect::<String>()))
        }
    }
}

/// What the rules of a version make of an assertion; an error says why it is nobody.
pub fn map(rules: &Json, version: &str, assertion: &Assertion) -> Result<Mapped> {
    let rules: Vec<Rule> = serde_json::from_value(rules.clone())?;
    let mut found = Found::default();
    for rule in &rules {
        let Some(values) = rule.values(assertion)? else { continue };
        for local in &rule.local {
            found.add(local, &values)?;
        }
    }
    found.finish(version >= HONORS_DOMAIN)
}

#[derive(Deserialize)]
struct Rule {
    local: Vec<Json>,
    remote: Vec<Requirement>,
}

#[derive(Deserialize)]
struct Requirement {
    #[serde(rename = "type")]
    attribute: String,
    any_one_of: Option<Vec<Json>>,
    not_any_of: Option<Vec<Json>>,
    blacklist: Option<Vec<Json>>,
    whitelist: Option<Vec<Json>>,
    #[serde(default)]
    regex: bool,
}

impl Rule {
    /// The values that `{0}`, `{1}`, … stand for, or none where the rule does not apply.
    fn values(&self, assertion: &Assertion) -> Result<Option<Vec<Vec<String>>>> {
        let mut all = Vec::new();
        for requirement in &self.remote {
            let Some(text) = assertion.get(&requirement.attribute) else { return Ok(None) };
            let values: Vec<String> = text.split(';').map(str::to_string).collect();
            match requirement.judge(values)? {
                Verdict::Fails => return Ok(None),
                Verdict::Holds => {}
                Verdict::Gives(values) => all.push(values),
            }
        }
        Ok(Some(all))
    }
}

enum Verdict {
    Fails,
    Holds,
    Gives(Vec<String>),
}

impl Requirement {
    fn judge(&self, values: Vec<String>) -> Result<Verdict> {
        let holds = |is: bool| if is { Verdict::Holds } else { Verdict::Fails };
        if let Some(wanted) = &self.any_one_of {
            return Ok(holds(!self.matching(wanted, &values)?.is_empty()));
        }
        if let Some(unwanted) = &self.not_any_of {
            return Ok(holds(self.matching(unwanted, &values)?.is_empty()));
        }
        if let Some(unwanted) = &self.blacklist {
            let matching = self.matching(unwanted, &values)?;
            return Ok(Verdict::Gives(
                values.into_iter().filter(|value| !matching.contains(value)).collect(),
            ));
        }
        Ok(Verdict::Gives(match &self.whitelist {
            Some(wanted) => self.matching(wanted, &values)?,
            None => values,
        }))
    }

    fn matching(&self, wanted: &[Json], values: &[String]) -> Result<Vec<String>> {
        let wanted = wanted.iter().filter_map(Json::as_str);
        if !self.regex {
            let wanted: Vec<&str> = wanted.collect();
            return Ok(values.iter().filter(|value| wanted.contains(&value.as_str())).cloned().collect());
        }
        let compiled = wanted.map(Regex::new).collect::<Result<Vec<_>, _>>();
        let compiled = compiled.map_err(|e| Error::bad_request(format!("a mapping's expression: {e}")))?;
        // An expression that runs away on a value has not matched it.
        let matches = |value: &&String| compiled.iter().any(|one| one.is_match(value).unwrap_or(false));
        Ok(values.iter().filter(matches).cloned().collect())
    }
}

/// What the local parts of all rules that apply have said so far.
#[derive(Default)]
struct Found {
    any: bool,
    user: Option<User>,
    group_ids: Vec<String>,
    groups: Vec<Group>,
    projects: Vec<Project>,
    /// The last one's.
    domain: Option<Domain>,
}

impl Found {
    fn add(&mut self, local: &Json, values: &[Vec<String>]) -> Result<()> {
        self.any = true;
        let filled = fill_all(local, values)?;
        let part = |key: &str| filled.get(key).cloned();
        self.domain = part("domain").map(serde_json::from_value).transpose()?;
        if let Some(user) = part("user").filter(|user| user != &json!({}))
            && self.user.is_none()
        {
            self.user = Some(serde_json::from_value(user)?);
        }
        if let Some(group) = part("group") {
            match group.get("id").and_then(Json::as_str) {
                Some(id) => self.group_ids.push(id.to_string()),
                None => self.groups.push(serde_json::from_value(group)?),
            }
        }
        if let Some(template) = local.get("groups").and_then(Json::as_str) {
            for name in fill_list(template, values)? {
                self.groups.push(self.group(name)?);
            }
        }
        if let Some(template) = local.get("group_ids").and_then(Json::as_str) {
            self.group_ids.extend(fill_list(template, values)?);
        }
        if part("projects").is_some() || part("projects_json").is_some() {
            self.projects = match part("projects") {
                Some(projects) => serde_json::from_value(projects)?,
                None => Vec::new(),
            };
            if let Some(template) = local.get("projects_json").and_then(Json::as_str) {
                self.projects.extend(projects_json(template, values)?);
            }
            for project in &mut self.projects {
                project.domain = project.domain.take().or_else(|| self.domain.clone());
            }
        }
        Ok(())
    }

    /// A name in the rule's domain, or `JSON:` and the whole group.
    fn group(&self, name: String) -> Result<Group> {
        if let Some(text) = name.strip_prefix("JSON:") {
            return serde_json::from_str(text)
                .map_err(|e| Error::bad_request(format!("a group of a mapping: {e}")));
        }
        match &self.domain {
            Some(domain) => Ok(Group { name, domain: domain.clone() }),
            None => Err(Error::bad_request(
                "Invalid rule: Both 'groups' and 'domain' keywords must be specified.",
            )),
        }
    }

    fn finish(mut self, honors_domain: bool) -> Result<Mapped> {
        if !self.any {
            return Err(Error::bad_request(
                "Could not map any federated user properties to identity values. Check debug logs or the \
                 mapping used for additional details.",
            ));
        }
        let mut user = self.user.take().unwrap_or_default();
        if honors_domain {
            user.domain = user.domain.take().or_else(|| self.domain.take());
        }
        self.group_ids.sort();
        self.group_ids.dedup();
        let mut group_names: Vec<Group> = Vec::new();
        for group in self.groups {
            if !group_names.contains(&group) {
                group_names.push(group);
            }
        }
        Ok(Mapped { user, group_ids: self.group_ids, group_names, projects: self.projects })
    }
}

fn projects_json(template: &str, values: &[Vec<String>]) -> Result<Vec<Project>> {
    let digits = template.trim_start_matches('{').trim_end_matches('}');
    let at: usize = digits.parse().map_err(|_| {
        Error::bad_request(format!(
            "The rule [{template}] for key [projects_json] does not match the expected pattern."
        ))
    })?;
    // The semicolons at which it was split are its own.
    let text = values.get(at).ok_or_else(beyond)?.join(";");
    let given: Json = serde_json::from_str(&text)
        .map_err(|e| Error::bad_request(format!("the projects that were asserted: {e}")))?;
    let wrong = PROJECTS.sentences(&given);
    match wrong.is_empty() {
        true => Ok(serde_json::from_value(given)?),
        false => Err(Error::bad_request(wrong.join("\n"))),
    }
}

fn beyond() -> Error {
    Error::bad_request(
        "Local section in a mapping refers to a remote match that doesn't exist (e.g. {0} in a local section).",
    )
}

/// All texts of a value with `{0}` and its like replaced.
fn fill_all(value: &Json, values: &[Vec<String>]) -> Result<Json> {
    Ok(match value {
        Json::String(template) => fill(template, values)?.into(),
        Json::Array(items) => items.iter().map(|item| fill_all(item, values)).collect::<Result<_>>()?,
        Json::Object(fields) => Json::Object(
            fields
                .iter()
                .map(|(key, field)| Ok((key.clone(), fill_all(field, values)?)))
                .collect::<Result<_>>()?,
        ),
        other => other.clone(),
    })
}

/// As Python's `format` does it: `{0}`, `{}` in turn, `{{` and `}}` for braces.
fn fill(template: &str, values: &[Vec<String>]) -> Result<String> {
    let (mut text, mut rest, mut turn) = (String::new(), template, 0);
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let malformed = || Error::bad_request(format!("a mapping's text cannot be filled in: {template}"));
        let (name, after) = rest.split_once('}').filter(|_| brace == "{").ok_or_else(malformed)?;
        let place = match name {
            "" => turn,
            digits => digits.parse().map_err(|_| malformed())?,
        };
        turn += 1;
        match values.get(place).ok_or_else(beyond)?.as_slice() {
            [one] => text.push_str(one),
            several => text.push_str(&python::repr(&json!(several))),
        }
        rest = after;
    }
    Ok(text + rest)
}

/// A text that stands for a list: all values of one attribute, a list written out, or a single name.
fn fill_list(template: &str, values: &[Vec<String>]) -> Result<Vec<String>> {
    let place = template.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    if let Some(place) = place.and_then(|digits| digits.parse::<usize>().ok()) {
        return values.get(place).cloned().ok_or_else(beyond);
    }
    let written = template.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match written {
        None => Ok(vec![fill(template, values)?]),
        Some(items) => items
            .split(',')
            .map(|item| item.trim().trim_matches(['\'', '"']))
            .filter(|item| !item.is_empty())
            .map(|item| fill(item, values))
            .collect(),
    }
}

static FORMS: LazyLock<[Schema; 3]> = LazyLock::new(|| {
    let form = |version| Schema::with(form(version), Dialect::Draft4, false, schema::formats::COMMON);
    [form(1), form(2), form(3)]
});

static PROJECTS: LazyLock<Schema> =
    LazyLock::new(|| Schema::with(projects(2), Dialect::Draft4, false, schema::formats::COMMON));

fn projects(version: u8) -> Json {
    let roles = json!({"type": "array", "items": {"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string"}}, "additionalProperties": false}});
    let mut properties = json!({"name": {"type": "string"}, "roles": roles});
    if version >= 2 {
        properties["domain"] = domain();
    }
    json!({"type": "array", "items": {"type": "object", "required": ["name", "roles"],
        "additionalProperties": false, "properties": properties}})
}

fn domain() -> Json {
    json!({"type": "object", "properties": {"id": {"type": "string"}, "name": {"type": "string"}},
        "additionalProperties": false})
}

fn form(version: u8) -> Json {
    let word = || json!({"type": "string"});
    let user = json!({"type": "object", "properties": {"id": word(), "name": word(), "email": word(),
        "domain": domain(), "type": {"type": "string", "enum": ["ephemeral", "local"]}},
        "additionalProperties": false});
    let group = json!({"type": "object", "oneOf": [
        {"type": "object", "properties": {"id": word()}, "additionalProperties": false, "required": ["id"]},
        {"type": "object", "properties": {"name": word(), "domain": domain()}, "additionalProperties": false,
            "required": ["name", "domain"]},
    ]});
    let mut local = json!({"user": user, "projects": projects(version), "group": group, "groups": word(),
        "group_ids": word(), "domain": domain()});
    if version >= 3 {
        local["projects_json"] = word();
    }
    let with = |list: &str| {
        json!({"type": "object", "additionalProperties": false, "required": ["type", list],
            "properties": {"type": word(), list: {"type": "array"}, "regex": {"type": "boolean"}}})
    };
    let plain = json!({"type": "object", "required": ["type"], "properties": {"type": word()},
        "additionalProperties": false});
    let remote = json!({"type": "object", "oneOf": [
        plain, with("any_one_of"), with("not_any_of"), with("blacklist"), with("whitelist"),
    ]});
    json!({"type": "object", "required": ["rules"], "properties": {
        "rules": {"minItems": 1, "type": "array", "items": {
            "type": "object", "required": ["local", "remote"], "additionalProperties": false, "properties": {
                "local": {"type": "array",
                    "items": {"type": "object", "additionalProperties": false, "properties": local}},
                "remote": {"minItems": 1, "type": "array", "items": remote},
            },
        }},
        "schema_version": word(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assertion() -> Assertion {
        [
            ("UserName", "bob"),
            ("First", "Bob"),
            ("Last", "Thompson"),
            ("Email", "bob@example.com"),
            ("kind", "Employee;Tester"),
            ("groups", "dev;ops;guest"),
            ("one", "dev"),
            ("json", r#"JSON:{"name": "x", "domain": {"id": "d"}}"#),
            ("projects", r#"[{"name": "p; q", "roles": [{"name": "member"}]}]"#),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
    }

    fn of(version: &str, rules: Json) -> Result<Mapped> {
        check(&json!({"rules": rules, "schema_version": version}))?;
        map(&rules, version, &assertion())
    }

    /// A user named after the first attribute, if the remote part holds.
    fn named(remote: Json) -> Option<String> {
        of("1.0", json!([{"local": [{"user": {"name": "{0}"}}], "remote": remote}])).ok()?.user.name
    }

    #[test]
    fn a_version_may_be_left_open() {
        let rules = json!([{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "x"}]}]);
        for open in [
            json!({"rules": rules}),
            json!({"rules": rules, "schema_version": null}),
            json!({"rules": rules, "schema_version": ""}),
        ] {
            assert_eq!(check(&open).unwrap(), "1.0", "{open}");
        }
        check(&json!({"rules": rules, "schema_version": 5})).unwrap_err();
    }

    #[test]
    fn requirements() {
        for (requirement, name) in [
            (json!({"type": "kind", "any_one_of": ["Employee"]}), Some("bob")),
            (json!({"type": "kind", "any_one_of": ["employee"]}), None),
            (json!({"type": "kind", "any_one_of": ["^Emp"], "regex": true}), Some("bob")),
            (json!({"type": "kind", "any_one_of": ["^x"], "regex": true}), None),
            (json!({"type": "kind", "any_one_of": ["("], "regex": true}), None),
            (json!({"type": "kind", "not_any_of": ["Employee"]}), None),
            (json!({"type": "kind", "not_any_of": ["Contractor"]}), Some("bob")),
            (json!({"type": "kind", "not_any_of": ["er$"], "regex": true}), None),
            (json!({"type": "Absent"}), None),
            (json!({"type": "Email"}), Some("bob")),
        ] {
            let remote = json!([{"type": "UserName"}, requirement]);
            assert_eq!(named(remote.clone()).as_deref(), name, "{remote}");
        }
    }

    #[test]
    fn texts_are_filled_in() {
        let values = [vec!["a".to_string()], vec!["b".into(), "c'd".into()]];
        for (template, filled) in [
            ("{0}", Some("a")),
            ("x{0}y{0}", Some("xaya")),
            ("{}-{}", Some("a-['b', \"c'd\"]")),
            ("{{0}}", Some("{0}")),
            ("{2}", None),
            ("{", None),
            ("}", None),
            ("{a}", None),
            ("plain", Some("plain")),
        ] {
            assert_eq!(fill(template, &values).ok().as_deref(), filled, "{template}");
        }
        for (template, list) in [
            ("{1}", vec!["b", "c'd"]),
            ("{0}", vec!["a"]),
            ("['x', '{0}']", vec!["x", "a"]),
            ("x{0}", vec!["xa"]),
            ("[]", vec![]),
        ] {
            assert_eq!(fill_list(template, &values).unwrap(), list, "{template}");
        }
    }

    #[test]
    fn a_value_is_never_read_as_a_list() {
        let mut sly = assertion();
        sly.insert("one".into(), "['admins', 'x']".into());
        let rules = json!([{"local": [{"group_ids": "{0}"}], "remote": [{"type": "one"}]}]);
        assert_eq!(map(&rules, "1.0", &sly).unwrap().group_ids, ["['admins', 'x']"]);
    }

    fn groups(local: Json, remote: Json) -> Vec<String> {
        let mapped = of("1.0", json!([{"local": [local], "remote": [remote]}])).unwrap();
        let names = mapped.group_names.into_iter().map(|group| {
            format!("{}@{}", group.name, group.domain.id.or(group.domain.name).unwrap_or_default())
        });
        mapped.group_ids.into_iter().chain(names).collect()
    }

    #[test]
    fn groups_of_every_form() {
        let listed = || json!({"groups": "{0}", "domain": {"id": "d"}});
        for (local, remote, found) in [
            (json!({"group": {"id": "g"}}), json!({"type": "UserName"}), vec!["g"]),
            (
                json!({"group": {"name": "{0}", "domain": {"name": "D"}}}),
                json!({"type": "UserName"}),
                vec!["bob@D"],
            ),
            (listed(), json!({"type": "groups"}), vec!["dev@d", "ops@d", "guest@d"]),
            (listed(), json!({"type": "one"}), vec!["dev@d"]),
            (listed(), json!({"type": "groups", "whitelist": ["ops", "none"]}), vec!["ops@d"]),
            (
                listed(),
                json!({"type": "groups", "whitelist": ["^.{3}$"], "regex": true}),
                vec!["dev@d", "ops@d"],
            ),
            (listed(), json!({"type": "groups", "whitelist": ["none"]}), vec![]),
            (listed(), json!({"type": "groups", "blacklist": ["guest"]}), vec!["dev@d", "ops@d"]),
            (listed(), json!({"type": "groups", "blacklist": ["s$", "t$"], "regex": true}), vec!["dev@d"]),
            (json!({"groups": "{0}"}), json!({"type": "json"}), vec!["x@d"]),
            (json!({"group_ids": "{0}"}), json!({"type": "groups"}), vec!["dev", "guest", "ops"]),
        ] {
            assert_eq!(groups(local.clone(), remote.clone()), found, "{local} {remote}");
        }
        assert!(of("1.0", json!([{"local": [{"groups": "{0}"}], "remote": [{"type": "one"}]}])).is_err());
    }

    #[test]
    fn rules_add_up_and_the_first_user_counts() {
        let mapped = of(
            "1.0",
            json!([
                {"local": [{"user": {"name": "{0} {1}", "email": "{2}"}}],
                    "remote": [{"type": "First"}, {"type": "Last"}, {"type": "Email"}]},
                {"local": [{"user": {"name": "second"}, "group": {"id": "a"}}], "remote": [{"type": "one"}]},
                {"local": [{"group": {"id": "b"}}], "remote": [{"type": "Absent"}]},
                {"local": [{"group": {"id": "a"}}], "remote": [{"type": "Email"}]},
            ]),
        )
        .unwrap();
        assert_eq!(mapped.user.name.as_deref(), Some("Bob Thompson"));
        assert_eq!(mapped.user.email.as_deref(), Some("bob@example.com"));
        assert_eq!((mapped.user.kind, mapped.group_ids), (UserKind::Ephemeral, vec!["a".to_string()]));
        let none = of("1.0", json!([{"local": [{"user": {"name": "x"}}], "remote": [{"type": "Absent"}]}]));
        assert!(none.unwrap_err().message.starts_with("Could not map any federated user"));
    }

    #[test]
    fn domains_and_projects_by_version() {
        let rules = |version: &str| {
            let mut local = json!({"user": {"name": "{0}"}, "domain": {"id": "d"},
                "projects": [{"name": "of {0}", "roles": [{"name": "member"}]}]});
            if version == SYNCS_PROJECTS {
                local["projects_json"] = "{1}".into();
            }
            of(version, json!([{"local": [local], "remote": [{"type": "UserName"}, {"type": "projects"}]}]))
                .unwrap()
        };
        assert_eq!(rules("1.0").user.domain, None);
        let domain = Some(Domain { id: Some("d".into()), name: None });
        assert_eq!(rules("2.0").user.domain, domain);
        let names = |mapped: Mapped| mapped.projects.into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(rules("2.0")), ["of bob"]);
        assert!(rules("3.0").projects.iter().all(|project| project.domain == domain));
        assert_eq!(names(rules("3.0")), ["of bob", "p; q"]);
    }

    #[test]
    fn malformed_rules_are_told() {
        let one = |local: Json, remote: Json| json!({"rules": [{"local": [local], "remote": [remote]}]});
        for (mapping, told) in [
            (json!({}), "'rules' is a required property\n"),
            (json!({"rules": []}), "[] should be non-empty\n"),
            (json!({"rules": [{"local": []}]}), "'remote' is a required property\n"),
            (json!({"schema_version": "9", "rules": []}), "'9' is not one of ['1.0', '2.0', '3.0']\n"),
            (
                one(json!({"projects_json": "{0}"}), json!({"type": "x"})),
                "Additional properties are not allowed ('projects_json' was unexpected)\n",
            ),
            (
                one(json!({"user": {"type": "x"}, "groups": 1}), json!({"type": "x"})),
                "'x' is not one of ['ephemeral', 'local']\n1 is not of type 'string'\n",
            ),
        ] {
            assert_eq!(check(&mapping).unwrap_err().message, told);
        }
    }
}
