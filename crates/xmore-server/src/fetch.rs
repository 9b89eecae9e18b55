//! Images from URLs that callers name, where that is switched on: from public addresses only, within limits.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::api_error::{ApiError, ErrorCode};
use crate::options::Limits;

/// Images that are fetched at the same time.
const AT_ONCE: usize = 8;
/// Longest time for one.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Fetcher {
    agent: Agent,
    turns: Arc<Semaphore>,
    most_bytes: u64,
}

impl Fetcher {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self::with(limits, PublicOnly::default())
    }

    fn with(limits: &Limits, resolver: impl Resolver) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT.min(limits.timeout)))
            .max_redirects(3)
            // A proxy would resolve names itself, without the check of addresses.
            .proxy(None)
            .user_agent(concat!("xmore/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: Agent::with_parts(config, DefaultConnector::default(), resolver),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            most_bytes: limits.body_bytes as u64,
        }
    }

    /// Fetches an image file.
    ///
    /// # Errors
    /// [`ErrorCode::Unfetchable`], [`ErrorCode::Overloaded`].
    pub(crate) async fn fetch(&self, url: &str) -> Result<Bytes, ApiError> {
        let turn = self.turns.clone().try_acquire_owned().map_err(|_| ApiError::overloaded())?;
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(unfetchable("its URL begins with neither http:// nor https://"));
        }
        let (agent, url, most) = (self.agent.clone(), url.to_owned(), self.most_bytes);
        let fetched = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            get(&agent, &url, most)
        });
        fetched.await.map_err(|error| ApiError::internal(&error))?
    }
}

fn get(agent: &Agent, url: &str, most: u64) -> Result<Bytes, ApiError> {
    let response = agent.get(url).call().map_err(|error| unfetchable(&error))?;
    let mut bytes = Vec::new();
    let reader = response.into_body().into_reader().take(most + 1).read_to_end(&mut bytes);
    reader.map_err(|error| unfetchable(&error))?;
    if bytes.len() as u64 > most {
        return Err(unfetchable(format!("it is larger than {most} bytes")));
    }
    Ok(bytes.into())
}

fn unfetchable(reason: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Unfetchable, format!("the image could not be fetched: {reason}"))
}

/// Resolves names to addresses of the public internet only, against server-side request forgery: a caller must not reach through this server
/// what only the server can reach.
#[derive(Debug, Default)]
struct PublicOnly(DefaultResolver);

impl Resolver for PublicOnly {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.resolve(uri, config, timeout)?;
        let mut public = self.empty();
        for &address in found.iter().filter(|address| is_public(address.ip())) {
            public.push(address);
        }
        if public.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(public) }
    }
}

/// Whether an address is one of the public internet (RFC 6890 and its successors list the others).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let special = (a, b, c) == (192, 0, 0) || (a, b, c) == (192, 88, 99) || a == 198 && b & 0xfe == 18;
    !(a == 0
        || a >= 224
        || shared
        || special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments();
    // Global unicast, without tunnels to IPv4 and documentation.
    first[0] & 0xe000 == 0x2000
        && first[0] != 0x2002
        && !(first[0] == 0x2001 && matches!(first[1], 0 | 0xdb8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_reached() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "ff02::1",
            "2002:a00:1::",
            "2001:db8::1",
            "64:ff9b::a00:1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_server_on_this_machine_is_not_reached() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let fetcher = Fetcher::new(&Limits::default());
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1"] {
            let refused = fetcher.fetch(&format!("http://{host}:{port}/a.jpg")).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::Unfetchable, "{host}: {}", refused.message);
        }
        let refused = fetcher.fetch("file:///etc/passwd").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unfetchable);
        assert!(listener.accept().is_err(), "nobody came");
    }

    #[tokio::test]
    async fn what_is_fetched_is_bounded() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head);
                let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.0 200 OK\r\n\r\n0123456789");
            }
        });
        let url = format!("http://127.0.0.1:{port}/a.jpg");
        let with = |body_bytes| {
            Fetcher::with(&Limits { body_bytes, ..Limits::default() }, DefaultResolver::default())
        };
        assert_eq!(with(10).fetch(&url).await.unwrap(), &b"0123456789"[..]);
        let refused = with(9).fetch(&url).await.unwrap_err();
        assert!(refused.message.contains("larger than 9 bytes"), "{}", refused.message);
    }
}
