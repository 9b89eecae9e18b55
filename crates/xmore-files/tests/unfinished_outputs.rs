//! Temporary files of outputs at an exit without unwinding: alone in its process, for the list of them is the process' own.

use std::fs;
use std::io::Write;

use xmore_files::{Output, remove_unfinished_outputs};

#[test]
fn unfinished_files_are_removed_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let count = || fs::read_dir(dir.path()).unwrap().count();
    let mut output = Output::create(&dir.path().join("out")).unwrap();
    output.write_all(b"half").unwrap();
    assert_eq!(count(), 1);
    remove_unfinished_outputs();
    assert_eq!(count(), 0);
    assert!(output.commit().is_err());
    assert_eq!(count(), 0);
}
