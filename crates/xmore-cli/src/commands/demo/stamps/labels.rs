//! The demo's labeled pairs: which folders of the stamps are which label, and the pairs found in them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::pictures::{PicturesError, Result};

/// Most of a caption file that is read; the first line is the English caption.
const CAPTION_LIMIT: u64 = 4096;

/// (folder below `stamps/`, label): 30 folders of photos with one clear subject each, at least 3 pairs in each. The label is a
/// noun that fits "a photo of a {}.".
///
/// A folder's entry covers the files directly in it; sub-folders count only where they are listed themselves. Left out: folders of
/// drawings (clothes, flags, houses, alphabets, every `cartoon`, `plastic` and `toys`), of mixed subjects (household,
/// animals/mammals, seasonal/christmas), symbols (letters, coins), and those with fewer than 3 photos.
pub(crate) const LABELS: [(&str, &str); 30] = [
    ("animals/birds", "bird"),
    ("animals/fish", "fish"),
    ("animals/insects", "insect"),
    ("animals/mammals/apes", "primate"),
    ("animals/mammals/aquatic", "marine mammal"),
    ("animals/mammals/bovines", "bovine animal"),
    ("animals/mammals/cats", "big cat"),
    ("animals/mammals/deer", "deer"),
    ("animals/mammals/dogs", "dog"),
    ("animals/mammals/equines", "equine animal"),
    ("animals/mammals/rodents", "rodent"),
    ("animals/marsupials", "marsupial"),
    ("food/fruit", "fruit"),
    ("food/nuts", "nut"),
    ("food/vegetables", "vegetable"),
    ("hobbies/music/string", "string instrument"),
    ("household/arttools", "stationery item"),
    ("household/dishes", "cup or jug"),
    ("household/tools", "tool"),
    ("medical", "medical instrument"),
    ("military/vehicles", "military vehicle"),
    ("plants", "garden plant"),
    ("plants/flowers", "flower"),
    ("plants/mushrooms", "mushroom"),
    ("plants/trees", "tree"),
    ("seasonal/halloween", "gravestone"),
    ("space/planets", "planet"),
    ("sports", "piece of sports equipment"),
    ("town/roadsigns", "road sign"),
    ("vehicles/auto", "car"),
];

/// Pictures in those folders that are drawings beside photos, or not of the folder's subject: left out.
pub(crate) const NOT_PHOTOS: [&str; 7] = [
    "medical/tooth.png",
    "seasonal/halloween/bat_left.png",
    "seasonal/halloween/blackcat.png",
    "seasonal/halloween/ghost.png",
    "seasonal/halloween/jackolantern_mean.png",
    "seasonal/halloween/skull.png",
    "seasonal/halloween/spider.png",
];

/// One picture with its caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The picture: PNG, most of them with a transparent background.
    pub image: PathBuf,
    /// First line of the caption file, trimmed; never empty.
    pub caption: String,
    /// Index into [`LABELS`].
    pub label: usize,
}

/// What [`pairs`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pairs {
    /// The pairs, sorted by path of the picture.
    pub stamps: Vec<Stamp>,
    /// Pictures without a usable caption (no `.txt` beside them, or an empty first line), left out.
    pub without_caption: usize,
}

/// Reads the labeled pairs below `dir`, the folder that [`fetch`](super::fetch) returns. A folder of [`LABELS`] that is not there
/// gives no pair.
///
/// # Errors
/// [`PicturesError::Fetch`] when `dir` or a folder in it cannot be listed.
pub(crate) fn pairs(dir: &Path) -> Result<Pairs> {
    fs::read_dir(dir).map_err(PicturesError::io("list", dir))?;
    let mut found = Pairs::default();
    for (label, (folder, _)) in LABELS.iter().enumerate() {
        let path = dir.join(folder);
        if !path.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).map_err(PicturesError::io("list", &path))? {
            let entry = entry.map_err(PicturesError::io("list", &path))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".png")) else { continue };
            let image = entry.path();
            if NOT_PHOTOS.iter().any(|drawing| *drawing == format!("{folder}/{name}")) || !image.is_file() {
                continue;
            }
            match caption(&image.with_extension("txt")) {
                Some(caption) => found.stamps.push(Stamp { image, caption, label }),
                None => found.without_caption += 1,
            }
        }
    }
    found.stamps.sort_by(|a, b| a.image.cmp(&b.image));
    Ok(found)
}

fn caption(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(CAPTION_LIMIT).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.trim_start_matches('\u{feff}').lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let folders: HashSet<_> = LABELS.iter().map(|(folder, _)| folder).collect();
        let labels: HashSet<_> = LABELS.iter().map(|(_, label)| label).collect();
        assert_eq!((folders.len(), labels.len()), (30, 30));
        assert!(LABELS.is_sorted());
        for (folder, _) in LABELS {
            assert!(folder.split('/').all(xmore_files::is_plain_name), "{folder}");
            assert!(
                !["cartoon", "plastic", "toys"].iter().any(|left_out| folder.contains(left_out)),
                "{folder}"
            );
        }
        for drawing in NOT_PHOTOS {
            let (folder, _) = drawing.rsplit_once('/').unwrap();
            assert!(folders.contains(&folder), "{drawing}");
        }
    }

    #[test]
    fn captions_labels_and_what_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        put("vehicles/auto/beetle.png", "");
        put("vehicles/auto/beetle.txt", "  A VW Beetle. \r\nde.utf8=Ein VW Käfer.\n");
        put("animals/birds/owl.png", "");
        put("animals/birds/owl.txt", "\u{feff}An owl.");
        put("animals/birds/mute.png", "");
        put("animals/birds/empty.png", "");
        put("animals/birds/empty.txt", "\nA second line.");
        put("animals/birds/cartoon/duck.png", "");
        put("animals/birds/cartoon/duck.txt", "A duck.");
        put("animals/birds/owl.svg", "");
        put("medical/tooth.png", "");
        put("medical/tooth.txt", "A tooth.");
        let found = pairs(dir.path()).unwrap();
        let shown: Vec<_> = found.stamps.iter().map(|s| (s.caption.as_str(), LABELS[s.label].1)).collect();
        assert_eq!(shown, [("An owl.", "bird"), ("A VW Beetle.", "car")]);
        assert_eq!(found.without_caption, 2);
        assert!(pairs(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
