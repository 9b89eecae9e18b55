//! Tests of the whole path to the pictures: fake `apt-get` and `dpkg-deb`, small packages.

use std::cell::RefCell;
use std::ffi::OsString;

use super::super::extract::tests::tar_of;
use super::*;

const OWL: &str = "./usr/share/tuxpaint/stamps/animals/birds/owl";

/// A home, and tools that are scripts: a "package" is a tar file, whatever the real format.
struct World {
    root: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { root: tempfile::tempdir().unwrap() };
        let (png, txt) = (format!("{OWL}.png"), format!("{OWL}.txt"));
        let copyright = "./usr/share/doc/tuxpaint-stamps-default/copyright";
        let tar = tar_of(&[(&png, b"PNG"), (&txt, b"An owl."), (copyright, b"GPL-2")]);
        fs::write(world.path("repo.deb"), tar).unwrap();
        world
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn words(&self, script: &str) -> Vec<OsString> {
        let script = format!("ROOT='{}'; {script}", self.root.path().display());
        ["sh", "-c", &script, "tool"].iter().map(OsString::from).collect()
    }

    /// A Debian whose apt knows the package once `lists` exists, which `apt-get update` makes.
    fn debian(&self, root: bool) -> Debian {
        Debian {
            apt_get: self.words(
                r#"echo "$*" >> "$ROOT/log"
                if [ "$1" = update ]; then [ -e "$ROOT/offline" ] && { echo 'W: no network' >&2; exit 0; }
                    touch "$ROOT/lists"; exit 0; fi
                [ -e "$ROOT/lists" ] || { echo 'E: Unable to locate package' >&2; exit 100; }
                if [ "$2" = --print-uris ]; then echo "'where' tuxpaint-stamps-default_1.2-3_all.deb 5000 SHA256:0"; exit; fi
                cp "$ROOT/repo.deb" tuxpaint-stamps-default_1.2-3_all.deb"#,
            ),
            dpkg_deb: self.words(
                r#"case "$1" in
                --version) ;;
                --show) printf 'tuxpaint-stamps-default 1.2-3' ;;
                --fsys-tarfile) [ "$(wc -c < "$2")" -gt 20 ] || { echo 'not a Debian format archive' >&2; exit 2; }; cat "$2" ;;
                esac"#,
            ),
            root,
        }
    }

    fn fetch(&self, debian: &Debian) -> (Result<PathBuf>, Vec<String>) {
        let events = RefCell::new(Vec::new());
        let progress = |event: FetchEvent<'_>| events.borrow_mut().push(format!("{event:?}"));
        let result = fetch_in(&self.path("home"), &self.path("installed"), debian, &progress);
        (result, events.into_inner())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn assert_complete(&self) {
        let dir = self.path("home/data/tuxpaint-stamps");
        assert_eq!(pairs(&dir).unwrap().stamps[0].caption, "An owl.");
        assert_eq!(fs::read(dir.join("copyright")).unwrap(), b"GPL-2");
        assert_eq!(
            fs::read_to_string(dir.join(COMPLETE)).unwrap(),
            "tuxpaint-stamps-default 1.2-3\nfiles 3\n"
        );
        assert_eq!(fs::read_dir(self.path("home/data")).unwrap().count(), 1, "no scratch");
        assert_eq!(fs::read_dir(self.path("home/downloads")).unwrap().count(), 1, "no scratch");
    }
}

fn nothing() -> Debian {
    Debian {
        apt_get: vec!["/nonexistent/apt-get".into()],
        dpkg_deb: vec!["/nonexistent/dpkg-deb".into()],
        root: true,
    }
}

#[test]
fn a_user_with_lists() {
    let world = World::new();
    fs::write(world.path("lists"), "").unwrap();
    let (result, events) = world.fetch(&world.debian(false));
    assert_eq!(result.unwrap(), world.path("home/data/tuxpaint-stamps"));
    world.assert_complete();
    let package = "tuxpaint-stamps-default";
    assert_eq!(world.log(), format!("download --print-uris {package}\ndownload {package}\n"));
    assert!(events[0].contains("total: Some(5000)"), "{events:?}");
    // Complete: no tool is needed any more.
    world.fetch(&nothing()).0.unwrap();
}

#[test]
fn root_in_a_fresh_container_updates_the_lists_and_says_so() {
    let world = World::new();
    let (result, events) = world.fetch(&world.debian(true));
    result.unwrap();
    world.assert_complete();
    assert!(events[0].contains("apt-get update"), "{events:?}");
    assert_eq!(world.log().matches("update\n").count(), 1);
}

#[test]
fn without_lists_a_user_is_told_what_to_do() {
    let world = World::new();
    let text = world.fetch(&world.debian(false)).0.unwrap_err().to_string();
    for part in [
        "Unable to locate package",
        "exit status: 100",
        "`apt-get update` as root",
        "--pairs DIR",
        "home/downloads",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!world.log().contains("update"));
    fs::write(world.path("offline"), "").unwrap();
    let text = world.fetch(&world.debian(true)).0.unwrap_err().to_string();
    assert!(text.contains("W: no network"), "{text}");
}

#[test]
fn missing_tools() {
    let world = World::new();
    let text = world.fetch(&nothing()).0.unwrap_err().to_string();
    assert!(text.contains("dpkg-deb` was not found") && text.contains("xmore demo --pairs DIR"), "{text}");
    let no_apt = Debian { apt_get: nothing().apt_get, ..world.debian(true) };
    let text = world.fetch(&no_apt).0.unwrap_err().to_string();
    assert!(text.contains("apt-get` was not found"), "{text}");
}

#[test]
fn an_installed_package_is_used_as_it_is() {
    let world = World::new();
    let birds = world.path("installed/animals/birds");
    fs::create_dir_all(&birds).unwrap();
    fs::write(birds.join("owl.png"), "").unwrap();
    fs::write(birds.join("owl.txt"), "An owl.").unwrap();
    assert_eq!(world.fetch(&nothing()).0.unwrap(), world.path("installed"));
}

#[test]
fn a_package_put_in_the_downloads_folder_is_enough() {
    let world = World::new();
    fs::create_dir_all(world.path("home/downloads")).unwrap();
    fs::copy(world.path("repo.deb"), world.path("home/downloads/tuxpaint-stamps-default_1.2-3_all.deb"))
        .unwrap();
    let no_apt = Debian { apt_get: nothing().apt_get, ..world.debian(false) };
    world.fetch(&no_apt).0.unwrap();
    world.assert_complete();
}

#[test]
fn a_broken_package_is_fetched_again() {
    let whole = fs::read(World::new().path("repo.deb")).unwrap();
    for broken in [&b"broken"[..], &whole[..600], &tar_of(&[("./usr/bin/x", b"no stamps in here")])] {
        let world = World::new();
        fs::write(world.path("lists"), "").unwrap();
        fs::create_dir_all(world.path("home/downloads")).unwrap();
        fs::write(world.path("home/downloads/tuxpaint-stamps-default_1.2-3_all.deb"), broken).unwrap();
        let (result, events) = world.fetch(&world.debian(false));
        result.unwrap();
        world.assert_complete();
        assert!(events.iter().any(|e| e.contains("is fetched again: ")), "{events:?}");
    }
}

#[test]
fn a_repository_that_serves_a_broken_package() {
    let world = World::new();
    fs::write(world.path("lists"), "").unwrap();
    fs::write(world.path("repo.deb"), "broken").unwrap();
    let text = world.fetch(&world.debian(false)).0.unwrap_err().to_string();
    assert!(text.contains("not a Debian format archive") && text.contains("Delete"), "{text}");
    assert!(!world.path("home/data/tuxpaint-stamps").exists());
}

#[test]
fn a_folder_that_lost_a_file_is_built_again() {
    let world = World::new();
    world.fetch(&world.debian(true)).0.unwrap();
    fs::remove_file(world.path("home/data/tuxpaint-stamps/animals/birds/owl.txt")).unwrap();
    world.fetch(&world.debian(false)).0.unwrap();
    world.assert_complete();
}

#[test]
fn two_at_once() {
    let world = World::new();
    std::thread::scope(|scope| {
        let one =
            || fetch_in(&world.path("home"), &world.path("none"), &world.debian(true), &|_| ()).unwrap();
        let both = [scope.spawn(one), scope.spawn(one)];
        both.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    world.assert_complete();
}
