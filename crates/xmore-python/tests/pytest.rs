//! The tests of the Python package, `python/tests`, on the module that was built beside this test.
//!
//! They run in a virtual environment in the build folder, which is made once for each list of requirements. Where Python is too old, or pip cannot
//! fetch, they are skipped, visibly; under CI, or with XMORE_REQUIRE_PYTHON=1, that is a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

/// Programs that may be Python.
const INTERPRETERS: [&str; 2] = ["python3", "python"];
/// Oldest version that the requirements run on; the package itself runs on 3.10, too.
const OLDEST: &str = "(3, 11)";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn temporary() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Runs a command to its end; what it said, if it failed or is not there.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn interpreter() -> Result<&'static str, String> {
    let is_new = format!("import sys, venv; sys.exit(sys.version_info < {OLDEST})");
    let found = INTERPRETERS.into_iter().find(|name| run(Command::new(name).args(["-c", &is_new])).is_ok());
    found.ok_or_else(|| format!("no Python of version {OLDEST} or later with the module venv"))
}

/// The interpreter of an environment with what the tests need.
fn environment() -> Result<PathBuf, String> {
    let requirements = root().join("python/requirements-test.txt");
    let python = interpreter()?;
    let mut hash = Sha256::new();
    hash.update(fs::read(&requirements).unwrap());
    hash.update(python);
    let name = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>();
    let dir = temporary().join(format!("python-{name}"));
    let (program, stamp) = (dir.join("bin/python"), dir.join("complete"));
    if !stamp.exists() {
        // What is left of an attempt that failed.
        let _ = fs::remove_dir_all(&dir);
        run(Command::new(python).args(["-m", "venv"]).arg(&dir))?;
        let install =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "-r"];
        run(Command::new(&program).args(install).arg(&requirements))?;
        fs::write(&stamp, "").unwrap();
    }
    Ok(program)
}

/// Copies a folder and those in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The package as it would be installed; returns the folder that it is in.
fn package() -> PathBuf {
    let dir = temporary().join("python-package");
    let package = dir.join("xmore");
    let _ = fs::remove_dir_all(&package);
    copy(&root().join("python/xmore"), &package);
    let beside = std::env::current_exe().unwrap().with_file_name(format!(
        "{}xmore_python{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ));
    fs::copy(&beside, package.join("_native.abi3.so"))
        .unwrap_or_else(|e| panic!("{}: {e}", beside.display()));
    dir
}

#[test]
#[cfg(unix)]
fn the_python_package_passes_its_tests() {
    let python = match environment() {
        Ok(python) => python,
        Err(reason) => {
            let required = ["CI", "XMORE_REQUIRE_PYTHON"].iter().any(|name| std::env::var_os(name).is_some());
            assert!(!required, "the Python package cannot be tested: {reason}");
            eprintln!("SKIPPED: the Python package cannot be tested: {reason}");
            return;
        }
    };
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "python/tests"]).current_dir(root());
    pytest.env("PYTHONPATH", package()).env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("XMORE_")) {
            pytest.env_remove(name);
        }
    }
    let output = pytest.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{}", said[0], said[1]);
}
