//! Plain tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use xmore_files::escape_for_terminal;

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
    for row in rows {
        add_row(&mut table, row);
    }
    table
}

/// Adds a row. What acts on terminals is shown escaped, before widths are counted.
pub(crate) fn add_row<S: AsRef<str>>(table: &mut Table, cells: impl IntoIterator<Item = S>) {
    table.add_row(cells.into_iter().map(|cell| escape_for_terminal(cell.as_ref()).into_owned()));
}

/// The table's text without the blanks that fill up the last column.
pub(crate) fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
