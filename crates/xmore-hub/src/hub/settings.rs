//! The hub's environment variables, as its Python programs read them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use xmore_files::read_input;

use super::{HubError, Result};

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// A token has some dozens of characters.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

pub(super) struct Settings {
    /// Without a slash at its end.
    pub endpoint: String,
    pub cache: PathBuf,
    pub token: Option<String>,
    pub offline: bool,
    /// PEM file with the authorities to trust instead of the built-in ones: for proxies with their own.
    pub authorities: Option<PathBuf>,
}

impl Settings {
    /// Reads from `variable`, which is the environment except in tests. One that is set to nothing counts as not set.
    pub fn read(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |names: &[&str]| names.iter().find_map(|n| variable(n).filter(|value| !value.is_empty()));
        let home = || match (set(&["HF_HOME"]), set(&["XDG_CACHE_HOME"])) {
            (Some(home), _) => Some(expand(&home)),
            (None, Some(cache)) => Some(expand(&cache).join("huggingface")),
            (None, None) => Some(dirs::home_dir()?.join(".cache/huggingface")),
        };
        let cache = match set(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]) {
            Some(cache) => expand(&cache),
            None => home().ok_or(HubError::NoHome)?.join("hub"),
        };
        let cache = std::path::absolute(&cache).map_err(HubError::io("resolve", cache))?;
        let offline = set(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
            .is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&&*v.to_string_lossy().to_uppercase()));

        let endpoint = match set(&["HF_ENDPOINT"]) {
            Some(value) => value.into_string().map_err(|_| setting("HF_ENDPOINT", "is not text"))?,
            None => ENDPOINT.to_owned(),
        };
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if !rest.is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_graphic() && b != b'@')) {
            return Err(setting("HF_ENDPOINT", "should be like https://hub.example.org"));
        }

        let token = match set(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
            Some(token) => Some(token.to_string_lossy().trim().to_owned()),
            None => {
                let path =
                    set(&["HF_TOKEN_PATH"]).map(|p| expand(&p)).or_else(|| Some(home()?.join("token")));
                path.and_then(|path| read_input(&path, MAX_TOKEN_BYTES).ok())
                    .and_then(|bytes| String::from_utf8(bytes).ok())
                    .map(|text| text.trim().to_owned())
            }
        };
        let token = token.filter(|t| !t.is_empty());
        // The value itself is in no message.
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(setting("HF_TOKEN (or the file HF_HOME/token)", "has characters that no token has"));
        }
        let authorities = set(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]).map(PathBuf::from);
        Ok(Self { endpoint, cache, token, offline, authorities })
    }

    /// The endpoint's host (and port), for people.
    pub fn host(&self) -> &str {
        let rest = self.endpoint.split_once("://").map_or(&*self.endpoint, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }
}

fn setting(name: &'static str, reason: &'static str) -> HubError {
    HubError::Setting { name, reason }
}

fn expand(path: &std::ffi::OsStr) -> PathBuf {
    let path = Path::new(path);
    match (path.strip_prefix("~"), dirs::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    }

    #[test]
    fn the_cache_folder() {
        let cache = |variables: &[(&str, &str)]| read(variables).unwrap().cache;
        assert_eq!(cache(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(cache(&[("HF_HOME", ""), ("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert!(cache(&[]).ends_with(".cache/huggingface/hub"));
    }

    #[test]
    fn endpoint_and_offline() {
        let settings = read(&[("HF_HOME", "/h"), ("HF_ENDPOINT", "http://127.0.0.1:80/hub/")]).unwrap();
        assert_eq!((&*settings.endpoint, settings.host()), ("http://127.0.0.1:80/hub", "127.0.0.1:80"));
        for bad in ["hub.example.org", "file:///etc", "https://", "https://a b", "https://me@host"] {
            let error = read(&[("HF_HOME", "/h"), ("HF_ENDPOINT", bad)]).err().unwrap().to_string();
            assert!(error.contains("HF_ENDPOINT"), "{error}");
        }
        for (value, offline) in [("1", true), ("true", true), ("0", false), ("", false)] {
            assert_eq!(read(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap().offline, offline);
        }
    }

    #[test]
    fn the_token_and_where_it_is_from() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().to_str().unwrap();
        assert_eq!(read(&[("HF_HOME", dir)]).unwrap().token, None);
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(read(&[("HF_HOME", dir)]).unwrap().token.unwrap(), "hf_file");
        assert_eq!(read(&[("HF_HOME", dir), ("HF_TOKEN", "hf_env")]).unwrap().token.unwrap(), "hf_env");
        let error = read(&[("HF_HOME", dir), ("HF_TOKEN", "secret\nX: y")]).err().unwrap().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("secret"), "{error}");
    }
}
