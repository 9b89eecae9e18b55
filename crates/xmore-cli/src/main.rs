//! The `xmore` command.
fn main() {}
