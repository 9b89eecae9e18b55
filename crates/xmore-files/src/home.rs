//! The folder for what can be made or fetched again.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// The cache folder: `XMORE_HOME` where set and not empty, else the platform's cache directory + `xmore`. Always absolute;
/// not created by this call.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where `XMORE_HOME` is not set and the account has no cache directory.
pub fn cache_home() -> io::Result<PathBuf> {
    home_from(std::env::var_os("XMORE_HOME"), dirs::cache_dir())
}

fn home_from(variable: Option<OsString>, platform: Option<PathBuf>) -> io::Result<PathBuf> {
    let none = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            "this account has no cache directory, and XMORE_HOME is not set",
        )
    };
    let chosen = match variable.filter(|v| !v.is_empty()) {
        Some(set) => PathBuf::from(set),
        None => platform.ok_or_else(none)?.join("xmore"),
    };
    // Tools run in folders of their own, where a relative path would mean another place.
    std::path::absolute(&chosen)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_variable_wins_and_an_empty_one_does_not_count() {
        let platform = Some(PathBuf::from("/cache"));
        assert_eq!(home_from(Some("/own".into()), platform.clone()).unwrap(), Path::new("/own"));
        assert_eq!(home_from(Some("".into()), platform.clone()).unwrap(), Path::new("/cache/xmore"));
        assert_eq!(home_from(None, platform).unwrap(), Path::new("/cache/xmore"));
        assert!(home_from(Some("here".into()), None).unwrap().is_absolute());
        assert!(home_from(None, None).is_err());
    }
}
