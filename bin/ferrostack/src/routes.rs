//! `ferrostack routes`: every operation of every service, as the services' own tables have it.

use axum::http::Method;
use base::Version;
use std::fmt::Write;
use web::{Mark, Routes};

/// An entry of a service's table, without its handler.
pub struct Operation {
    pub service: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub action: Option<&'static str>,
    pub since: Option<Version>,
    pub until: Option<Version>,
    pub rule: &'static str,
    /// Needs no token.
    pub open: bool,
    /// Only says that it is not there.
    pub gone: bool,
}

/// Every operation of every service.
pub fn all() -> Vec<Operation> {
    let mut all = Vec::new();
    add(&mut all, "keystone", keystone::routes());
    add(&mut all, "glance", glance::routes());
    add(&mut all, "nova", nova::routes());
    add(&mut all, "neutron", neutron::routes());
    add(&mut all, "cinder", cinder::routes());
    add(&mut all, "placement", placement::routes());
    add(&mut all, "swift", swift::routes());
    all
}

fn add<S>(all: &mut Vec<Operation>, service: &'static str, routes: Routes<S>) {
    all.extend(routes.into_iter().map(|route| Operation {
        service,
        open: route.is(Mark::Open),
        gone: route.is(Mark::Gone),
        method: route.method,
        path: route.path,
        action: route.action,
        since: route.since,
        until: route.until,
        rule: route.rule,
    }));
}

/// A line for every operation: service, method, path, action, microversions, policy rule.
pub fn table() -> String {
    let mut text = String::new();
    for Operation { service, method, path, action, since, until, rule, .. } in all() {
        let path = match action {
            Some(action) => format!("{path} {{{action}}}"),
            None => path.to_string(),
        };
        let version = |version: Option<Version>| version.map(|v| v.to_string()).unwrap_or_default();
        let versions = match (since, until) {
            (None, None) => String::new(),
            (since, until) => format!("{}-{}", version(since), version(until)),
        };
        let rule = if rule.is_empty() { "-" } else { rule };
        let _ = writeln!(text, "{service:<10} {:<7} {path:<72} {versions:<10} {rule}", method.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_service_is_there() {
        let table = super::table();
        for service in ["cinder", "keystone", "glance", "neutron", "nova", "placement", "swift"] {
            assert!(table.lines().filter(|line| line.starts_with(service)).count() > 15, "{service}");
        }
        assert!(table.contains("/v3/auth/tokens"));
    }
}
