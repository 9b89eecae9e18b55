//! Plain tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table without frames; columns named in `right` are aligned to the right, as numbers are.
pub(crate) fn table<const N: usize>(header: [&str; N], right: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for (column, name) in table.column_iter_mut().zip(header) {
        if right.contains(&name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The same with as many columns as there are; all but the first are numbers.
pub(crate) fn numbers(header: &[String], rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.add_rows(rows);
    table
}

/// The table's text without the blanks that fill up the last column.
pub(crate) fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
