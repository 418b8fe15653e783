//! Who may do what with which properties, where the operator says so.

use crate::options::PropertyProtection;
use base::{Error, Result};
use fancy_regex::Regex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Create,
    Read,
    Update,
    Delete,
}

/// The operator's rules, the first that matches a name decides. Without any, everybody may do everything.
pub struct Protections(Vec<(Regex, PropertyProtection)>);

impl Protections {
    pub fn open(rules: &[PropertyProtection]) -> Result<Self> {
        let compiled = rules.iter().map(|rule| match Regex::new(&format!("^(?:{})", rule.name)) {
            Ok(name) => Ok((name, rule.clone())),
            Err(e) => Err(Error::bad_request(format!("glance.property_protections: {:?}: {e}", rule.name))),
        });
        Ok(Self(compiled.collect::<Result<_>>()?))
    }

    pub fn may(&self, roles: &[String], deed: Deed, name: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some((_, rule)) = self.0.iter().find(|(known, _)| known.is_match(name).unwrap_or(false)) else {
            return false;
        };
        let allowed = match deed {
            Deed::Create => &rule.create,
            Deed::Read => &rule.read,
            Deed::Update => &rule.update,
            Deed::Delete => &rule.delete,
        };
        let is_mine = |role: &String| role == "@" || roles.iter().any(|mine| mine.eq_ignore_ascii_case(role));
        !allowed.iter().any(|role| role == "!") && allowed.iter().any(is_mine)
    }

    /// `Forbidden`, as upstream says it, where the roles do not suffice.
    pub fn check(&self, roles: &[String], deed: Deed, name: &str) -> Result<()> {
        match self.may(roles, deed, name) {
            true => Ok(()),
            false => Err(Error::forbidden(format!("Attribute '{name}' is reserved."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, create: &[&str], read: &[&str]) -> PropertyProtection {
        let owned = |roles: &[&str]| roles.iter().map(|role| role.to_string()).collect();
        PropertyProtection {
            name: name.into(),
            create: owned(create),
            read: owned(read),
            update: owned(&["@", "!"]),
            delete: Vec::new(),
        }
    }

    #[test]
    fn the_first_rule_decides() {
        let rules = [rule("x_billing", &["billing"], &["admin", "Member"]), rule("x_", &["@"], &["@"])];
        let protections = Protections::open(&rules).unwrap();
        let member = ["member".to_string()];
        for (deed, name, may) in [
            (Deed::Read, "x_billing_code", true),
            (Deed::Create, "x_billing_code", false),
            (Deed::Create, "x_other", true),
            (Deed::Update, "x_other", false),
            (Deed::Delete, "x_other", false),
            (Deed::Read, "a_x_other", false),
            (Deed::Read, "y", false),
        ] {
            assert_eq!(protections.may(&member, deed, name), may, "{deed:?} {name}");
        }
        assert!(Protections::open(&[]).unwrap().may(&[], Deed::Delete, "y"));
        assert!(Protections::open(&[rule("(", &[], &[])]).is_err());
    }
}
