//! Plain tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle, presets};
use xmore_files::escape_for_terminal;

/// A table without frames; columns named in `right` are aligned to the right, as numbers are.
pub(crate) fn table(header: &[&str], right: &[&str]) -> Table {
    new(presets::NOTHING, header, |name| right.contains(&name))
}

/// The same with all rows; all columns but the first are numbers.
pub(crate) fn numbers(header: &[String], rows: &[Vec<String>]) -> Table {
    let mut table = new(presets::NOTHING, header, |_| true);
    align(&mut table, 0, CellAlignment::Left);
    for row in rows {
        add_row(&mut table, row);
    }
    table
}

/// A table with a frame; all columns but the first are numbers.
pub(crate) fn framed(header: &[&str]) -> Table {
    let mut table = new(presets::UTF8_BORDERS_ONLY, header, |_| true);
    align(&mut table, 0, CellAlignment::Left);
    table
}

fn new<S: AsRef<str>>(style: TableStyle, header: &[S], is_number: impl Fn(&str) -> bool) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(AsRef::as_ref));
    for (index, name) in header.iter().enumerate() {
        if is_number(name.as_ref()) {
            align(&mut table, index, CellAlignment::Right);
        }
    }
    table
}

fn align(table: &mut Table, column: usize, alignment: CellAlignment) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(alignment);
    }
}

/// Adds a row. Control characters are shown escaped, before widths are counted.
pub(crate) fn add_row<S: AsRef<str>>(table: &mut Table, cells: impl IntoIterator<Item = S>) {
    table.add_row(cells.into_iter().map(|cell| escape_for_terminal(cell.as_ref()).into_owned()));
}

/// The table's text without the blanks that fill up the last column.
pub(crate) fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
