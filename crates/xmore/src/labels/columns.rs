//! Names of the columns of tables, and of the keys of JSON objects, that have labels, prompts and synonyms.

/// Names of the column of labels, the likeliest first, in small letters without signs; also the keys of JSON objects.
pub(super) const NAME_COLUMNS: [&str; 14] = [
    "displayname",
    "classname",
    "labelname",
    "categoryname",
    "label",
    "class",
    "name",
    "category",
    "labels",
    "classes",
    "classnames",
    "labelnames",
    "names",
    "categories",
];
/// Names of the column of a label's own prompts.
pub(super) const PROMPT_COLUMNS: [&str; 2] = ["prompts", "prompt"];
/// Names of the column of a label's further names.
pub(super) const SYNONYM_COLUMNS: [&str; 2] = ["synonyms", "synonym"];

/// A header's name in small letters, without spaces and signs.
pub(super) fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
