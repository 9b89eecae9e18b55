//! One repository's folder in the hub's cache: blobs by hash, snapshots of links to them, refs, locks.

use std::fs::{self, File};
use std::io::Write;
#[cfg(unix)]
use std::os::unix::fs::symlink as symlink_file;
#[cfg(windows)]
use std::os::windows::fs::symlink_file;
use std::path::{Path, PathBuf};

use xmore_files::{read_bounded, replace_file};

use super::{HubError, RepoId, Result};

/// A ref holds a commit of 40 characters.
const MAX_REF_BYTES: u64 = 4096;

pub(super) struct RepoCache {
    /// Its folder in the cache: `models--org--name`.
    folder: String,
    /// That folder's path.
    dir: PathBuf,
    /// Where the hub's programs lock its blobs.
    locks: PathBuf,
}

impl RepoCache {
    pub fn new(cache: &Path, repo: &RepoId) -> Self {
        let folder = format!("models--{}", repo.name().replace('/', "--"));
        Self { dir: cache.join(&folder), locks: cache.join(".locks").join(&folder), folder }
    }

    /// The commit that a revision was when it was last fetched.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let bytes = read_bounded(&self.dir.join("refs").join(revision), MAX_REF_BYTES).ok()?;
        Some(str::from_utf8(&bytes).ok()?.trim()).filter(|commit| is_commit(commit)).map(str::to_owned)
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// The file with a hash's content.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.dir.join("blobs").join(etag)
    }

    /// Notes which commit a revision is.
    pub fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        let folder = path.parent().unwrap_or(&self.dir);
        create(folder)?;
        replace_file(&path, |file| file.write_all(commit.as_bytes())).map_err(HubError::io("write", &path))
    }

    /// Locks a blob against other programs until the file is dropped; `wait` is called if that takes time.
    pub fn lock(&self, etag: &str, wait: impl FnOnce()) -> Result<File> {
        create(&self.locks)?;
        create(&self.dir.join("blobs"))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(HubError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                wait();
                file.lock().map_err(HubError::io("lock", &path))?;
            }
            // A file system without locks; what is renamed at the end is whole all the same.
            Err(fs::TryLockError::Error(_)) => {}
        }
        Ok(file)
    }

    /// Makes `snapshots/commit/file` show the blob; returns that path.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        show(self.snapshot(commit).join(file), &Path::new("../../blobs").join(etag), &self.blob(etag))
    }

    /// Makes a folder in a snapshot of another repository of this cache show a file of a snapshot of this one; returns its path there.
    pub fn show_in(&self, folder: &Path, file: &Path) -> Result<PathBuf> {
        let shown = folder.join(file.file_name().unwrap_or_default());
        // A file that is no link to a blob, as on Windows, is copied.
        let link = fs::read_link(file).unwrap_or_default();
        let blob = link.file_name().and_then(|name| name.to_str()).filter(|name| is_etag(name));
        let target = blob.map(|etag| Path::new("../../../..").join(&self.folder).join("blobs").join(etag));
        show(shown, &target.unwrap_or_default(), file)
    }
}

/// Makes `path` a link to `target`, relative to its folder, or else a copy of `blob`, which is the same file.
///
/// What was there is replaced in one step: other programs that use the same cache find the file at every moment.
fn show(path: PathBuf, target: &Path, blob: &Path) -> Result<PathBuf> {
    let folder = path.parent().unwrap_or(&path);
    create(folder)?;
    let shown = fs::metadata(&path).ok().map(|meta| meta.len());
    if shown.is_some() && shown == fs::metadata(blob).ok().map(|meta| meta.len()) {
        return Ok(path);
    }
    let linked = tempfile::Builder::new().make_in(folder, |link| symlink_file(target, link));
    match linked.and_then(|link| Ok(link.into_temp_path().persist(&path)?)) {
        Ok(()) => Ok(path),
        // No links are possible, as on Windows without the privilege: a copy, as the hub's own programs make.
        Err(_) => {
            let copy = |out: &mut File| std::io::copy(&mut File::open(blob)?, out).map(drop);
            replace_file(&path, copy).map_err(HubError::io("write", &path))?;
            Ok(path)
        }
    }
}

pub(super) fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(HubError::io("create the folder", dir))
}

/// A full commit hash, safe as a folder's name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A hash as the hub gives it, safe as a file's name.
pub(crate) fn is_etag(text: &str) -> bool {
    (8..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn refs_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(dir.path(), &"org/name".parse().unwrap());
        assert_eq!(cache.dir, dir.path().join("models--org--name"));
        assert_eq!(cache.commit("main"), None);
        cache.write_ref("refs/pr/1", COMMIT).unwrap();
        assert_eq!(cache.commit("refs/pr/1").unwrap(), COMMIT);
        assert_eq!(cache.commit(COMMIT).unwrap(), COMMIT);
        fs::write(dir.path().join("models--org--name/refs/evil"), "../../..").unwrap();
        assert_eq!(cache.commit("evil"), None);

        drop(cache.lock("abcdef01", || ()).unwrap());
        fs::write(cache.blob("abcdef01"), "old").unwrap();
        fs::write(cache.blob("abcdef02"), "newer").unwrap();
        for (etag, content) in [("abcdef01", "old"), ("abcdef02", "newer"), ("abcdef02", "newer")] {
            let path = cache.link(COMMIT, "f", etag).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), content);
        }
    }

    #[test]
    fn a_file_that_is_shown_stays_there_while_others_show_it() {
        let dir = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(dir.path(), &"org/name".parse().unwrap());
        create(&dir.path().join("models--org--name/blobs")).unwrap();
        fs::write(cache.blob("abcdef01"), "content").unwrap();
        for round in 0..200 {
            let file = format!("f{round}");
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        let path = cache.link(COMMIT, &file, "abcdef01").unwrap();
                        for _ in 0..20 {
                            assert_eq!(fs::read_to_string(&path).unwrap(), "content");
                        }
                    });
                }
            });
        }
        assert_eq!(fs::read_dir(cache.snapshot(COMMIT)).unwrap().count(), 200, "no temporary link is left");
    }

    #[test]
    fn what_a_server_may_call_a_commit_or_a_hash() {
        assert!(is_commit(COMMIT) && is_etag(COMMIT));
        for bad in ["", "main", "../../../../../../etc/passwd", &COMMIT[1..], &COMMIT.to_uppercase()] {
            assert!(!is_commit(bad), "{bad}");
        }
        for bad in ["", "..", "a/b/c/d/e/f", "abcdef01.lock", "abcdef\u{e9}01"] {
            assert!(!is_etag(bad), "{bad}");
        }
    }
}
