//! The language against what oslo.policy answers, one line a case.

use super::*;
use base::Json;

fn caller() -> Context {
    Context {
        user_id: "u1".into(),
        user_domain_id: "d1".into(),
        project_id: "p1".into(),
        project_domain_id: "d2".into(),
        roles: ["Member", "reader"].map(String::from).to_vec(),
        service_roles: vec!["service".into()],
        ..Context::default()
    }
}

fn target() -> Json {
    let text = r#"{"project_id": "p1", "user_id": "u2", "visibility": "public", "enabled": true, "nobody": null,
        "count": 5, "role": {"name": "Member"}, "target": {"project": {"id": "p1", "domain_id": null}},
        "network:tenant_id": "p1", "shared": true, "device_owner": "network:dhcp", "a.b": "p1"}"#;
    text.parse().unwrap()
}

const NAMED: &[Rule] = &[
    Rule::new("admin_required", "role:admin", ""),
    Rule::new("owner", "project_id:%(project_id)s", ""),
    Rule::new("admin_or_owner", "rule:admin_required or rule:owner", ""),
];

fn decide(check: &str) -> bool {
    let text = format!("\"asked\": {:?}\n", check);
    let policy = Policy::new(&[NAMED], Some(&text)).unwrap_or_else(|e| panic!("{check}: {e:?}"));
    policy.allows("asked", &caller(), &target())
}

#[test]
fn the_language() {
    let cases = [
        ("", true),
        ("@", true),
        ("!", false),
        ("not !", true),
        ("not not @", true),
        ("role:member", true),
        ("role:MEMBER", true),
        ("role:admin", false),
        ("role:%(role.name)s", true),
        ("role:%(missing)s", false),
        ("rule:owner", true),
        ("rule:admin_or_owner", true),
        ("not rule:admin_or_owner", false),
        ("@ or ! and !", true),
        ("(@ or !) and !", false),
        ("! and ! or @", true),
        ("not ! and @", true),
        ("not (! or @)", false),
        ("(@ AND (role:reader Or !))", true),
        ("((role:member))", true),
        ("project_id:%(project_id)s", true),
        ("tenant_id:%(network:tenant_id)s", true),
        ("project_id:%(a.b)s", true),
        ("project_id:p1", true),
        ("project_id:%(missing)s", false),
        ("project_id:%(target.project.id)s", true),
        ("user_id:%(user_id)s", false),
        ("token.project.domain.id:d2", true),
        ("user_domain_id:d1", true),
        ("unheard.of:d1", false),
        ("'public':%(visibility)s", true),
        ("\"public\":%(visibility)s", true),
        ("'private':%(visibility)s", false),
        ("True:%(enabled)s", true),
        ("False:%(enabled)s", false),
        ("None:%(nobody)s", true),
        ("None:%(target.project.domain_id)s", true),
        ("5:%(count)s", true),
        ("project_id:p%(count)s", false),
        ("is_admin:True", false),
        ("is_admin:False", true),
        ("system_scope:all", false),
        ("roles:Member", true),
        ("roles:member", false),
        ("service_roles:service", true),
        // A caller without a domain does not own what has none.
        ("domain_id:%(target.project.domain_id)s", false),
        ("domain_id:", false),
        ("domain_id:None", true),
        ("project_id:None", false),
        ("unheard.of:None", false),
        ("field:networks:shared=True", true),
        ("field:networks:shared=False", false),
        ("field:port:device_owner=~^network:", true),
        ("field:port:device_owner=~^compute:", false),
    ];
    for (check, expected) in cases {
        assert_eq!(decide(check), expected, "{check}");
    }
}

#[test]
fn broken_files_are_refused_with_line_and_reason() {
    let cases = [
        ("a: '@'\nb: \"role:x and\"\n", "line 2"),
        ("a: '@'\n\nb: (role:x\n", "line 3"),
        ("a: role:x role:y\n", "line 1"),
        ("a: word\n", "line 1"),
        ("a: role:%(x)d\n", "line 1"),
        ("a: 5\n", "line 1"),
        ("a:\n", "line 1"),
        ("- a\n- b\n", "line 1"),
        ("a: '@'\nb: 'x\n", "line"),
        ("a: '@'\nc: rule:nowhere\n", "line 2"),
        ("owner: rule:admin_or_owner\n", "circle"),
        ("a: rule:b\nb: not rule:a\n", "circle"),
        ("a: http://example.org/\n", "remote"),
        ("a: field:port:owner=~.*x\n", "only ^prefix"),
    ];
    for (text, expected) in cases {
        let error = Policy::new(&[NAMED], Some(text)).unwrap_err();
        assert!(error.is(base::ErrorKind::BadRequest), "{text}: {error:?}");
        assert!(error.message.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_file_overrides_and_adds() {
    let file = "# comment only above\nowner: role:nobody\nhelper: '@'\nextra: [[\"role:reader\", \"rule:helper\"], [\"role:x\"]]\n";
    let policy = Policy::new(&[NAMED], Some(file)).unwrap();
    assert!(!policy.allows("admin_or_owner", &caller(), &target()));
    assert!(policy.allows("extra", &caller(), &()));
    for nothing in ["", "# only a comment\n", "{}"] {
        assert!(
            Policy::new(&[NAMED], Some(nothing)).unwrap().allows("owner", &caller(), &target()),
            "{nothing}"
        );
    }
}

#[test]
fn broken_defaults_are_our_mistake() {
    for table in [
        &[Rule::new("a", "role:x and", "")][..],
        &[Rule::new("a", "rule:b", "")],
        &[Rule::new("a", "rule:a", "")],
        &[Rule::new("a", "", ""), Rule::new("a", "", "")],
    ] {
        assert!(Policy::new(&[table], None).unwrap_err().is(base::ErrorKind::Internal));
    }
}

#[test]
fn an_unknown_rule_is_denied() {
    let policy = Policy::new(&[NAMED], None).unwrap();
    assert!(!policy.allows("nowhere", &Context::internal(), &()));
    assert!(policy.knows("owner") && !policy.knows("nowhere"));
}

#[test]
fn scopes_are_enforced() {
    const SCOPED: &[Rule] = &[
        Rule::new("project", "@", "").scoped(&["project"]),
        Rule::new("cloud", "@", "").scoped(&["system", "domain"]),
    ];
    let policy = Policy::new(&[SCOPED], None).unwrap();
    let system = Context { system_scope: "all".into(), ..Context::default() };
    let domain = Context { domain_id: "d1".into(), ..Context::default() };
    let cases = [
        (caller(), true, false),
        (Context::default(), true, false),
        (system, false, true),
        (domain, false, true),
    ];
    for (context, project, cloud) in cases {
        assert_eq!(policy.allows("project", &context, &()), project);
        assert_eq!(policy.allows("cloud", &context, &()), cloud);
    }
}

#[test]
fn a_refusal_is_forbidden_in_the_services_words() {
    let policy = Policy::new(&[NAMED], None).unwrap();
    let error = policy.check("admin_required", &caller(), &()).unwrap_err();
    assert!(error.is(base::ErrorKind::Forbidden));
    assert_eq!(error.message, "Policy doesn't allow admin_required to be performed.");
    let policy = policy.worded(|rule| format!("not {rule}"));
    assert_eq!(policy.check("admin_required", &caller(), &()).unwrap_err().message, "not admin_required");
    assert!(policy.check("owner", &caller(), &[("project_id", "p1")]).is_ok());
    assert!(policy.check("owner", &caller(), &((), [("project_id", "p1")])).is_ok());
}
