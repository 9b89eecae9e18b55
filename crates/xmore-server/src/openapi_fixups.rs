//! What the macros cannot say in the API's description: that everything can be refused, what is optional as a whole, what a form's files are.

use std::collections::BTreeMap;

use utoipa::Modify;
use utoipa::openapi::schema::{AllOf, Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};

/// Corrects the description.
pub(crate) struct Corrected;

type Schemas = BTreeMap<String, RefOr<Schema>>;

impl Modify for Corrected {
    fn modify(&self, api: &mut OpenApi) {
        for item in api.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                for (range, whose) in [("4XX", "The request's fault"), ("5XX", "The server's fault")] {
                    let content = Content::new(Some(Ref::from_schema_name("ErrorBody")));
                    let refused =
                        ResponseBuilder::new().description(whose).content("application/json", content);
                    let responses = &mut operation.responses.responses;
                    responses.entry(range.to_owned()).or_insert_with(|| refused.build().into());
                }
            }
        }
        let Some(components) = &mut api.components else { return };
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Where the server asks for a key"));
        components.add_security_scheme("key", SecurityScheme::Http(key.build()));
        let all: Schemas = components.schemas.clone().into_iter().collect();
        for (name, schema) in &mut components.schemas {
            if let (true, RefOr::T(Schema::AllOf(form))) = (name.starts_with("ImageForm_"), &mut *schema) {
                correct_form(form);
            }
            correct_flattened(schema, &all);
        }
    }
}

/// The parameters of a form are those of JSON, but its images are files.
fn correct_form(form: &mut AllOf) {
    for part in &mut form.items {
        if let RefOr::T(Schema::Object(part)) = part
            && part.additional_properties.take().is_some()
        {
            part.properties.remove("image");
            part.properties.remove("images");
        }
    }
}

/// A flattened `Option` is described as an object or null beside the other fields, which no object is: its fields are optional.
fn correct_flattened(schema: &mut RefOr<Schema>, all: &Schemas) {
    match schema {
        RefOr::T(Schema::OneOf(one)) => one.items.iter_mut().for_each(|item| correct_flattened(item, all)),
        RefOr::T(Schema::AllOf(parts)) => {
            for part in &mut parts.items {
                if let Some(fields) = fields_of_option(part, all) {
                    let mut fields = fields.clone();
                    fields.required.clear();
                    *part = Schema::Object(fields).into();
                }
            }
        }
        _ => {}
    }
}

/// The object that is there or not.
fn fields_of_option<'a>(schema: &RefOr<Schema>, all: &'a Schemas) -> Option<&'a Object> {
    let RefOr::T(Schema::OneOf(one)) = schema else { return None };
    let is_null = |item: &RefOr<Schema>| matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null));
    let [one, other] = &one.items[..] else { return None };
    let RefOr::Ref(named) = (if is_null(one) { other } else { one }) else { return None };
    match all.get(named.ref_location.rsplit('/').next()?)? {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}
