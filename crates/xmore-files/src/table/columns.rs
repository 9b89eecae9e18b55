//! The usual names of columns, in one table, and how the column of a role is found among those of a table.

use std::fmt;
use std::path::Path;

use crate::image::ImageFormat;

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The path of an image.
    Image,
    /// A text that describes the image.
    Caption,
    /// The class of the image.
    Label,
    /// The part of the data set that the row belongs to: train, test.
    Split,
}

/// Names of each role, the most specific first, as people write them; [`same_name`] compares them.
const NAMES: [(Role, &str, &[&str]); 4] = [
    (
        Role::Image,
        "image",
        &[
            "image_path",
            "file_path",
            "image",
            "file_name",
            "image_file",
            "image_name",
            "image_file_name",
            "img_path",
            "img",
            "img_name",
            "path",
            "file",
            "picture",
            "photo",
        ],
    ),
    (
        Role::Caption,
        "caption",
        &[
            "caption",
            "captions",
            "title",
            "text",
            "description",
            "alt",
            "alt_text",
            "sentence",
            "sentences",
            "comment",
            "image_caption",
            "caption_text",
            "prompt",
        ],
    ),
    (
        Role::Label,
        "label",
        &["label", "class", "class_name", "label_name", "category", "category_name", "target", "class_label"],
    ),
    (Role::Split, "split", &["split", "subset", "partition"]),
];

impl Role {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The usual names of its column, in the order in which they are looked for.
    pub fn column_names(self) -> &'static [&'static str] {
        self.row().2
    }

    fn row(self) -> &'static (Role, &'static str, &'static [&'static str]) {
        NAMES.iter().find(|(role, ..)| *role == self).expect("every role has a row")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether two columns have the same name: case, spaces, hyphens and underscores make no difference.
pub fn same_name(a: &str, b: &str) -> bool {
    let letters = |name: &str| -> Vec<char> {
        let kept = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-' | '.'));
        kept.flat_map(char::to_lowercase).collect()
    };
    letters(a) == letters(b)
}

/// Whether a column's name is one of the usual ones, in any role.
pub(super) fn is_usual(name: &str) -> bool {
    NAMES.iter().any(|(_, _, names)| names.iter().any(|usual| same_name(name, usual)))
}

/// Whether a field is the name of an image file.
pub(super) fn is_image(field: &str) -> bool {
    let field = without_caption_number(field);
    !field.contains('\n') && ImageFormat::of_name(Path::new(field)).is_some()
}

/// A path without the number of the caption behind it, as Flickr8k's list has: `1000.jpg#0`.
pub(crate) fn without_caption_number(path: &str) -> &str {
    match path.rsplit_once('#') {
        Some((image, number))
            if !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
                && ImageFormat::of_name(Path::new(image)).is_some() =>
        {
            image
        }
        _ => path,
    }
}

/// The column that was found for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its index.
    pub index: usize,
    /// Other columns that have a usual name of the role as well; empty where the column was named by the caller.
    pub others: Vec<usize>,
}

/// A table has no column for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingColumn {
    /// The role.
    pub role: Role,
    /// Names that are taken for the role.
    pub expected: &'static [&'static str],
    /// The name that the caller asked for, if one was.
    pub wanted: Option<String>,
    /// The columns that there are; of a table without a header the fields of its first row.
    pub columns: Vec<String>,
    /// Whether the columns have names.
    pub has_header: bool,
}

impl fmt::Display for MissingColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Some(wanted) => write!(f, "no column {wanted:?}")?,
            None => write!(f, "no {} column: expected one of {}", self.role, self.expected.join(", "))?,
        }
        let found = if self.has_header { "found" } else { "found no header, but a first row" };
        write!(f, "; {found} {}", listed(&self.columns))
    }
}

impl std::error::Error for MissingColumn {}

/// "a, b, c", or "none"; a long list or name is cut.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    const LONGEST: usize = 100;
    if names.is_empty() {
        return "none".to_owned();
    }
    let short = |name: &String| match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    };
    let mut out = names.iter().take(SHOWN).map(short).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        out.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    out
}

/// Finds the column of a role among these names: that which the caller `wanted`, by name or by number from 1, else the first of the
/// usual names.
pub fn find(columns: &[String], role: Role, wanted: Option<&str>) -> Result<Found, MissingColumn> {
    let only = |index: usize| Found { index, others: Vec::new() };
    let found = match wanted {
        Some(wanted) => {
            let named = columns.iter().position(|column| column == wanted);
            let alike = || columns.iter().position(|column| same_name(column, wanted));
            let numbered = || {
                let number = wanted.parse::<usize>().ok().filter(|n| (1..=columns.len()).contains(n))?;
                Some(number - 1)
            };
            named.or_else(alike).or_else(numbered).map(only)
        }
        None => {
            let usual = role.column_names().iter();
            let mut all = usual.flat_map(|name| (0..columns.len()).filter(|&i| same_name(&columns[i], name)));
            all.next().map(|index| Found { index, others: all.collect() })
        }
    };
    found.ok_or_else(|| MissingColumn {
        role,
        expected: role.column_names(),
        wanted: wanted.map(str::to_owned),
        columns: columns.to_vec(),
        has_header: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn case_spaces_hyphens_and_underscores_make_no_difference() {
        for (header, index) in [
            ("id,File Name", 1),
            ("filename,x", 0),
            ("FILEPATH,x", 0),
            ("x,Image-Path", 1),
            ("file,image_path", 1),
            ("x,img", 1),
        ] {
            assert_eq!(find(&names(header), Role::Image, None).unwrap().index, index, "{header}");
        }
        assert_eq!(find(&names("TEXT,url"), Role::Caption, None).unwrap().index, 0);
    }

    #[test]
    fn the_callers_choice_is_a_name_or_a_number_and_others_are_told() {
        let columns = names("Image,bild,3,text,caption");
        assert_eq!(find(&columns, Role::Image, Some("Bild")).unwrap().index, 1);
        assert_eq!(find(&columns, Role::Image, Some("3")).unwrap().index, 2);
        assert_eq!(find(&columns, Role::Image, Some("2")).unwrap().index, 1);
        assert_eq!(find(&columns, Role::Caption, None).unwrap(), Found { index: 4, others: vec![3] });
        let missing = find(&columns, Role::Label, None).unwrap_err().to_string();
        assert!(missing.contains("no label column") && missing.contains("\"bild\""), "{missing}");
        assert!(find(&columns, Role::Image, Some("6")).unwrap_err().to_string().contains("no column \"6\""));
    }

    #[test]
    fn a_caption_number_belongs_to_no_path() {
        assert_eq!(without_caption_number("a.jpg#12"), "a.jpg");
        for path in ["a#b.jpg", "a.parquet#12", "a.jpg#"] {
            assert_eq!(without_caption_number(path), path);
        }
        assert!(is_image("x/a.JPG#0") && !is_image("a dog") && !is_image("a.jpg\nb"));
    }
}
