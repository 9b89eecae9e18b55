//! Connections to a PostgreSQL server: each request bounded in time and in bytes, tried again where that may help.
//!
//! The client crate is asynchronous; its one thread of work is here, so that requests can be made from anywhere and
//! end in time even if the client does not.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::super::RemoteOptions;
use super::super::http::shown;
use super::super::retry::{AttemptError, Retry};
use super::PgvectorAddress;
use crate::error::{MemoryError, Result};
use crate::retriever::RemoteError;

/// What one attempt gives.
pub(super) type Attempt<T> = std::result::Result<T, AttemptError>;

/// A server, and its connections that are not in use.
pub(super) struct Server {
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
    address: PgvectorAddress,
    location: String,
    config: Config,
    idle: Mutex<Vec<Session>>,
    timeout: Duration,
    max_answer: u64,
    kept: usize,
}

/// One connection.
struct Session {
    client: Arc<Client>,
    /// Bytes that the server may still send in answer to this request.
    left: Arc<AtomicU64>,
    /// Reads and writes.
    task: JoinHandle<std::result::Result<(), Error>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Does not talk to the server yet.
    pub fn new(address: &PgvectorAddress, options: &RemoteOptions) -> Result<Server> {
        let location = address.to_string();
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("xmore-postgres").enable_io().build();
        let runtime = runtime.map_err(|e| RemoteError::Refused {
            location: location.clone(),
            reason: format!("no thread for connections can be started: {e}"),
        })?;
        let mut config = Config::new();
        config.user(&address.user).dbname(&address.database).application_name("xmore");
        config.ssl_mode(SslMode::Disable);
        if let Some(password) = address.password.as_ref().or(options.token.as_ref()) {
            config.password(password);
        }
        Ok(Server {
            runtime: Some(runtime),
            address: address.clone(),
            location,
            config,
            idle: Mutex::default(),
            timeout: options.timeout,
            max_answer: options.max_answer,
            kept: options.parallel.max(1),
        })
    }

    pub fn location(&self) -> &str {
        &self.location
    }

    /// An error about what the server said.
    pub fn remote(&self, reason: impl Into<String>) -> MemoryError {
        RemoteError::Refused { location: self.location.clone(), reason: reason.into() }.into()
    }

    /// Does some work with a connection, again where that may help.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] or [`RemoteError::Refused`].
    pub fn run<T, F>(&self, retry: Retry, work: impl Fn(Arc<Client>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Attempt<T>> + Send + 'static,
    {
        retry.run(&self.location, || self.attempt(&work))
    }

    /// Does some work with a connection, once.
    pub fn attempt<T, F>(&self, work: impl Fn(Arc<Client>) -> F) -> Attempt<T>
    where
        T: Send + 'static,
        F: Future<Output = Attempt<T>> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else {
            return Err(AttemptError::Permanent("it was closed".into()));
        };
        // One that a restart of the server closed is of no use.
        let session = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            std::iter::from_fn(|| idle.pop()).find(|session| !session.client.is_closed())
        };
        let session = match session {
            Some(session) => session,
            None => {
                let (config, host, port) =
                    (self.config.clone(), self.address.host.clone(), self.address.port);
                let (max_answer, timeout) = (self.max_answer, self.timeout);
                self.wait(runtime, async move { connect(&config, &host, port, max_answer, timeout).await })?
            }
        };
        session.left.store(self.max_answer, Ordering::Relaxed);
        let result = self.wait(runtime, work(Arc::clone(&session.client)));
        if session.left.load(Ordering::Relaxed) == 0 {
            return Err(too_long(self.max_answer));
        }
        // After anything but success the connection may be in the middle of an answer.
        if result.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < self.kept {
                idle.push(session);
            }
        }
        result
    }

    /// Waits for some work, but not longer than the timeout.
    fn wait<T: Send + 'static>(
        &self,
        runtime: &Runtime,
        work: impl Future<Output = Attempt<T>> + Send + 'static,
    ) -> Attempt<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = runtime.spawn(async move {
            // The caller has left after the timeout.
            let _ = sender.send(work.await);
        });
        match receiver.recv_timeout(self.timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                Err(AttemptError::Transient(
                    format!("no answer within {} s", self.timeout.as_secs_f32()),
                    None,
                ))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(AttemptError::Permanent("its answer could not be understood".into()))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        // Does not wait, so it may be called from asynchronous code too.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connect(
    config: &Config,
    host: &str,
    port: u16,
    max_answer: u64,
    timeout: Duration,
) -> Attempt<Session> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((host, port)).await.map_err(|e| AttemptError::Transient(e.to_string(), None))?;
    // Without it requests are slower, not wrong.
    let _ = stream.set_nodelay(true);
    let left = Arc::new(AtomicU64::new(max_answer));
    let stream = Bounded { stream, left: Arc::clone(&left) };
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(|e| {
        let answered = e.as_db_error().is_some();
        let wants_password =
            !answered && config.get_password().is_none() && e.to_string().contains("password");
        match attempt_error(&e) {
            _ if wants_password => AttemptError::Permanent("it wants a password, and none was given".into()),
            _ if left.load(Ordering::Relaxed) == 0 => too_long(max_answer),
            error => error,
        }
    })?;
    let session = Session { client: Arc::new(client), left, task: tokio::spawn(connection) };
    // What is no longer waited for need not be worked on either.
    let milliseconds = timeout.as_millis().clamp(1, i32::MAX as u128);
    let settings = format!("SET statement_timeout = {milliseconds}");
    session.client.batch_execute(&settings).await.map_err(|e| attempt_error(&e))?;
    Ok(session)
}

fn too_long(max_answer: u64) -> AttemptError {
    AttemptError::Permanent(format!("its answer is longer than {max_answer} bytes, the most that is read"))
}

/// What an error of the client's means for another attempt.
pub(super) fn attempt_error(error: &Error) -> AttemptError {
    if let Some(said) = error.as_db_error() {
        let code = said.code().code();
        let message = format!("the server refuses: {} (SQLSTATE {code})", shown(said.message().as_bytes()));
        return match code {
            // It stops, starts, recovers or ran out of time; another client wrote the same rows or was in the way.
            "57P01" | "57P02" | "57P03" | "57P05" | "57014" | "55P03" | "23505" => {
                AttemptError::Transient(message, None)
            }
            _ if ["08", "40", "53"].iter().any(|class| code.starts_with(class)) => {
                AttemptError::Transient(message, None)
            }
            _ if ["58", "XX"].iter().any(|class| code.starts_with(class)) => AttemptError::Failed(message),
            _ => AttemptError::Permanent(message),
        };
    }
    let source = std::error::Error::source(error);
    let reason = match source {
        Some(source) => format!("{error} ({source})"),
        None => error.to_string(),
    };
    let reason = shown(reason.as_bytes());
    let kind = source.and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        // What is no answer of a PostgreSQL server.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other) => {
            AttemptError::Permanent(reason)
        }
        Some(_) => AttemptError::Transient(reason, None),
        None if error.is_closed() => AttemptError::Transient("the connection was closed".into(), None),
        None => AttemptError::Permanent(reason),
    }
}

/// A connection of which only so many bytes are read.
struct Bounded {
    stream: TcpStream,
    left: Arc<AtomicU64>,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(Err(io::Error::other("too long")));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(read), Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
