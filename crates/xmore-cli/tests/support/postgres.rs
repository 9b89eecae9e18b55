//! The real PostgreSQL server with pgvector, from its wheel, on loopback and with a password.
//!
//! PostgreSQL refuses to run as root, so a test that does starts it as another user.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// PostgreSQL 16.2 with pgvector 0.6.2, 11 MB.
const WHEEL: &str = "pgserver==0.1.4";
const PYTHON: &str = "python3";
/// The password of the tables' owner, with characters that a URL has to escape.
pub const PASSWORD: &str = "s3cr3t/@ word";
/// User and group that nothing belongs to.
const UNPRIVILEGED: u32 = 65_534;

/// Why a test cannot be made here, shown although the test passes.
fn skip(reason: &str) {
    // Not through the macro, whose output is kept back.
    let _ = writeln!(std::io::stderr(), "SKIPPED: the PostgreSQL server cannot be run here: {reason}");
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("pgserver-0.1.4")
}

/// Fetches the wheel into the build folder, once.
fn install() -> Result<PathBuf, String> {
    let folder = cache();
    let install = folder.join("pgserver/pginstall");
    if !folder.is_dir() {
        // Tests may do this at the same time.
        let partial = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"];
        let run = Command::new(PYTHON).args(pip).arg(partial.path()).arg(WHEEL).output();
        let run = run.map_err(|e| format!("{PYTHON}: {e}"))?;
        if !run.status.success() {
            return Err(format!(
                "pip cannot install {WHEEL}: {}",
                String::from_utf8_lossy(&run.stderr).trim()
            ));
        }
        fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
        if let Err(error) = fs::rename(partial.path(), &folder)
            && !install.is_dir()
        {
            return Err(format!("{}: {error}", folder.display()));
        }
    }
    Ok(install)
}

/// A server that runs, or was killed and can be started again. Ends when dropped.
pub struct Postgres {
    run: TempDir,
    install: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Postgres {
    /// `None`, and the reason shown, where there can be none. Under CI only the platform is a reason.
    pub fn start() -> Option<Postgres> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            skip("its wheel is for Linux on x86-64");
            return None;
        }
        let install = match install() {
            Ok(install) => install,
            Err(reason) => {
                assert!(std::env::var_os("CI").is_none(), "{reason}");
                skip(&reason);
                return None;
            }
        };
        let run = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Postgres { run, install, port, process: None };
        let password = server.run.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        if is_root() {
            for path in [server.run.path(), &password] {
                chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
            }
        }
        let mut initdb = server.command("initdb");
        initdb.args([
            "--no-sync",
            "--username=owner",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(server.data());
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.start_again();
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.run.path().join("data")
    }

    /// A program of the package, as a user who is not root.
    fn command(&self, name: &str) -> Command {
        let program = self.install.join("bin").join(name);
        let mut command = Command::new("setpriv");
        // Ends with the test too, however that ends.
        command.args(["--pdeathsig", "KILL"]);
        if is_root() {
            let user = UNPRIVILEGED.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        }
        command.arg(program).current_dir(self.run.path()).stdin(Stdio::null());
        command
    }

    /// Starts the server on its port and data, and waits until it takes connections.
    pub fn start_again(&mut self) {
        self.process = Some(self.spawn());
        let start = Instant::now();
        while !self.says_ready() {
            // Processes of the server that was killed may be in the way of a new one for a moment.
            if self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_some()) {
                self.process = Some(self.spawn());
            }
            let log = fs::read_to_string(self.run.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(60), "{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.run.path().join("log")).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "shared_buffers=16MB", "-p"]);
        command.arg(self.port.to_string()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    fn says_ready(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.sql_of("postgres", "SELECT 1").is_ok()
    }

    /// Ends the server at once, without a chance to write anything.
    pub fn kill(&mut self) {
        // The other processes of the server end when the first one does.
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        // A killed server leaves the file that says it runs; its process number may be another process by then.
        let start = Instant::now();
        while TcpListener::bind(("127.0.0.1", self.port)).is_err()
            && start.elapsed() < Duration::from_secs(20)
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
    }

    /// A table's address without the password.
    pub fn url(&self, table: &str) -> String {
        format!("postgres://owner@127.0.0.1:{}/postgres/{table}", self.port)
    }

    /// A table's address with the password.
    pub fn url_with_password(&self, table: &str) -> String {
        self.url(table).replace("owner@", "owner:s3cr3t%2F%40%20word@")
    }

    /// What a statement answers.
    pub fn sql(&self, statement: &str) -> String {
        self.sql_of("postgres", statement).unwrap_or_else(|e| panic!("{e}"))
    }

    fn sql_of(&self, database: &str, statement: &str) -> Result<String, String> {
        let mut command = self.command("psql");
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--host=127.0.0.1", "--username=owner"]);
        command.arg(format!("--port={}", self.port)).env("PGPASSWORD", PASSWORD);
        let output = command.args(["--command", statement, database]).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout == b"0\n")
}
