//! The binary `xmore`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(xmore_cli::main(std::env::args_os()))
}
