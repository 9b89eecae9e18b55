//! Options of a server: where it listens, who may ask, where its pairs are, and how much of anything it takes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use xmore::{DeviceChoice, IfUnreachable, Opened, XmoreError};
use xmore_memory::retriever::{Location, RemoteOptions};

use crate::error::ServerError;

/// Where the pairs are, to open them again at each reload.
#[derive(Clone)]
pub struct PairsSource {
    /// A memory's folder or a remote index's URL.
    pub location: String,
    /// How a remote index is asked.
    pub remote: RemoteOptions,
    /// What searches a memory.
    pub device: DeviceChoice,
    /// Only pairs whose caption matches.
    pub caption_filter: Option<Regex>,
    /// Only pairs with these ids.
    pub rows: Option<Range<u64>>,
    /// What to do while a remote index cannot be reached.
    pub if_unreachable: IfUnreachable,
}

/// A key that callers send; its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for ApiKey {
    fn from(key: T) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Where and for whom.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Keys of which one must come with each request; none: no key is asked for.
    pub api_keys: Vec<ApiKey>,
    /// Serve other machines without a key.
    pub allow_remote: bool,
    /// Origins whose pages may ask (CORS); `*` is any.
    pub origins: Vec<String>,
    /// Names of this server beside those of the loopback interface; asked of requests where no key protects a server on loopback.
    pub hosts: Vec<String>,
    /// Folder of label sets, `NAME.txt` with one label a line.
    pub label_sets: Option<PathBuf>,
    /// Whether callers may save and remove label sets in that folder.
    pub save_label_sets: bool,
    /// Whether images are fetched from URLs that callers name.
    pub fetch_urls: bool,
    /// How much is taken.
    pub limits: Limits,
}

impl fmt::Debug for PairsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairsSource")
            // A password in a log is a leak.
            .field("location", &Location::shown(&self.location))
            .field("remote", &self.remote)
            .field("device", &self.device)
            .field("caption_filter", &self.caption_filter)
            .field("rows", &self.rows)
            .field("if_unreachable", &self.if_unreachable)
            .finish()
    }
}

impl PairsSource {
    /// Opens them.
    ///
    /// # Errors
    /// Those of [`Opened::open`].
    pub fn open(&self) -> Result<Opened, XmoreError> {
        Opened::open(&self.location, &self.remote, self.device, self.if_unreachable)
    }
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            addr: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 8765),
            api_keys: Vec::new(),
            allow_remote: false,
            origins: Vec::new(),
            hosts: Vec::new(),
            label_sets: None,
            save_label_sets: false,
            fetch_urls: false,
            limits: Limits::default(),
        }
    }
}

/// How much a server takes before it refuses.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Images or texts of one batch.
    pub max_batch: usize,
    /// Images or texts that wait for the next batch; requests beyond are answered 429.
    pub queue: usize,
    /// Bytes of one request.
    pub body_bytes: usize,
    /// Bytes of all requests that are being received or answered.
    pub buffered_bytes: usize,
    /// Pixels of one image.
    pub pixels: u64,
    /// Labels of one request.
    pub labels: usize,
    /// Labels times prompts of one request.
    pub prompts: usize,
    /// Images or texts of one request.
    pub inputs: usize,
    /// Bytes of one text, label or prompt: models read some 77 tokens, tokenizers all of it.
    pub text_bytes: usize,
    /// Bytes of label embeddings that are kept.
    pub label_cache_bytes: usize,
    /// Connections at the same time. Where more come, those without a request are closed.
    pub connections: usize,
    /// Connections from one address, of IPv6 from one network (/64).
    pub connections_per_address: usize,
    /// Longest time from a received request to its answer.
    pub timeout: Duration,
    /// Longest time that a request's head or body may take to arrive.
    pub receive_timeout: Duration,
    /// Longest time that a stop waits for answers.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_batch: 32,
            queue: 32,
            body_bytes: 16 << 20,
            buffered_bytes: 256 << 20,
            pixels: 50_000_000,
            labels: 5_000,
            prompts: 100_000,
            inputs: 64,
            text_bytes: 8 << 10,
            label_cache_bytes: 256 << 20,
            connections: 1_024,
            connections_per_address: 256,
            timeout: Duration::from_secs(30),
            receive_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

impl ServeOptions {
    /// # Errors
    /// [`ServerError::OpenToOthers`] for an address that other machines reach, without a key; [`ServerError::WeakKey`] for a key that
    /// is empty.
    pub fn check(&self) -> Result<(), ServerError> {
        if self.api_keys.iter().any(|key| key.as_str().trim().is_empty()) {
            return Err(ServerError::WeakKey);
        }
        if !self.is_local() && self.api_keys.is_empty() && !self.allow_remote {
            return Err(ServerError::OpenToOthers { addr: self.addr });
        }
        Ok(())
    }

    /// Whether only this machine reaches the server.
    pub(crate) fn is_local(&self) -> bool {
        self.addr.ip().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let source = PairsSource {
            location: "postgres://me:secret@h/data/pairs".to_owned(),
            remote: RemoteOptions::default(),
            device: DeviceChoice::Cpu,
            caption_filter: None,
            rows: None,
            if_unreachable: IfUnreachable::Fail,
        };
        let shown = format!("{source:?}");
        assert!(shown.contains("postgres://") && !shown.contains("secret"), "{shown}");
        let options = ServeOptions { api_keys: vec!["secret".into()], ..ServeOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn other_machines_are_served_with_a_key_or_on_demand() {
        let at = |addr: &str| ServeOptions { addr: addr.parse().unwrap(), ..ServeOptions::default() };
        assert!(ServeOptions::default().check().is_ok());
        assert!(at("[::1]:80").check().is_ok());
        let open = at("0.0.0.0:80");
        assert!(matches!(open.check(), Err(ServerError::OpenToOthers { .. })));
        assert!(ServeOptions { api_keys: vec!["k".into()], ..open.clone() }.check().is_ok());
        assert!(ServeOptions { allow_remote: true, ..open.clone() }.check().is_ok());
        assert!(matches!(
            ServeOptions { api_keys: vec![" ".into()], ..open }.check(),
            Err(ServerError::WeakKey)
        ));
    }
}
