//! The traits and resource classes that every cloud knows: names are facts of os-traits and os-resource-classes.

use std::{collections::HashSet, sync::LazyLock};

static TRAITS: LazyLock<HashSet<&str>> = LazyLock::new(|| traits().collect());

pub fn traits() -> impl Iterator<Item = &'static str> {
    include_str!("traits.txt").lines()
}

pub fn classes() -> impl Iterator<Item = &'static str> {
    include_str!("resource_classes.txt").lines()
}

pub fn is_trait(name: &str) -> bool {
    TRAITS.contains(name)
}

pub fn is_class(name: &str) -> bool {
    classes().any(|class| class == name)
}

/// `CUSTOM_` and upper case letters, digits and underscores, no longer than 255.
pub fn is_custom(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 255
        && name.strip_prefix("CUSTOM_").is_some_and(|rest| !rest.is_empty() && rest.chars().all(allowed))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        assert!(super::is_trait("HW_CPU_X86_AVX") && super::is_class("VCPU") && !super::is_class("PIGEONS"));
        for (name, custom) in
            [("CUSTOM_A1_", true), ("CUSTOM_", false), ("CUSTOM_a", false), ("VCPU", false), ("", false)]
        {
            assert_eq!(super::is_custom(name), custom, "{name}");
        }
    }
}
