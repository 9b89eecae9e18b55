//! What a model's name means: the spellings of open_clip, CLIP_benchmark, clip-retrieval and OpenAI in one enum.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{ModelError, Result};
use crate::hub::RepoId;
use crate::lite::{self, BundledModel};
use crate::table::{self, Architecture, Pretrained, QUICK_GELU};

/// A model as the user named it.
///
/// | written | means |
/// |---|---|
/// | `lite`, `lite2` | a bundled model |
/// | `ViT-B-16,openai`, or `ViT-B-16` with `openai` beside it | open_clip's (architecture, tag) |
/// | `ViT-B/16`, `ViT-L/14@336px`, `RN50` | OpenAI's weights |
/// | `ViT-B-16,weights.pt`, or `ViT-B-16` with that beside it | a checkpoint file of that architecture |
/// | `hf-hub:org/name`, `hf-hub:org/name@revision` | a repository of the hub |
/// | `open_clip:ViT-B-16,openai`, `hf_clip:org/name` | the same with clip-retrieval's prefixes |
/// | `local-dir:PATH`, a path | a folder or checkpoint file |
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelName {
    /// A bundled model.
    Bundled(&'static BundledModel),
    /// A folder or checkpoint file of the user's, as it was written.
    Local(String),
    /// A checkpoint file with the architecture it is said to be of.
    Checkpoint {
        /// The architecture.
        architecture: &'static Architecture,
        /// Whether the architecture was named with `-quickgelu`.
        quick_gelu: bool,
        /// The file.
        path: PathBuf,
    },
    /// Weights that open_clip knows by name.
    Pretrained(&'static Pretrained),
    /// A repository of the hub.
    Hub(RepoId),
}

/// What OpenAI's own list has: these names mean OpenAI's weights. The others of its list have a slash.
const OPENAI_NAMES: [&str; 5] = ["RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"];
const LOCAL: &str = "local-dir:";
const HUB: &str = "hf-hub:";
/// clip-retrieval's prefixes.
const HF_CLIP: &str = "hf_clip:";
const OPEN_CLIP: &str = "open_clip:";
const CHECKPOINTS: [&str; 4] = ["pt", "pth", "bin", "safetensors"];
/// Below this similarity (0 to 1) a name is no guess at another.
const ALIKE: f64 = 0.6;

impl ModelName {
    /// Understands a model's name, and the name of the weights or the checkpoint beside it.
    ///
    /// # Errors
    /// Each says what is possible: [`ModelError::UnknownModel`], [`ModelError::UnsupportedModel`], [`ModelError::NoPretrained`],
    /// [`ModelError::UnknownPretrained`], [`ModelError::UnusedPretrained`], and those of repository names.
    pub fn parse(model: &str, pretrained: Option<&str>) -> Result<Self> {
        let unused = |tag: &str| {
            Err(ModelError::UnusedPretrained { model: model.to_owned(), pretrained: tag.to_owned() })
        };
        let alone = |name: Self| pretrained.map_or(Ok(name), unused);
        if let Some(bundled) = BundledModel::find(model) {
            return alone(Self::Bundled(bundled));
        }
        if model.strip_prefix(LOCAL).is_some_and(|path| !path.is_empty()) {
            return alone(Self::Local(model.to_owned()));
        }
        if let Some(repo) = model.strip_prefix(HUB).or_else(|| model.strip_prefix(HF_CLIP)) {
            return alone(Self::Hub(repo.parse()?));
        }
        if let Some(rest) = model.strip_prefix(OPEN_CLIP) {
            return Self::parse(rest, pretrained);
        }
        let exists = Path::new(model).exists();
        if !exists
            && let Some((left, right)) = model.split_once(',')
            && let Some(spelt) = Spelt::read(left)
        {
            return match pretrained {
                Some(other) if clean(other) != clean(right) => unused(other),
                _ => spelt.with(right),
            };
        }
        // A folder `ViT-B/16` of the user's is meant before OpenAI's model; a file `RN50` is less likely than the model.
        let path = exists && (has_separator(model) || Spelt::read(model).is_none());
        if !path && let Some(spelt) = Spelt::read(model) {
            return match (pretrained, spelt.openai) {
                (Some(tag), _) => spelt.with(tag),
                (None, true) => spelt.with("openai"),
                (None, false) => spelt.only(),
            };
        }
        let mistyped = !exists && model.starts_with("ViT-") && !is_checkpoint(Path::new(model));
        if path || (has_separator(model) && !mistyped) || is_checkpoint(Path::new(model)) {
            return alone(Self::Local(model.to_owned()));
        }
        Err(ModelError::UnknownModel { name: model.to_owned(), suggestion: similar_model(model) })
    }

    /// The path of a model of the user's.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local(written) => Some(written_path(written)),
            Self::Checkpoint { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The repository of the hub it is in.
    pub fn repo(&self) -> Option<RepoId> {
        match self {
            Self::Pretrained(entry) => Some(entry.repository()),
            Self::Hub(repo) => Some(repo.clone()),
            _ => None,
        }
    }
}

/// The canonical spelling: [`ModelName::parse`] understands it as the same model.
impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled(model) => f.write_str(model.name()),
            Self::Local(written) => f.write_str(written),
            Self::Checkpoint { architecture, quick_gelu, path } => {
                let suffix = if *quick_gelu { QUICK_GELU } else { "" };
                write!(f, "{}{suffix},{}", architecture.name, path.display())
            }
            Self::Pretrained(entry) => f.write_str(&entry.name()),
            Self::Hub(repo) => write!(f, "{HUB}{repo}"),
        }
    }
}

/// An architecture's name as written.
struct Spelt {
    written: String,
    architecture: &'static Architecture,
    quick_gelu: bool,
    /// Written as in OpenAI's list.
    openai: bool,
}

impl Spelt {
    fn read(name: &str) -> Option<Self> {
        let openai = OPENAI_NAMES.contains(&name) || (name.starts_with("ViT-") && name.contains('/'));
        let plain = name.replace('/', "-");
        let plain = plain.strip_suffix("@336px").map_or(plain.clone(), |stem| format!("{stem}-336"));
        let (stem, quick_gelu) = match plain.strip_suffix(QUICK_GELU) {
            Some(stem) => (stem, true),
            None => (plain.as_str(), false),
        };
        let architecture = table::architecture(stem)?;
        Some(Self { written: name.to_owned(), architecture, quick_gelu, openai })
    }

    /// With a tag of open_clip's or a checkpoint file.
    fn with(self, pretrained: &str) -> Result<ModelName> {
        self.check()?;
        let tag = clean(pretrained);
        if let Some(entry) = self.tags().find(|entry| entry.tag == tag) {
            return Ok(ModelName::Pretrained(entry));
        }
        let path = Path::new(pretrained);
        if is_checkpoint(path) || path.is_file() || has_separator(pretrained) {
            let Self { architecture, quick_gelu, .. } = self;
            return Ok(ModelName::Checkpoint { architecture, quick_gelu, path: path.to_owned() });
        }
        Err(ModelError::UnknownPretrained {
            suggestion: nearest(&tag, self.tags().map(|entry| entry.tag.to_owned())),
            tags: self.list(),
            architecture: self.written,
            pretrained: pretrained.to_owned(),
        })
    }

    /// Without a tag: open_clip would give random weights; here it must be clear which are meant.
    fn only(self) -> Result<ModelName> {
        self.check()?;
        let mut tags = self.tags();
        match (tags.next(), tags.next()) {
            (Some(entry), None) => Ok(ModelName::Pretrained(entry)),
            _ => Err(ModelError::NoPretrained { tags: self.list(), architecture: self.written.clone() }),
        }
    }

    /// open_clip gives `-quickgelu` to the tags that were trained with it.
    fn tags(&self) -> impl Iterator<Item = &'static Pretrained> + use<> {
        let quick_gelu = self.quick_gelu;
        table::tags(self.architecture).filter(move |entry| entry.quick_gelu || !quick_gelu)
    }

    fn list(&self) -> String {
        let tags: Vec<_> = self.tags().map(|entry| entry.tag).collect();
        match tags.is_empty() {
            true => "none is published: give the path of a checkpoint file".to_owned(),
            false => tags.join(", "),
        }
    }

    fn check(&self) -> Result<()> {
        match self.architecture.family.refused() {
            None => Ok(()),
            Some(reason) => Err(ModelError::UnsupportedModel { architecture: self.written.clone(), reason }),
        }
    }
}

fn has_separator(name: &str) -> bool {
    name.contains(std::path::is_separator)
}

/// The path in [`ModelName::Local`].
pub(crate) fn written_path(written: &str) -> &Path {
    Path::new(written.strip_prefix(LOCAL).unwrap_or(written))
}

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|end| CHECKPOINTS.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

/// As open_clip reads tags.
fn clean(tag: &str) -> String {
    tag.to_lowercase().replace('-', "_")
}

/// The model whose name is most like this one.
fn similar_model(name: &str) -> Option<String> {
    let read = table::architectures().iter().filter(|arch| arch.family.refused().is_none());
    let architectures = read.map(|arch| arch.name.to_owned());
    let stem = name.split_once(',').map_or(name, |(stem, _)| stem);
    let bundled = lite::MODELS.iter().map(|model| model.name().to_owned());
    nearest(&stem.replace('/', "-"), architectures.chain(bundled))
}

/// The known name that is most like this one, if any is like it.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let name = name.to_lowercase();
    let scored = known.map(|k| (strsim::normalized_damerau_levenshtein(&name, &k.to_lowercase()), k));
    let (score, best) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score >= ALIKE).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(model: &str) -> Result<ModelName> {
        ModelName::parse(model, None)
    }

    fn canonical(model: &str, pretrained: Option<&str>) -> String {
        ModelName::parse(model, pretrained).unwrap().to_string()
    }

    fn refused(model: &str, pretrained: Option<&str>) -> String {
        ModelName::parse(model, pretrained).unwrap_err().to_string()
    }

    #[test]
    fn one_model_has_one_name() {
        for (model, pretrained) in [
            ("ViT-B-16", Some("openai")),
            ("ViT-B-16,openai", None),
            ("ViT-B-16,openai", Some("openai")),
            ("ViT-B/16", None),
            ("ViT-B/16", Some("openai")),
            ("ViT-B-16-quickgelu", Some("openai")),
            ("ViT-B-16-quickgelu,OpenAI", None),
            ("open_clip:ViT-B-16", Some("openai")),
        ] {
            assert_eq!(canonical(model, pretrained), "ViT-B-16,openai", "{model} {pretrained:?}");
        }
        assert_eq!(canonical("ViT-L/14@336px", None), "ViT-L-14-336,openai");
        assert_eq!(canonical("ViT-B/16", Some("laion2b-s34b-b88k")), "ViT-B-16,laion2b_s34b_b88k");
        assert_eq!(canonical("RN50", None), "RN50,openai");
        assert_eq!(canonical("RN50x16", None), "RN50x16,openai");
        // One set of weights is published.
        assert_eq!(canonical("ViT-B-32-256", None), "ViT-B-32-256,datacomp_s34b_b86k");
        assert_eq!(canonical("lite", None), "lite");
        assert_eq!(canonical("lite2", None), "lite2");
        assert_eq!(canonical("hf-hub:laion/CLIP-ViT-B-16@v1", None), "hf-hub:laion/CLIP-ViT-B-16@v1");
    }

    #[test]
    fn every_published_name_reads_back() {
        for entry in table::pretrained() {
            for name in [Some(entry.name()), entry.second_name()].into_iter().flatten() {
                match entry.architecture.family.refused() {
                    None => assert_eq!(parse(&name).unwrap(), ModelName::Pretrained(entry)),
                    Some(reason) => assert!(refused(&name, None).contains(reason), "{name}"),
                }
            }
            assert_eq!(ModelName::Pretrained(entry).repo().unwrap().to_string(), entry.repo);
        }
    }

    #[test]
    fn weights_are_never_random() {
        let error = refused("ViT-B-32", None);
        assert!(error.contains("openai") && error.contains("laion2b_s34b_b79k"), "{error}");
        let error = refused("ViT-S-32", None);
        assert!(error.contains("checkpoint file"), "{error}");
        // Trained with GELU, so open_clip has no such name either.
        let error = refused("ViT-B-32-quickgelu,laion2b_s34b_b79k", None);
        assert!(error.contains("metaclip_400m") && !error.contains("datacomp"), "{error}");
    }

    #[test]
    fn typing_errors_get_a_suggestion() {
        assert!(refused("ViT-B16", None).contains("did you mean \"ViT-B-16\"?"));
        assert!(refused("vit-b-16", None).contains("did you mean \"ViT-B-16\"?"));
        assert!(refused("ViT-B16,openai", None).contains("did you mean \"ViT-B-16\"?"));
        assert!(refused("ViT-L/14@336", None).contains("did you mean \"ViT-L-14-336\"?"));
        assert!(refused("Lite", None).contains("did you mean \"lite\"?"));
        assert!(refused("ViT-B-16", Some("opnai")).contains("did you mean \"openai\"?"));
        assert!(!refused("gpt2", None).contains("did you mean"));
    }

    #[test]
    fn what_cannot_be_loaded_is_said() {
        assert!(refused("ViTamin-B", None).contains("ViTamin is not"));
        assert!(refused("swin_base_patch4_window7_224", None).contains("timm"));
    }

    #[test]
    fn pretrained_goes_with_architectures_only() {
        for model in ["lite", "local-dir:/m", "hf-hub:a/b", "/some/folder", "ViT-B-16,openai"] {
            let error = refused(model, Some("metaclip_400m"));
            assert!(error.contains("weights metaclip_400m") && error.contains(model), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_has_a_canonical_name(
            model in r"(ViT-|RN50|lite|hf-hub:|open_clip:|local-dir:|)[ -~é]{0,24}(,[ -~]{0,12}|)",
            pretrained in proptest::option::of("openai|laion2b_s34b_b88k|[ -~]{0,12}"),
        ) {
            if let Ok(name) = ModelName::parse(&model, pretrained.as_deref()) {
                assert_eq!(parse(&name.to_string()).unwrap(), name);
            }
        }
    }

    #[test]
    fn paths_and_files() {
        let path = |name: ModelName| name.local_path().unwrap().to_owned();
        assert_eq!(path(parse("local-dir:/m/x").unwrap()), Path::new("/m/x"));
        assert!(matches!(parse("local-dir:"), Err(ModelError::UnknownModel { .. })));
        assert_eq!(path(parse("models/mine").unwrap()), Path::new("models/mine"));
        assert_eq!(path(parse("weights.safetensors").unwrap()), Path::new("weights.safetensors"));
        let dir = tempfile::tempdir().unwrap();
        let with_comma = dir.path().join("ViT-B-16,openai");
        std::fs::create_dir(&with_comma).unwrap();
        assert_eq!(path(parse(with_comma.to_str().unwrap()).unwrap()), with_comma);
        for (model, quick_gelu) in [("ViT-B-16", false), ("ViT-B-16-quickgelu", true)] {
            let name = ModelName::parse(model, Some("/w/b.pt")).unwrap();
            assert_eq!(name.to_string(), format!("{model},/w/b.pt"));
            assert!(matches!(name, ModelName::Checkpoint { quick_gelu: q, .. } if q == quick_gelu));
        }
    }
}
