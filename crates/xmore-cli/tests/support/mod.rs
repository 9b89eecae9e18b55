//! Running the real binary. Tests that run on another machine than they were built on find it by XMORE_BINARY, and the fixtures by XMORE_FIXTURES.

#[cfg(target_os = "linux")]
pub mod faults;
pub mod files;
pub mod milvus;
#[cfg(target_os = "linux")]
pub mod postgres;
pub mod remote;
pub mod server;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run left.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A run to be.
pub struct Xmore(Command);

/// `xmore` with arguments, free of the caller's settings.
pub fn xmore<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Xmore {
    let binary = std::env::var_os("XMORE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_xmore").into());
    let mut command = Command::new(binary);
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("XMORE_")) {
            command.env_remove(name);
        }
    }
    Xmore(command)
}

/// `xmore` with its cache folder in `dir`; an argument `@name` is a path there.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn xmore_in(dir: &Path, args: &[&str]) -> Xmore {
    let path = |name: &str| dir.join(name).display().to_string();
    let args: Vec<String> =
        args.iter().map(|arg| arg.strip_prefix('@').map_or((*arg).to_owned(), path)).collect();
    xmore(&args).home(&dir.join("home"))
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Xmore {
    /// With this cache folder.
    pub fn home(self, home: &Path) -> Self {
        self.env("XMORE_HOME", home)
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> std::process::Child {
        self.0.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary was built")
    }

    /// Starts it; what it says on standard error goes to a file.
    pub fn start_telling(mut self, stderr: &Path) -> std::process::Child {
        let file = std::fs::File::create(stderr).expect("a file for what it says");
        self.0.stdout(Stdio::null()).stderr(file).spawn().expect("the binary was built")
    }

    /// Starts it with pipes for what it prints and says.
    pub fn start_piped(mut self) -> std::process::Child {
        self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary was built")
    }

    /// The same under a shell that lets no file grow beyond `blocks` of its `ulimit -f`: writing further is an error.
    pub fn with_largest_file(self, blocks: u64) -> Self {
        self.with_limit("-f", blocks)
    }

    /// The same with at most so many open files.
    pub fn with_open_files(self, count: u64) -> Self {
        self.with_limit("-n", count)
    }

    /// The same with so many kilobytes of address space.
    pub fn with_address_space(self, kilobytes: u64) -> Self {
        self.with_limit("-v", kilobytes)
    }

    fn with_limit(self, of: &str, most: u64) -> Self {
        self.under(&format!("trap '' XFSZ; ulimit {of} {most}"))
    }

    /// The same with a signal ignored, as `nohup` does.
    pub fn ignoring(self, signal: &str) -> Self {
        self.under(&format!("trap '' {signal}"))
    }

    /// The same with the system's own handling of signals, also where the tests run with some ignored, as a shell's background jobs have
    /// Ctrl-C. To be called last.
    pub fn with_default_signals(self) -> Self {
        let mut env = Command::new("env");
        env.arg("--default-signal=HUP,INT,TERM");
        self.within(env)
    }

    /// The same after a command of the shell.
    fn under(self, before: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{before} && exec \"$0\" \"$@\""));
        self.within(shell)
    }

    /// The same as the last arguments of another command, which runs it in its own place.
    fn within(self, mut outer: Command) -> Self {
        outer.arg(self.0.get_program()).args(self.0.get_args()).stdin(Stdio::null());
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        Self(outer)
    }

    /// Runs it to its end, whatever that is.
    pub fn output(mut self) -> std::process::Output {
        self.0.output().expect("the binary was built")
    }

    /// Runs it and expects success; returns stdout as it is.
    #[track_caller]
    pub fn bytes(mut self) -> Vec<u8> {
        let output = self.0.output().expect("the binary was built");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Runs it to its end; an end by a signal is a failure.
    #[track_caller]
    pub fn run(mut self) -> Run {
        let output = self.0.output().expect("the binary was built");
        Run {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it to its end, which must come within `limit`: a run that blocks is a failure, and does not block the test.
    #[track_caller]
    pub fn run_within(mut self, limit: Duration) -> Run {
        let (stdout, stderr) = (Stdio::piped(), Stdio::piped());
        let mut child = self.0.stdout(stdout).stderr(stderr).spawn().expect("the binary was built");
        let gather = |pipe: Option<Box<dyn Read + Send>>| {
            let mut pipe = pipe.expect("it was piped");
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
            })
        };
        let out = gather(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let err = gather(child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let start = Instant::now();
        let status = loop {
            match child.try_wait().expect("it is a child") {
                Some(status) => break Some(status),
                None if start.elapsed() > limit => {
                    child.kill().expect("it is a child");
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let text =
            |gathered: std::thread::JoinHandle<std::io::Result<String>>| gathered.join().unwrap().unwrap();
        let (stdout, stderr) = (text(out), text(err));
        let status = status.unwrap_or_else(|| panic!("still running after {limit:?}: {stderr}"));
        Run { code: status.code().expect("it ended by itself"), stdout, stderr }
    }

    /// Runs it and expects success; returns stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        let run = self.run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    }

    /// Runs it and expects failure with that code; returns stderr.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        let run = self.run();
        assert_eq!(run.code, code, "stdout: {}\nstderr: {}", run.stdout, run.stderr);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        run.stderr
    }
}

/// The captions of what `memory search --format json` printed, in the order of the pairs' ids.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn captions_by_id(printed: &str) -> Vec<String> {
    let found: serde_json::Value = serde_json::from_str(printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
    let mut rows: Vec<(u64, String)> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["id"].as_u64().unwrap(), row["caption"].as_str().unwrap().to_owned()))
        .collect();
    rows.sort_unstable();
    rows.into_iter().map(|(_, caption)| caption).collect()
}

/// A file or folder of the committed fixtures of xmore-clip.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn fixture(name: &str) -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures");
    std::env::var_os("XMORE_FIXTURES").map_or_else(here, PathBuf::from).join(name)
}

/// `--model local-dir:…` of the tiny model with random weights.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn tiny_model() -> String {
    format!("--model=local-dir:{}", fixture("tiny").display())
}
