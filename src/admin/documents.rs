//! The documents of the API and their JSON Schema, for `tidegate schema` and descriptions of the API.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    explain::CacheEntries,
    rules::Rules,
    status::{Status, Upstreams},
    top::Top,
};
use crate::{engine::explain::document::Explanation, perimeter::document::PerimeterDocument};

/// Every document under `/api/v1/`.
pub const DOCUMENTS: &[Document] = &[
    Document::of::<Status>("status"),
    Document::of::<Upstreams>("upstreams"),
    Document::of::<Rules>("rules"),
    Document::of::<Explanation>("explain"),
    Document::of::<PerimeterDocument>("perimeter"),
    Document::of::<Top>("top"),
    Document::of::<CacheEntries>("cache"),
];

/// A typed document.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// The last part of its path.
    pub name: &'static str,
    /// Makes a schema that stands alone, with the definitions that it refers to.
    pub schema: fn(SchemaGenerator) -> Schema,
    /// Makes a reference to its schema, for descriptions with definitions of their own; the generator collects these.
    pub reference: fn(&mut SchemaGenerator) -> Schema,
}

impl Document {
    /// The document that `T` is serialized as.
    pub const fn of<T: JsonSchema>(name: &'static str) -> Self {
        Self {
            name,
            schema: SchemaGenerator::into_root_schema_for::<T>,
            reference: SchemaGenerator::subschema_for::<T>,
        }
    }
}
