//! One TOML file, a section per service, overridden by the environment
//! (`FERROSTACK_NOVA__RAM_ALLOCATION_RATIO=1.0` sets `ram_allocation_ratio` in `[nova]`).
//! Option structs are plain serde structs with doc comments; `describe` prints those comments.

use crate::{Error, Result};
use schemars::{JsonSchema, schema_for};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
use toml::{Table, Value};

const ENV_PREFIX: &str = "FERROSTACK_";

/// A section of the configuration file: `#[serde(default, deny_unknown_fields)]` and a doc comment each field.
pub trait Section: DeserializeOwned + Serialize + Default + JsonSchema {
    const NAME: &'static str;
}

/// The whole configuration, sections not yet typed.
#[derive(Clone, Debug, Default)]
pub struct Config(Table);

impl Config {
    /// Reads the file (none is fine) and lays the environment over it.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut table = match path {
            None => Table::new(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| Error::bad_request(format!("cannot read {}: {e}", path.display())))?
                .parse()
                .map_err(|e| Error::bad_request(format!("{}: {e}", path.display())))?,
        };
        for (key, text) in env {
            let Some((section, option)) = key.strip_prefix(ENV_PREFIX).and_then(|k| k.split_once("__"))
            else {
                continue;
            };
            let section = table
                .entry(section.to_lowercase())
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .ok_or_else(|| Error::bad_request(format!("{key}: not a section")))?;
            section.insert(option.to_lowercase(), env_value(&text));
        }
        Ok(Self(table))
    }

    /// One service's options, defaults filled in. An unknown or mistyped option is an error that names it.
    pub fn section<S: Section>(&self) -> Result<S> {
        let value = self.0.get(S::NAME).cloned().unwrap_or_else(|| Value::Table(Table::new()));
        value.try_into().map_err(|e| Error::bad_request(format!("[{}]: {}", S::NAME, e.to_string().trim())))
    }

    /// Section names in the file that no service claims: a typing error the user should hear of.
    pub fn unknown_sections(&self, known: &[&str]) -> Vec<String> {
        self.0.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect()
    }
}

/// `TOML` syntax where the text is TOML (numbers, booleans, lists), else the text itself.
fn env_value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.into()))
}

/// The options of a section as a commented TOML text with the defaults.
pub fn describe<S: Section>() -> String {
    let schema = schema_for!(S).to_value();
    let defaults = Table::try_from(S::default()).unwrap_or_default();
    let mut text = format!("[{}]\n", S::NAME);
    let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) else { return text };
    for (name, property) in properties {
        for line in property.get("description").and_then(|d| d.as_str()).unwrap_or("").lines() {
            text.push_str(&format!("# {line}\n"));
        }
        match defaults.get(name) {
            Some(value) => text.push_str(&format!("# {name} = {value}\n\n")),
            None => text.push_str(&format!("# {name} =\n\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Options {
        /// How many.
        count: u32,
        name: String,
    }

    impl Default for Options {
        fn default() -> Self {
            Self { count: 3, name: "x".into() }
        }
    }

    impl Section for Options {
        const NAME: &'static str = "thing";
    }

    fn load(env: &[(&str, &str)]) -> Result<Options> {
        let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Config::load(None, env)?.section()
    }

    #[test]
    fn environment_over_defaults() {
        assert_eq!(load(&[]).unwrap(), Options::default());
        let options =
            load(&[("FERROSTACK_THING__COUNT", "7"), ("FERROSTACK_THING__NAME", "10.0.0.1/8")]).unwrap();
        assert_eq!(options, Options { count: 7, name: "10.0.0.1/8".into() });
    }

    #[test]
    fn a_wrong_option_is_named() {
        assert!(load(&[("FERROSTACK_THING__COUNTS", "7")]).unwrap_err().message.contains("counts"));
        assert!(load(&[("FERROSTACK_THING__COUNT", "many")]).is_err());
    }

    #[test]
    fn options_describe_themselves() {
        let text = describe::<Options>();
        assert!(text.contains("# How many.\n# count = 3"), "{text}");
    }
}
