//! The addresses in a security group: many, and the same on every host that is told of them. They are written down once
//! for all of these hosts, and those of one process that hear the same keep it once.

use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    sync::{Arc, OnceLock, Weak},
};

/// Cheap to clone. On the bus a text with spaces between the addresses; a list is understood, too.
#[derive(Clone, Debug, Default)]
pub struct Members(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    all: BTreeSet<IpNet>,
    text: OnceLock<String>,
}

impl Members {
    fn text(&self) -> &str {
        self.0.text.get_or_init(|| {
            let all: Vec<String> = self.0.all.iter().map(IpNet::to_string).collect();
            all.join(" ")
        })
    }

    /// What a text says: what is known already, if the same was heard before.
    fn heard(text: &str) -> Result<Self, ipnet::AddrParseError> {
        static HEARD: Mutex<Option<HashMap<u64, Weak<Kept>>>> = Mutex::new(None);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let known = HEARD.lock().as_ref().and_then(|all| all.get(&hash)?.upgrade()).map(Self);
        if let Some(known) = known.filter(|known| known.text() == text) {
            return Ok(known);
        }
        let all = text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let kept = Arc::new(Kept { all, text: OnceLock::from(text.to_string()) });
        let mut heard = HEARD.lock();
        let heard = heard.get_or_insert_default();
        heard.retain(|_, kept| kept.strong_count() > 0);
        heard.insert(hash, Arc::downgrade(&kept));
        Ok(Self(kept))
    }
}

impl Deref for Members {
    type Target = BTreeSet<IpNet>;

    fn deref(&self) -> &BTreeSet<IpNet> {
        &self.0.all
    }
}

impl From<BTreeSet<IpNet>> for Members {
    fn from(all: BTreeSet<IpNet>) -> Self {
        Self(Arc::new(Kept { all, text: OnceLock::new() }))
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.all == other.0.all
    }
}

impl Eq for Members {}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("addresses")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Members, E> {
        Members::heard(text).map_err(E::custom)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Members, A::Error> {
        let mut all = BTreeSet::new();
        while let Some(address) = list.next_element()? {
            all.insert(address);
        }
        Ok(Members::from(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn members(all: &[&str]) -> Members {
        Members::from(all.iter().map(|net| net.parse().unwrap()).collect::<BTreeSet<IpNet>>())
    }

    #[test]
    fn what_is_the_same_is_kept_once() {
        let told = serde_json::to_string(&members(&["10.0.0.9/32", "10.0.0.10/32", "fd00::1/128"])).unwrap();
        assert_eq!(told, r#""10.0.0.9/32 10.0.0.10/32 fd00::1/128""#);
        let [one, other]: [Members; 2] = [(); 2].map(|()| serde_json::from_str(&told).unwrap());
        assert!(Arc::ptr_eq(&one.0, &other.0));
        assert_eq!(one, members(&["10.0.0.10/32", "10.0.0.9/32", "fd00::1/128"]));
        let less: Members = serde_json::from_value(json!("10.0.0.9/32")).unwrap();
        assert_ne!(less, one);
    }

    #[test]
    fn lists_and_nonsense() {
        let listed: Members = serde_json::from_value(json!(["10.0.0.9/32", "10.0.0.10/32"])).unwrap();
        assert_eq!(listed, members(&["10.0.0.9/32", "10.0.0.10/32"]));
        assert_eq!(serde_json::from_value::<Members>(json!("")).unwrap(), Members::default());
        assert!(serde_json::from_value::<Members>(json!("10.0.0.9/32 here")).is_err());
        assert!(serde_json::from_value::<Members>(json!(7)).is_err());
    }
}
