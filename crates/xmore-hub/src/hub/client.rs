//! The hub's protocol: the files of a revision, the metadata of a file, and its bytes from an offset on.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};
use xmore_files::read_bounded;

use super::cache::{is_commit, is_etag};
use super::settings::Settings;
use super::{HubError, Request, Result};
use crate::license::License;

/// A connection without any bytes for so long has failed.
const IDLE_GRACE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(20);
/// No list of a model's files is longer.
const LIST_LIMIT: u64 = 32 << 20;
const RELATIVE_REDIRECTS: usize = 5;
/// All authorities that systems trust have half a megabyte.
const MAX_CERTIFICATES_BYTES: u64 = 64 << 20;

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    host: String,
    token: Option<String>,
    cache: std::path::PathBuf,
}

/// The files of a revision.
pub(super) struct Listing {
    pub commit: String,
    pub files: HashSet<String>,
    /// What the repository's card says.
    pub license: Option<License>,
}

/// What the hub announces of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Names the content; for large files its SHA-256.
    pub etag: String,
    pub size: Option<u64>,
}

/// Why the bytes of a file are not received.
pub(super) enum Trouble {
    /// Temporary, so worth another attempt: what went wrong.
    Passing(String),
    /// What is there already is too long.
    BeyondEnd,
    Final(HubError),
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &settings.authorities {
            let pem = read_bounded(path, MAX_CERTIFICATES_BYTES)
                .map_err(HubError::io("read the certificates of", path))?;
            let authorities = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            tls = tls.root_certs(RootCerts::from(authorities));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .user_agent(concat!("xmore/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(IDLE_GRACE))
            .timeout_per_read(Some(IDLE_GRACE));
        Ok(Self {
            agent: config.build().into(),
            endpoint: settings.endpoint.clone(),
            host: settings.host().to_owned(),
            token: settings.token.clone(),
            cache: settings.cache.clone(),
        })
    }

    /// The commit that the wanted revision is now, and its files.
    pub fn list(&self, request: &Request) -> Result<Listing> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
            #[serde(default, rename = "cardData")]
            card: Value,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = request.repo.revision().replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, request.repo.name());
        let response = self.get(&url).call();
        let mut response = response.map_err(|e| self.unreachable(request, "the list of files", &e))?;
        self.check(&response, &url, request, "")?;
        let text = response.body_mut().with_config().limit(LIST_LIMIT).read_to_string();
        let text = text.map_err(|e| self.unreachable(request, "the list of files", &e))?;
        let answer: Answer = serde_json::from_str(&text)
            .map_err(|e| HubError::Answer { url: url.clone(), reason: e.to_string() })?;
        if !is_commit(&answer.sha) {
            return Err(HubError::Answer { url, reason: format!("commit {:?}", answer.sha) });
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: answer.sha, files, license: license(&answer.card) })
    }

    /// Asks for a file's metadata. Large files are stored elsewhere: the hub's own answer has what is wanted, the storage's has not.
    pub fn meta(&self, request: &Request, commit: &str, file: &str) -> Result<Meta> {
        let mut url = self.url(request, commit, file);
        for _ in 0..RELATIVE_REDIRECTS {
            let mut head = self.agent.head(&url);
            if let Some(token) = &self.token {
                head = head.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let head = head.header(header::ACCEPT_ENCODING, "identity");
            let response = head.config().max_redirects(0).max_redirects_will_error(false).build().call();
            let response = response.map_err(|e| self.unreachable(request, file, &e))?;
            let headers = response.headers();
            if response.status().is_redirection() {
                let location = text(headers, "location").unwrap_or_default();
                if location.starts_with('/') && !location.starts_with("//") {
                    url = format!("{}{location}", origin(&self.endpoint));
                    continue;
                }
            } else {
                self.check(&response, &url, request, file)?;
            }
            return meta(headers, response.status())
                .map_err(|reason| HubError::Answer { url: url.clone(), reason });
        }
        Err(HubError::Answer { url, reason: "redirects in a circle".into() })
    }

    /// A file's bytes from `start` on; a server that cannot do that gives all of them (second value: where they start).
    pub fn bytes(
        &self,
        request: &Request,
        commit: &str,
        file: &str,
        start: u64,
    ) -> std::result::Result<(Body, u64), Trouble> {
        let url = self.url(request, commit, file);
        let mut get = self.get(&url).header(header::ACCEPT_ENCODING, "identity");
        if start > 0 {
            get = get.header(header::RANGE, format!("bytes={start}-"));
        }
        let response = get.call().map_err(|e| Trouble::Passing(reason(&e)))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = text(response.headers(), "content-range").unwrap_or_default();
                let from = range.strip_prefix("bytes ").and_then(|r| r.split_once('-')?.0.parse().ok());
                if from != Some(start) {
                    let reason = format!("asked for bytes from {start} on, answered with {range:?}");
                    return Err(Trouble::Final(HubError::Answer { url, reason }));
                }
                Ok((response.into_body(), start))
            }
            StatusCode::OK => Ok((response.into_body(), 0)),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Trouble::BeyondEnd),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Trouble::Passing(format!("HTTP {status}")))
            }
            _ => Err(Trouble::Final(match self.check(&response, &url, request, file) {
                Err(error) => error,
                Ok(()) => HubError::Answer { url, reason: format!("HTTP {}", response.status()) },
            })),
        }
    }

    pub fn gave_up(&self, request: &Request, file: &str, reason: String) -> HubError {
        HubError::Unreachable {
            name: request.name.clone(),
            what: format!("{file} of {}", request.repo),
            host: self.host.as_str().into(),
            reason: reason.into(),
            cache: self.cache.clone(),
        }
    }

    fn unreachable(&self, request: &Request, file: &str, error: &ureq::Error) -> HubError {
        self.gave_up(request, file, reason(error))
    }

    fn get(&self, url: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        // The agent leaves the token out where a redirect leads elsewhere.
        let get = self.agent.get(url);
        match &self.token {
            Some(token) => get.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => get,
        }
    }

    fn url(&self, request: &Request, commit: &str, file: &str) -> String {
        // Of what a plain name may have, only a blank means something else in an address.
        let file = file.replace(' ', "%20");
        format!("{}/{}/resolve/{commit}/{file}", self.endpoint, request.repo.name())
    }

    /// Turns a refusal into an error; `file` is empty for the repository as a whole.
    fn check(&self, response: &Response<Body>, url: &str, request: &Request, file: &str) -> Result<()> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let said = |name| text(response.headers(), name).map(|t| t.chars().take(300).collect::<String>());
        let message = said("x-error-message").or_else(|| said("x-error-code")).unwrap_or_default();
        let host = self.host.clone();
        let what = match file {
            "" => request.repo.to_string(),
            file => format!("{file} of {}", request.repo),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => HubError::Denied {
                host,
                what,
                repo: request.repo.name().to_owned(),
                status: status.as_u16(),
                message,
                token: match self.token {
                    Some(_) => {
                        "the token in use (HF_TOKEN, or the file HF_HOME/token) does not give access to it"
                    }
                    None => "no token was sent; put yours into HF_TOKEN, or into the file HF_HOME/token",
                },
            },
            StatusCode::NOT_FOUND => HubError::NotFound { host, what, message },
            _ => HubError::Answer { url: url.to_owned(), reason: format!("HTTP {status} {message}") },
        })
    }
}

/// The license in a card. The hub knows some by identifiers; others are `other`, with a name beside it.
fn license(card: &Value) -> Option<License> {
    let id = match card["license"].as_str()? {
        "other" => card["license_name"].as_str()?,
        id => id,
    };
    License::new(id.to_owned())
}

fn meta(headers: &HeaderMap, status: StatusCode) -> std::result::Result<Meta, String> {
    let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).ok_or("no ETag")?;
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
    if !is_etag(&etag) {
        return Err(format!("ETag {etag:?}"));
    }
    // A redirect's length is not the file's.
    let length = || text(headers, "content-length").filter(|_| status.is_success());
    let size = text(headers, "x-linked-size").or_else(length);
    let size = size.map(|n| n.parse().map_err(|_| format!("size {n:?}"))).transpose()?;
    Ok(Meta { etag, size })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `https://host:port` of an address.
fn origin(endpoint: &str) -> &str {
    let start = endpoint.find("://").map_or(0, |at| at + 3);
    endpoint[start..].find('/').map_or(endpoint, |at| &endpoint[..start + at])
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(e) => e.to_string(),
        ureq::Error::HostNotFound => "the host's name cannot be resolved".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &str)], status: StatusCode) -> std::result::Result<Meta, String> {
        let headers = pairs.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_str(value).unwrap())
        });
        meta(&headers.collect(), status)
    }

    #[test]
    fn what_headers_tell_of_a_file() {
        let small = read(&[("etag", "W/\"0123abcd\""), ("content-length", "7")], StatusCode::OK).unwrap();
        assert_eq!(small, Meta { etag: "0123abcd".into(), size: Some(7) });
        let large = [
            ("etag", "\"storage-etag\""),
            ("x-linked-etag", "\"abcd0123\""),
            ("x-linked-size", "5000000000"),
            ("content-length", "99"),
        ];
        let large = read(&large, StatusCode::FOUND).unwrap();
        assert_eq!(large, Meta { etag: "abcd0123".into(), size: Some(5_000_000_000) });
        let unknown = read(&[("etag", "0123abcd"), ("content-length", "99")], StatusCode::FOUND).unwrap();
        assert_eq!(unknown.size, None);
        assert!(read(&[("content-length", "7")], StatusCode::OK).is_err());
        assert!(read(&[("etag", "../../x")], StatusCode::OK).is_err());
        assert!(read(&[("etag", "0123abcd"), ("content-length", "many")], StatusCode::OK).is_err());
    }

    #[test]
    fn licenses_of_cards() {
        let of = |card| license(&card).map(|license| license.id().to_owned());
        assert_eq!(of(serde_json::json!({"license": "mit"})), Some("mit".into()));
        let apple = serde_json::json!({"license": "other", "license_name": "apple-amlr"});
        assert_eq!(of(apple), Some("apple-amlr".into()));
        for card in
            [Value::Null, serde_json::json!({"license": "other"}), serde_json::json!({"license": ["a"]})]
        {
            assert_eq!(of(card), None);
        }
    }

    #[test]
    fn the_origin_of_an_endpoint() {
        assert_eq!(origin("https://a.b:1/c/d"), "https://a.b:1");
        assert_eq!(origin("http://a"), "http://a");
    }
}
