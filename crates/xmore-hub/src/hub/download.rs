//! One file from the hub into the cache: continued where it was cut, compared with what was announced, shown only when whole.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xmore_clip::{ClipError, LoadOptions, Model, TEXT_TOWER_FOLDER};

use super::cache::RepoCache;
use super::client::{Client, Listing, Meta, Trouble};
use super::select::Files;
use super::{HubError, RepoId, Request, Result};
use crate::fetch::{CopyError, FetchEvent, Progress, copy_hashed};

/// Before another attempt that follows one without a single byte; after the last the download is given up.
const PAUSES_MS: [u64; 4] = [250, 500, 1000, 2000];

/// A repository of the hub at the commit of its listing.
pub(super) struct Remote<'a> {
    pub client: &'a Client,
    /// The cache of all repositories.
    pub root: &'a Path,
    /// This one's part of it.
    pub cache: &'a RepoCache,
    pub listing: &'a Listing,
    pub request: &'a Request,
    pub progress: Progress<'a>,
}

impl Files for Remote<'_> {
    fn repo(&self) -> String {
        self.request.repo.to_string()
    }

    fn has(&self, file: &str) -> bool {
        self.listing.files.contains(file)
    }

    fn get(&mut self, file: &str) -> Result<PathBuf> {
        if !self.has(file) {
            return Err(HubError::NoModel { repo: self.repo(), expected: file.to_owned() });
        }
        let commit = &self.listing.commit;
        let shown = self.cache.snapshot(commit).join(file);
        // A commit's files never change.
        if shown.is_file() {
            return Ok(shown);
        }
        let meta = self.client.meta(self.request, commit, file)?;
        let blob = self.cache.blob(&meta.etag);
        if !blob.is_file() {
            let wait = || {
                let message = format!("another program is fetching {file}; waiting for it");
                (self.progress)(FetchEvent::Note { message: &message });
            };
            let _lock = self.cache.lock(&meta.etag, wait)?;
            if !blob.is_file() {
                self.download(file, &meta, &blob)?;
            }
        }
        self.cache.link(commit, file, &meta.etag)
    }

    fn other(&mut self, repo: &RepoId) -> Result<Box<dyn Files + '_>> {
        let request = Request::of(&self.request.name, repo.clone());
        Ok(Box::new(RemoteOther {
            listing: self.client.list(&request)?,
            cache: RepoCache::new(self.root, repo),
            shown: self.cache.snapshot(&self.listing.commit).join(TEXT_TOWER_FOLDER),
            request,
            model: self,
        }))
    }

    fn check(&self, dir: &Path) -> Result<()> {
        let mut options = LoadOptions::default();
        options.quick_gelu = self.request.quick_gelu;
        match Model::load_with(dir, &options) {
            Err(error @ ClipError::Config { .. }) => Err(HubError::Unsupported(Box::new(error))),
            // Weights that are missing are on their way.
            _ => Ok(()),
        }
    }
}

/// Another repository of the hub, whose files are shown in the folder of the text tower of the model's snapshot.
struct RemoteOther<'a> {
    model: &'a Remote<'a>,
    request: Request,
    listing: Listing,
    cache: RepoCache,
    /// The folder where they are shown.
    shown: PathBuf,
}

impl RemoteOther<'_> {
    fn remote(&self) -> Remote<'_> {
        let Remote { client, root, progress, .. } = *self.model;
        Remote { client, root, cache: &self.cache, listing: &self.listing, request: &self.request, progress }
    }
}

impl Files for RemoteOther<'_> {
    fn repo(&self) -> String {
        self.request.repo.to_string()
    }

    fn has(&self, file: &str) -> bool {
        self.listing.files.contains(file)
    }

    fn get(&mut self, file: &str) -> Result<PathBuf> {
        let fetched = self.remote().get(file)?;
        self.cache.show_in(&self.shown, &fetched)
    }

    fn other(&mut self, repo: &RepoId) -> Result<Box<dyn Files + '_>> {
        Err(HubError::NoModel { repo: self.repo(), expected: repo.to_string() })
    }
}

impl Remote<'_> {
    fn download(&self, file: &str, meta: &Meta, blob: &Path) -> Result<()> {
        let part = self.cache.blob(&format!("{}.incomplete", meta.etag));
        let io = |action| HubError::io(action, &part);
        let out = File::options().create(true).truncate(false).read(true).write(true).open(&part);
        let out = &mut out.map_err(io("write"))?;
        let mut have = out.seek(SeekFrom::End(0)).map_err(io("read"))?;
        if meta.size.is_some_and(|size| have > size) {
            have = cut(out, 0).map_err(io("write"))?;
        }
        (self.progress)(FetchEvent::Started { what: file, total: meta.size });
        (self.progress)(FetchEvent::Bytes { what: file, done: have });
        let mut pauses = PAUSES_MS.iter();
        while meta.size != Some(have) {
            let before = have;
            let trouble = match self.client.bytes(self.request, &self.listing.commit, file, have) {
                Ok((body, start)) => {
                    if start != have {
                        have = cut(out, start).map_err(io("write"))?;
                    }
                    match self.copy(body.into_reader(), out, file, meta, &mut have).map_err(io("write"))? {
                        None => break,
                        Some(reason) => reason,
                    }
                }
                Err(Trouble::Passing(reason)) => reason,
                Err(Trouble::BeyondEnd) => {
                    have = cut(out, 0).map_err(io("write"))?;
                    "what was there did not fit".into()
                }
                Err(Trouble::Final(error)) => return Err(error),
            };
            if have > before {
                pauses = PAUSES_MS.iter();
            }
            match pauses.next() {
                Some(&pause) => std::thread::sleep(Duration::from_millis(pause)),
                None => {
                    let reason = format!("{trouble} ({have} bytes are there)");
                    return Err(self.client.gave_up(self.request, file, reason));
                }
            }
        }
        self.verify(file, meta, out, &part)?;
        out.sync_all().map_err(io("write"))?;
        fs::rename(&part, blob).map_err(HubError::io("write", blob))?;
        (self.progress)(FetchEvent::Done { what: file });
        Ok(())
    }

    /// Appends what is received. `Ok(None)` at the announced end, `Ok(Some(why))` where the connection ended before; an error is the disk's.
    fn copy(
        &self,
        mut body: impl Read,
        out: &mut File,
        file: &str,
        meta: &Meta,
        have: &mut u64,
    ) -> io::Result<Option<String>> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(e) => return Ok(Some(e.to_string())),
            };
            if n == 0 {
                let whole = meta.size.is_none_or(|size| *have >= size);
                return Ok((!whole).then(|| "the connection was cut".into()));
            }
            out.write_all(&buffer[..n])?;
            *have += n as u64;
            // One that never ends must not fill the disk.
            if meta.size.is_some_and(|size| *have > size) {
                return Ok(None);
            }
            (self.progress)(FetchEvent::Bytes { what: file, done: *have });
        }
    }

    /// Compares size and, where the hub gives it, SHA-256; what differs is deleted.
    fn verify(&self, file: &str, meta: &Meta, out: &mut File, part: &Path) -> Result<()> {
        let io = |action| HubError::io(action, part);
        let found = out.metadata().map_err(io("read"))?.len();
        let mut difference = None;
        if let Some(size) = meta.size.filter(|&size| size != found) {
            difference = Some((format!("{size} bytes"), format!("{found}")));
        } else if meta.etag.len() == 64 {
            out.rewind().map_err(io("read"))?;
            let copied = copy_hashed(out, &mut io::sink(), found, &mut |_| ());
            let (_, sha256) = copied.map_err(|e| match e {
                CopyError::Read(e) | CopyError::Write(e) => io("read")(e),
            })?;
            if !sha256.eq_ignore_ascii_case(&meta.etag) {
                difference = Some((format!("SHA-256 {}", meta.etag), sha256));
            }
        }
        let Some((expected, found)) = difference else { return Ok(()) };
        fs::remove_file(part).map_err(io("delete"))?;
        Err(HubError::NotAsExpected { file: file.to_owned(), repo: self.repo(), expected, found })
    }
}

fn cut(file: &mut File, length: u64) -> io::Result<u64> {
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))
}
