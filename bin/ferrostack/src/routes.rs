//! `ferrostack routes`: every operation of every service, as the services' own tables have it.

use std::fmt::Write;
use web::Routes;

/// A line for every operation: service, method, path, action, microversions, policy rule.
pub fn table() -> String {
    let mut text = String::new();
    add(&mut text, "keystone", keystone::routes());
    add(&mut text, "glance", glance::routes());
    add(&mut text, "cinder", cinder::routes());
    add(&mut text, "placement", placement::routes());
    text
}

fn add<S>(text: &mut String, service: &str, routes: Routes<S>) {
    for route in routes {
        let path = match route.action {
            Some(action) => format!("{} {{{action}}}", route.path),
            None => route.path.to_string(),
        };
        let versions = match (route.since, route.until) {
            (None, None) => String::new(),
            (since, until) => {
                let text =
                    |version: Option<base::Version>| version.map(|v| v.to_string()).unwrap_or_default();
                format!("{}-{}", text(since), text(until))
            }
        };
        let rule = if route.rule.is_empty() { "-" } else { route.rule };
        let _ = writeln!(text, "{service:<10} {:<7} {path:<72} {versions:<10} {rule}", route.method.as_str());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_service_is_there() {
        let table = super::table();
        for service in ["cinder", "keystone", "glance", "placement"] {
            assert!(table.lines().filter(|line| line.starts_with(service)).count() > 15, "{service}");
        }
        assert!(table.contains("/v3/auth/tokens"));
    }
}
