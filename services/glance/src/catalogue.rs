//! The metadata definitions that a new cloud begins with: upstream's namespaces with their properties' names, types and
//! values, as data in `catalogue.json`. Titles are the names.

use crate::{Glance, api::metadefs::insert_whole, store::metadefs as store};
use base::{Error, Json, Result};
use serde_json::json;

const CATALOGUE: &str = include_str!("catalogue.json");
/// Who owns what came with the program, as upstream has it.
const OWNER: &str = "admin";

impl Glance {
    /// Adds the namespaces that are not there.
    pub async fn load_catalogue(&self) -> Result<()> {
        let (all, now) = (namespaces()?, self.clock.now());
        self.db
            .write(move |tx| {
                for one in &all {
                    if store::namespace(tx, one["namespace"].as_str().unwrap_or_default())?.is_none() {
                        insert_whole(tx, one, OWNER, now)?;
                    }
                }
                Ok(())
            })
            .await
    }
}

fn namespaces() -> Result<Vec<Json>> {
    let mut all: Vec<Json> =
        serde_json::from_str(CATALOGUE).map_err(|e| Error::internal(format!("catalogue.json: {e}")))?;
    for one in &mut all {
        entitle(&mut one["properties"]);
        one["objects"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .for_each(|object| entitle(&mut object["properties"]));
    }
    Ok(all)
}

fn entitle(properties: &mut Json) {
    for (name, property) in properties.as_object_mut().into_iter().flatten() {
        property["title"] = json!(name.replace(['_', ':'], " "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schemas::metadefs as schemas;

    #[test]
    fn the_catalogue_is_what_clients_might_have_sent() {
        let all = namespaces().unwrap();
        assert!(all.len() > 30);
        for one in all {
            schemas::NAMESPACE.check(&one).unwrap();
            for object in one["objects"].as_array().unwrap() {
                schemas::check_properties(object).unwrap();
            }
            schemas::check_properties(&one).unwrap();
        }
    }
}
