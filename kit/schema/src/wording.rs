//! How each service puts a violation into a sentence.

use crate::{Schema, Step, Violation, python};
use base::{Error, Json, Result};

impl Schema {
    /// Checks a body in the words of nova, cinder and keystone's newer calls.
    pub fn body(&self, value: &Json) -> Result<()> {
        self.check(value).map_err(|violation| Error::bad_request(violation.body()))
    }

    /// Checks a query, given as an object of lists, in the words of nova and keystone.
    pub fn query(&self, value: &Json) -> Result<()> {
        self.check(value).map_err(|violation| Error::bad_request(violation.query()))
    }

    /// Checks a resource in the words of keystone's older calls, which show the schema and the value.
    pub fn resource(&self, value: &Json) -> Result<()> {
        self.check(value).map_err(|violation| Error::bad_request(violation.resource()))
    }
}

impl Violation {
    pub fn body(&self) -> String {
        self.sentence("field/attribute", self.path.last())
    }

    pub fn query(&self) -> String {
        self.sentence("query parameters", self.path.first())
    }

    pub fn resource(&self) -> String {
        if self.path.is_empty() {
            return self.report();
        }
        let path: Vec<_> = self.path.iter().map(Step::to_string).collect();
        format!("Invalid input for field '{}': {}", path.join("/"), self.report())
    }

    /// The violation as Python prints the exception itself (placement: `JSON does not validate: …`).
    pub fn report(&self) -> String {
        let schema_path = index("schema", &self.schema_path[..self.schema_path.len().saturating_sub(1)]);
        let pretty = |value: &Json| python::pretty(value, 72).replace('\n', "\n    ");
        format!(
            "{}\n\nFailed validating {} in {schema_path}:\n    {}\n\nOn {}:\n    {}",
            self.message,
            python::quote(self.keyword),
            pretty(&self.schema),
            index("instance", &self.path),
            pretty(&self.value),
        )
    }

    fn sentence(&self, what: &str, at: Option<&Step>) -> String {
        match (&self.reason, at) {
            (Some(reason), _) => reason.clone(),
            (None, None) => self.message.clone(),
            (None, Some(step)) => {
                format!(
                    "Invalid input for {what} {step}. Value: {}. {}",
                    python::str(&self.value),
                    self.message
                )
            }
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Index(at) => write!(f, "{at}"),
            Step::Key(key) => f.write_str(key),
        }
    }
}

fn index(container: &str, path: &[Step]) -> String {
    let mut text = container.to_string();
    for step in path {
        match step {
            Step::Index(at) => text.push_str(&format!("[{at}]")),
            Step::Key(key) => text.push_str(&format!("[{}]", python::quote(key))),
        }
    }
    text
}
