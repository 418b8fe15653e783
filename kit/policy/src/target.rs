//! What a rule is asked about: an object whose attributes the rule may name with `%(attr)s`.

use base::Json;
use std::borrow::Cow;

/// Attributes as Python prints them: `True`, `None`, `5`. Absent ones make the comparison fail.
pub trait Target {
    fn attr(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl<T: Target + ?Sized> Target for &T {
    fn attr(&self, name: &str) -> Option<Cow<'_, str>> {
        (**self).attr(name)
    }
}

/// Nothing is known about the target.
impl Target for () {
    fn attr(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

impl Target for [(&str, &str)] {
    fn attr(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| Cow::Borrowed(*value))
    }
}

impl<const N: usize> Target for [(&str, &str); N] {
    fn attr(&self, name: &str) -> Option<Cow<'_, str>> {
        self.as_slice().attr(name)
    }
}

/// The first one's attributes before the second's.
impl<A: Target, B: Target> Target for (A, B) {
    fn attr(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.attr(name).or_else(|| self.1.attr(name))
    }
}

/// A key of that very name, else a dotted path.
impl Target for Json {
    fn attr(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = match self.get(name) {
            Some(value) => value,
            None => name.split('.').try_fold(self, |value, key| value.get(key))?,
        };
        Some(match value {
            Json::String(text) => Cow::Borrowed(text),
            Json::Bool(true) => Cow::Borrowed("True"),
            Json::Bool(false) => Cow::Borrowed("False"),
            Json::Null => Cow::Borrowed("None"),
            other => Cow::Owned(other.to_string()),
        })
    }
}
