//! The server as a process of its own: started, asked for its limits, watched, ended.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::http::Client;

/// Longest wait for `listening on`: a big model is read from a cold disk.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// What it prints when it is ready, before its URL.
const READY: &str = "listening on ";
/// How often files and children are looked at.
const POLL: Duration = Duration::from_millis(5);

/// How to start it.
pub struct Launch {
    pub program: PathBuf,
    pub memory: PathBuf,
    pub threads: Option<usize>,
    /// Further arguments of `xmore serve`.
    pub more: Vec<String>,
}

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    limits: Limits,
    pid: Option<Pid>,
    /// Where it was started here: the process, and its standard error.
    child: Option<(Child, tempfile::NamedTempFile)>,
}

/// What it says of itself.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Limits {
    /// Images that are encoded together.
    pub max_batch: usize,
    /// Images that may wait.
    pub queue: usize,
}

impl Server {
    /// Starts `xmore serve` on a free port and waits until it listens.
    pub fn start(launch: &Launch) -> Result<Self> {
        // A file, not a pipe: nobody has to read along while requests are measured.
        let log = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(&launch.program);
        command.arg("serve").arg("--memory").arg(&launch.memory).args(["--addr", "127.0.0.1:0"]);
        if let Some(threads) = launch.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        command.args(&launch.more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.reopen()?);
        let child =
            command.spawn().map_err(|e| format!("{}: cannot be started: {e}", launch.program.display()))?;
        let pid = Pid::from_child(&child);
        let mut guard = Guard(Some(child));
        let since = Instant::now();
        let url = loop {
            let printed = std::fs::read_to_string(log.path())?;
            if let Some(url) = url_in(&printed) {
                break url.to_owned();
            }
            let ended = guard.0.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || since.elapsed() > START_PATIENCE {
                let how = ended.map_or("does not listen".to_owned(), |status| format!("ended, {status}"));
                return Err(format!("{}: {how}; it printed:\n{printed}", launch.program.display()).into());
            }
            sleep(POLL);
        };
        let mut server = Self::attach(&url, None)?;
        server.pid = Some(pid);
        server.child = guard.0.take().map(|child| (child, log));
        Ok(server)
    }

    /// One that runs already, on this machine.
    pub fn attach(url: &str, pid: Option<u32>) -> Result<Self> {
        let address = loopback(url)?;
        let pid =
            pid.map(|pid| Pid::from_raw(pid.cast_signed()).ok_or("--pid 0 is no process")).transpose()?;
        Ok(Self { address, limits: limits(address)?, pid, child: None })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Resident bytes, where the process is known.
    pub fn resident(&self) -> Result<Option<u64>> {
        let Some(pid) = self.pid else { return Ok(None) };
        let path = format!("/proc/{}/status", pid.as_raw_nonzero());
        let mut status = String::new();
        File::open(&path)
            .and_then(|mut f| f.read_to_string(&mut status))
            .map_err(|e| format!("{path}: {e}"))?;
        vm_rss(&status)
            .map(Some)
            .ok_or_else(|| format!("{path}: no line VmRSS: the process has ended").into())
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        let pid = self.pid.ok_or("its process is not known; give --pid")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits for the end of a process that was started here; `None` if it does not end in time.
    pub fn wait(&mut self, time_limit: Duration) -> Result<Option<ExitStatus>> {
        let (child, _) =
            self.child.as_mut().ok_or("only the end of a process that was started here is seen")?;
        let since = Instant::now();
        loop {
            let ended = child.try_wait()?;
            if ended.is_some() || since.elapsed() > time_limit {
                return Ok(ended);
            }
            sleep(POLL);
        }
    }

    /// What a server that was started here has printed on standard error.
    pub fn printed(&self) -> String {
        self.child.as_ref().and_then(|(_, log)| std::fs::read_to_string(log.path()).ok()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(Guard(self.child.take().map(|(child, _)| child)));
    }
}

/// Ends a child, whatever happens here.
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Both fail only where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The URL in what a server has printed, once the line is complete.
fn url_in(printed: &str) -> Option<&str> {
    let complete = &printed[..=printed.rfind('\n')?];
    complete.lines().find_map(|line| line.split_once(READY)?.1.split_whitespace().next())
}

/// The address of `http://127.0.0.1:PORT`. Nothing is sent to another machine.
fn loopback(url: &str) -> Result<SocketAddr> {
    let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
        Some(address) if address.ip().is_loopback() => Ok(address),
        _ => Err(format!("{url}: expected http://127.0.0.1:PORT, a server on this machine").into()),
    }
}

fn limits(address: SocketAddr) -> Result<Limits> {
    #[derive(Deserialize)]
    struct Info {
        limits: Limits,
    }
    let mut client = Client::fresh(address);
    let request = format!("GET /v1/info HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let answer =
        client.send(request.as_bytes()).map_err(|failure| format!("http://{address}/v1/info: {failure}"))?;
    if answer.status != 200 {
        return Err(format!("http://{address}/v1/info: expected status 200, found {}", answer.status).into());
    }
    let info: Info = serde_json::from_slice(answer.body)
        .map_err(|e| format!("http://{address}/v1/info: expected limits.max_batch and limits.queue: {e}"))?;
    Ok(info.limits)
}

/// Resident bytes in `/proc/PID/status`.
fn vm_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Behaviour, StandIn};

    #[test]
    fn the_url_is_read_once_its_line_is_complete() {
        assert_eq!(url_in("memory: 3 pairs\nlistening on http://127.0.0.1:40"), None);
        let printed = "memory: 3 pairs\nlistening on http://127.0.0.1:4012 (Ctrl-C ends)\n";
        assert_eq!(url_in(printed), Some("http://127.0.0.1:4012"));
        assert_eq!(url_in(""), None);
    }

    #[test]
    fn only_this_machine_is_sent_to() {
        assert_eq!(loopback("http://127.0.0.1:80/").unwrap().port(), 80);
        assert!(loopback("http://[::1]:80").is_ok());
        for other in ["http://10.0.0.1:80", "https://127.0.0.1:80", "127.0.0.1:80", "http://localhost"] {
            assert!(loopback(other).unwrap_err().to_string().contains("expected http://127.0.0.1:PORT"));
        }
    }

    #[test]
    fn resident_memory_is_read() {
        assert_eq!(vm_rss("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(vm_rss("Name:\tx\n"), None);
        let server = StandIn::start(|_| {
            Behaviour::Answer(200, r#"{"limits": {"max_batch": 32, "queue": 16, "labels": 9}}"#.into())
        });
        let server =
            Server::attach(&format!("http://{}", server.address()), Some(std::process::id())).unwrap();
        assert_eq!((server.limits().max_batch, server.limits().queue), (32, 16));
        assert!(server.resident().unwrap().unwrap() > 1 << 20);
    }

    #[test]
    fn a_program_that_ends_is_quoted() {
        let launch = |program: &str| Launch {
            program: program.into(),
            memory: "m".into(),
            threads: None,
            more: vec![],
        };
        let error = Server::start(&launch("/bin/ls")).err().unwrap().to_string();
        assert!(error.contains("ended") && error.contains("it printed:"), "{error}");
        let error = Server::start(&launch("/no/such/xmore")).err().unwrap().to_string();
        assert!(error.contains("cannot be started"), "{error}");
    }
}
