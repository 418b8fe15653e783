//! `#[derive(Resource)]`: turns a plain struct into a table, a row type and the field list that
//! validation, list queries and views read. The attributes are explained at `db::Resource`.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitInt, LitStr, Result, parse_macro_input};

#[proc_macro_derive(Resource, attributes(resource, field))]
pub fn resource(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|e| e.to_compile_error()).into()
}

#[derive(Default)]
struct TableAttributes {
    table: String,
    singular: String,
    plural: String,
    unique: Vec<Vec<String>>,
    index: Vec<Vec<String>>,
}

#[derive(Default)]
struct FieldAttributes {
    key: bool,
    create: bool,
    update: bool,
    required: bool,
    filter: bool,
    sort: bool,
    hidden: bool,
    rule: bool,
    json: Option<String>,
    max: Option<u32>,
    since: (u16, u16),
    until: Option<(u16, u16)>,
}

fn expand(input: &DeriveInput) -> Result<proc_macro2::TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(input, "only a struct is a resource"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(input, "a resource has named fields"));
    };
    let name = &input.ident;
    let table = table_attributes(input)?;
    let mut columns = Vec::new();
    let mut keys = Vec::new();
    let mut idents = Vec::new();
    for field in &fields.named {
        let attributes = field_attributes(field)?;
        let ident = field.ident.as_ref().expect("named fields have names");
        let kind = &field.ty;
        let column = ident.to_string().trim_start_matches("r#").to_string();
        if attributes.key {
            keys.push(column.clone());
        }
        let FieldAttributes { create, update, required, filter, sort, hidden, rule, .. } = attributes;
        let json = attributes.json.unwrap_or_else(|| column.clone());
        let max = option(attributes.max.map(|n| quote!(#n)));
        let (since_major, since_minor) = attributes.since;
        let until = option(attributes.until.map(|(a, b)| quote!((#a, #b))));
        columns.push(quote!(::db::Field {
            column: #column, json: #json,
            kind: <#kind as ::db::Stored>::KIND, null: <#kind as ::db::Stored>::NULL,
            create: #create, update: #update, required: #required, filter: #filter, sort: #sort,
            hidden: #hidden, rule: #rule, max: #max, since: (#since_major, #since_minor), until: #until,
        }));
        idents.push(ident);
    }
    if keys.is_empty() {
        return Err(Error::new_spanned(input, "mark the key with #[field(key)]"));
    }
    let TableAttributes { table, singular, plural, unique, index } = table;
    let positions = 0..idents.len();
    let getters = positions.clone();
    Ok(quote! {
        impl ::db::Resource for #name {
            const TABLE: &'static ::db::Table = &::db::Table {
                name: #table, singular: #singular, plural: #plural,
                fields: &[#(#columns),*], key: &[#(#keys),*],
                unique: &[#(&[#(#unique),*]),*], index: &[#(&[#(#index),*]),*],
            };
            fn from_row(mut row: ::db::Row) -> ::base::Result<Self> {
                Ok(Self { #(#idents: row.take(#positions)?),* })
            }
            fn values(&self) -> Vec<::db::Value> {
                vec![#(::db::Stored::store(&self.#idents)),*]
            }
            fn field_json(&self, position: usize, form: ::db::TimeForm) -> ::base::Json {
                match position {
                    #(#getters => ::db::Stored::json(&self.#idents, form),)*
                    _ => ::base::Json::Null,
                }
            }
        }
    })
}

fn option(tokens: Option<proc_macro2::TokenStream>) -> proc_macro2::TokenStream {
    match tokens {
        Some(tokens) => quote!(Some(#tokens)),
        None => quote!(None),
    }
}

fn table_attributes(input: &DeriveInput) -> Result<TableAttributes> {
    let mut found = TableAttributes::default();
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("resource")) {
        attribute.parse_nested_meta(|meta| {
            let columns = || -> Result<Vec<String>> {
                let text = meta.value()?.parse::<LitStr>()?.value();
                Ok(text.split(',').map(|c| c.trim().to_string()).collect())
            };
            match ident(&meta.path).as_str() {
                "table" => found.table = meta.value()?.parse::<LitStr>()?.value(),
                "singular" => found.singular = meta.value()?.parse::<LitStr>()?.value(),
                "plural" => found.plural = meta.value()?.parse::<LitStr>()?.value(),
                "unique" => found.unique.push(columns()?),
                "index" => found.index.push(columns()?),
                _ => return Err(meta.error("table, singular, plural, unique or index")),
            }
            Ok(())
        })?;
    }
    if found.table.is_empty() {
        return Err(Error::new_spanned(&input.ident, "name the table: #[resource(table = \"…\")]"));
    }
    if found.singular.is_empty() {
        found.singular = found.table.clone();
    }
    if found.plural.is_empty() {
        found.plural = format!("{}s", found.singular);
    }
    Ok(found)
}

fn field_attributes(field: &syn::Field) -> Result<FieldAttributes> {
    let mut found = FieldAttributes::default();
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("field")) {
        attribute.parse_nested_meta(|meta| {
            match ident(&meta.path).as_str() {
                "key" => found.key = true,
                "create" => found.create = true,
                "update" => found.update = true,
                "required" => found.required = true,
                "filter" => found.filter = true,
                "sort" => found.sort = true,
                "hidden" => found.hidden = true,
                "rule" => found.rule = true,
                "json" => found.json = Some(meta.value()?.parse::<LitStr>()?.value()),
                "max" => found.max = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?),
                "since" => found.since = version(&meta.value()?.parse()?)?,
                "until" => found.until = Some(version(&meta.value()?.parse()?)?),
                _ => {
                    return Err(meta.error(
                        "key, create, update, required, filter, sort, hidden, rule, json, max, since or until",
                    ));
                }
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn version(text: &LitStr) -> Result<(u16, u16)> {
    let wrong = || Error::new_spanned(text, "a microversion, as \"2.19\"");
    let value = text.value();
    let (major, minor) = value.split_once('.').ok_or_else(wrong)?;
    Ok((major.parse().map_err(|_| wrong())?, minor.parse().map_err(|_| wrong())?))
}

fn ident(path: &syn::Path) -> String {
    path.get_ident().map(ToString::to_string).unwrap_or_default()
}
