//! The real Milvus server, from its wheel, in a network of its own.
//!
//! Milvus listens on all interfaces whatever its configuration says (its gRPC ports take no address), so it runs in
//! a network namespace that has nothing but a loopback interface, and so does the test that talks to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The last version of which there is a wheel, 58 MB.
const WHEEL: &str = "milvus==2.3.5";
const PYTHON: &str = "python3";
/// Set in the process that runs inside.
const INSIDE: &str = "XMORE_TEST_MILVUS_INSIDE";
/// The test ends by then, whatever happens.
const SECONDS: &str = "300";

/// Why a test cannot be made here, shown although the test passes.
pub fn skip(reason: &str) {
    // Not through the macro, whose output is kept back.
    let _ = writeln!(std::io::stderr(), "SKIPPED: the Milvus server cannot be run here: {reason}");
}

/// Runs a test of this name inside a network and a process tree of its own, which end together. Returns whether this
/// is the process inside, which is to make the test; the one outside has its outcome.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        skip("its wheel is for Linux on x86-64");
        return false;
    }
    if let Err(reason) = install() {
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        skip(&reason);
        return false;
    }
    let Some(isolation) = isolation() else {
        skip(
            "unshare gives no network of its own, and outside of one the server would listen on all interfaces",
        );
        return false;
    };
    let output = tempfile::tempfile().unwrap();
    let mut command = Command::new("setpriv");
    // Ends with this process too, however that ends.
    command.args(["--pdeathsig", "KILL", "unshare"]).args(isolation);
    command.args(["timeout", "--foreground", "--signal=KILL", SECONDS]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").stdin(Stdio::null());
    command.stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
    let mut child = Ended(command.spawn().unwrap());
    let status = child.0.wait().unwrap();
    println!("{}", said(output));
    assert!(status.success(), "the test failed inside: {status}; what it said is above");
    false
}

/// Arguments of `unshare` that work here: as root, or with a user namespace.
fn isolation() -> Option<Vec<&'static str>> {
    // All processes inside end with the first one of them, and that one with unshare. Milvus looks itself up in /proc.
    let apart = vec!["--net", "--pid", "--mount-proc", "--fork", "--kill-child"];
    let as_user = [vec!["--user", "--map-root-user"], apart.clone()].concat();
    let works = |arguments: &Vec<&str>| {
        let run =
            Command::new("setpriv").arg("unshare").args(arguments).arg("true").stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    [apart, as_user].into_iter().find(works)
}

/// What was written to a file.
fn said(mut file: File) -> String {
    let mut said = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut said)).unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("milvus-2.3.5")
}

/// Fetches the wheel into the build folder, once.
fn install() -> Result<(), String> {
    let (packages, partial) = (cache().join("packages"), cache().join("packages.partial"));
    if packages.is_dir() {
        return Ok(());
    }
    let _ = fs::remove_dir_all(&partial);
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"];
    let run = Command::new(PYTHON).args(pip).arg(&partial).arg(WHEEL).output();
    let run = run.map_err(|e| format!("{PYTHON}: {e}"))?;
    if !run.status.success() {
        return Err(format!("pip cannot install {WHEEL}: {}", String::from_utf8_lossy(&run.stderr).trim()));
    }
    fs::rename(&partial, &packages).map_err(|e| format!("{}: {e}", packages.display()))
}

/// A server that runs, or was killed and can be started again. Ends when dropped.
pub struct Server {
    run: TempDir,
    process: Option<Ended>,
    /// Port of the management API.
    pub management: u16,
    /// Port of the RESTful API.
    pub port: u16,
}

impl Server {
    pub fn start() -> Server {
        let run = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/milvus_server/prepare.py");
        let prepare = Command::new(PYTHON)
            .args([
                script.as_os_str(),
                cache().join("packages").as_os_str(),
                cache().as_os_str(),
                run.path().as_os_str(),
            ])
            .output()
            .unwrap();
        assert!(prepare.status.success(), "{}", String::from_utf8_lossy(&prepare.stderr));
        let ports = String::from_utf8(prepare.stdout).unwrap();
        let ports: Vec<u16> = ports.split_whitespace().map(|port| port.parse().unwrap()).collect();
        let mut server = Server { run, process: None, management: ports[0], port: ports[1] };
        server.start_again();
        server
    }

    /// Starts the server on its ports and data; it takes requests some seconds later.
    pub fn start_again(&mut self) {
        let (run, bin) = (self.run.path(), cache().join("bin"));
        let log = || File::options().create(true).append(true).open(run.join("milvus.log")).unwrap();
        let process = Command::new(bin.join("milvus"))
            .args(["run", "standalone"])
            .current_dir(run)
            .env("DEPLOY_MODE", "STANDALONE")
            .env("METRICS_PORT", self.management.to_string())
            .env("MILVUS_RUN_DIR", run.join("run"))
            .env("LD_LIBRARY_PATH", bin.as_os_str() as &OsStr)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap();
        self.process = Some(Ended(process));
    }

    /// Ends the server at once, without a chance to write anything.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

/// A process that is killed and waited for when dropped, so also on a panic.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
