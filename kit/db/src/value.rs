//! Values as both databases store them, and how Rust types become them and come back.

use crate::Kind;
use base::{Error, Json, Result, Secret, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// One stored value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// How a service prints times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// `2026-11-20T08:15:30Z`
    Seconds,
    /// `2026-11-20T08:15:30.123456`
    Micros,
    /// `2026-11-20T08:15:30.123456Z`
    MicrosZ,
}

/// A Rust type that is a column.
pub trait Stored: Sized {
    const KIND: Kind;
    const NULL: bool = false;
    fn store(&self) -> Value;
    fn load(value: Value) -> Result<Self>;
    /// As it stands in an answer's body.
    fn json(&self, form: TimeForm) -> Json;
}

/// One row of an answer, columns in the order of the statement.
#[derive(Clone, Debug)]
pub struct Row {
    pub(crate) columns: Arc<[String]>,
    pub(crate) values: Vec<Value>,
}

impl Row {
    /// The value in a position, from 0.
    pub fn at<T: Stored>(&self, position: usize) -> Result<T> {
        let value =
            self.values.get(position).cloned().ok_or_else(|| Error::internal("row: no such column"))?;
        T::load(value).map_err(|e| {
            Error::internal(format!("column {}: {e}", self.columns.get(position).map_or("?", |c| c)))
        })
    }

    /// The value in a position, for who needs it once: it is not there any more.
    pub fn take<T: Stored>(&mut self, position: usize) -> Result<T> {
        let place = self.values.get_mut(position).ok_or_else(|| Error::internal("row: no such column"))?;
        let value = std::mem::replace(place, Value::Null);
        T::load(value).map_err(|e| {
            Error::internal(format!("column {}: {e}", self.columns.get(position).map_or("?", |c| c)))
        })
    }

    /// The value of a named column.
    pub fn get<T: Stored>(&self, column: &str) -> Result<T> {
        let position = self.columns.iter().position(|c| c == column);
        self.at(position.ok_or_else(|| Error::internal(format!("row: no column {column}")))?)
    }
}

pub(crate) fn mismatch<T>(wanted: &str, value: &Value) -> Result<T> {
    Err(Error::internal(format!("expected {wanted}, found {value:?}")))
}

macro_rules! integers {
    ($($type:ty),*) => { $(impl Stored for $type {
        const KIND: Kind = Kind::Int;
        fn store(&self) -> Value { Value::Int(*self as i64) }
        fn load(value: Value) -> Result<Self> {
            match value {
                Value::Int(n) => n.try_into().or_else(|_| mismatch(stringify!($type), &Value::Int(n))),
                Value::Bool(b) => Ok(b as $type),
                other => mismatch(stringify!($type), &other),
            }
        }
        fn json(&self, _: TimeForm) -> Json { (*self).into() }
    })* };
}
integers!(i16, i32, i64, u8, u16, u32, u64, usize);

impl Stored for bool {
    const KIND: Kind = Kind::Bool;
    fn store(&self) -> Value {
        Value::Bool(*self)
    }
    fn load(value: Value) -> Result<Self> {
        match value {
            Value::Bool(b) => Ok(b),
            Value::Int(n) => Ok(n != 0),
            other => mismatch("a boolean", &other),
        }
    }
    fn json(&self, _: TimeForm) -> Json {
        (*self).into()
    }
}

impl Stored for f64 {
    const KIND: Kind = Kind::Real;
    fn store(&self) -> Value {
        Value::Real(*self)
    }
    fn load(value: Value) -> Result<Self> {
        match value {
            Value::Real(x) => Ok(x),
            Value::Int(n) => Ok(n as f64),
            other => mismatch("a number", &other),
        }
    }
    fn json(&self, _: TimeForm) -> Json {
        (*self).into()
    }
}

impl Stored for String {
    const KIND: Kind = Kind::Text;
    fn store(&self) -> Value {
        Value::Text(self.clone())
    }
    fn load(value: Value) -> Result<Self> {
        match value {
            Value::Text(text) => Ok(text),
            other => mismatch("text", &other),
        }
    }
    fn json(&self, _: TimeForm) -> Json {
        self.as_str().into()
    }
}

/// For parameters only; nothing loads into a borrowed text.
impl Stored for &str {
    const KIND: Kind = Kind::Text;
    fn store(&self) -> Value {
        Value::Text((*self).into())
    }
    fn load(value: Value) -> Result<Self> {
        mismatch("an owned text", &value)
    }
    fn json(&self, _: TimeForm) -> Json {
        (*self).into()
    }
}

impl<T: Stored> Stored for &T {
    const KIND: Kind = T::KIND;
    const NULL: bool = T::NULL;
    fn store(&self) -> Value {
        (**self).store()
    }
    fn load(value: Value) -> Result<Self> {
        mismatch("an owned value", &value)
    }
    fn json(&self, form: TimeForm) -> Json {
        (**self).json(form)
    }
}

impl Stored for Secret {
    const KIND: Kind = Kind::Text;
    fn store(&self) -> Value {
        Value::Text(self.expose().into())
    }
    fn load(value: Value) -> Result<Self> {
        String::load(value).map(Secret::new)
    }
    fn json(&self, _: TimeForm) -> Json {
        Json::Null
    }
}

impl Stored for Vec<u8> {
    const KIND: Kind = Kind::Blob;
    fn store(&self) -> Value {
        Value::Blob(self.clone())
    }
    fn load(value: Value) -> Result<Self> {
        match value {
            Value::Blob(bytes) => Ok(bytes),
            other => mismatch("bytes", &other),
        }
    }
    fn json(&self, _: TimeForm) -> Json {
        Json::Null
    }
}

impl Stored for Timestamp {
    const KIND: Kind = Kind::Time;
    fn store(&self) -> Value {
        Value::Int(self.0)
    }
    fn load(value: Value) -> Result<Self> {
        i64::load(value).map(Timestamp)
    }
    fn json(&self, form: TimeForm) -> Json {
        match form {
            TimeForm::Seconds => self.seconds(),
            TimeForm::Micros => self.micros(),
            TimeForm::MicrosZ => self.micros_z(),
        }
        .into()
    }
}

impl<T: Stored> Stored for Option<T> {
    const KIND: Kind = T::KIND;
    const NULL: bool = true;
    fn store(&self) -> Value {
        self.as_ref().map_or(Value::Null, Stored::store)
    }
    fn load(value: Value) -> Result<Self> {
        match value {
            Value::Null => Ok(None),
            value => T::load(value).map(Some),
        }
    }
    fn json(&self, form: TimeForm) -> Json {
        self.as_ref().map_or(Json::Null, |value| value.json(form))
    }
}

impl Stored for Json {
    const KIND: Kind = Kind::Json;
    fn store(&self) -> Value {
        Value::Text(self.to_string())
    }
    fn load(value: Value) -> Result<Self> {
        Ok(serde_json::from_str(&String::load(value)?)?)
    }
    fn json(&self, _: TimeForm) -> Json {
        self.clone()
    }
}

/// Any serde type as a JSON column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AsJson<T>(pub T);

impl<T: Serialize + DeserializeOwned> Stored for AsJson<T> {
    const KIND: Kind = Kind::Json;
    fn store(&self) -> Value {
        // Our own types serialise; a map with non-text keys would be a programming error seen in every test.
        Value::Text(serde_json::to_string(&self.0).unwrap_or_else(|e| format!("\"unserialisable: {e}\"")))
    }
    fn load(value: Value) -> Result<Self> {
        Ok(Self(serde_json::from_str(&String::load(value)?)?))
    }
    fn json(&self, _: TimeForm) -> Json {
        serde_json::to_value(&self.0).unwrap_or(Json::Null)
    }
}

impl<T> std::ops::Deref for AsJson<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::ops::DerefMut for AsJson<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl Stored for Vec<String> {
    const KIND: Kind = Kind::Json;
    fn store(&self) -> Value {
        Value::Text(Json::from(self.clone()).to_string())
    }
    fn load(value: Value) -> Result<Self> {
        Ok(serde_json::from_str(&String::load(value)?)?)
    }
    fn json(&self, _: TimeForm) -> Json {
        self.clone().into()
    }
}

/// A closed set of words as a column and in JSON:
/// `text_enum! { pub enum Status { Active = "ACTIVE", Down = "DOWN" } }`.
#[macro_export]
macro_rules! text_enum {
    ($(#[$outer:meta])* $vis:vis enum $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name { $($(#[$inner])* $variant),* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::Stored for $name {
            const KIND: $crate::Kind = $crate::Kind::Text;
            fn store(&self) -> $crate::Value {
                $crate::Value::Text(self.as_str().into())
            }
            fn load(value: $crate::Value) -> ::base::Result<Self> {
                let text = <String as $crate::Stored>::load(value)?;
                Self::parse(&text).ok_or_else(|| {
                    ::base::Error::internal(format!("{text:?} is no {}", stringify!($name)))
                })
            }
            fn json(&self, _: $crate::TimeForm) -> ::base::Json {
                self.as_str().into()
            }
        }
    };
}
