//! open_clip's names: families, architectures, and the (architecture, tag) pairs whose weights are on the hub.

use std::sync::LazyLock;

use crate::hub::RepoId;
use crate::license::License;

/// Architectures that one reader opens, or that are not read for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, such as `clip` or `siglip`.
    pub name: &'static str,
    refused: &'static str,
}

impl Family {
    /// Why its models cannot be loaded; nothing where they can.
    pub fn refused(&self) -> Option<&'static str> {
        Some(self.refused).filter(|reason| !reason.is_empty())
    }
}

/// An architecture of open_clip's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Its name, such as `ViT-B-16`.
    pub name: &'static str,
    /// Length of its embeddings.
    pub embed_dim: usize,
    /// Side of the square image it takes, in pixels.
    pub image_size: usize,
    /// What it is one of.
    pub family: &'static Family,
}

/// Published weights of an architecture, as open_clip names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pretrained {
    /// What they are weights of.
    pub architecture: &'static Architecture,
    /// The tag, such as `openai`.
    pub tag: &'static str,
    /// Where they are: `org/name` on the hub.
    pub repo: &'static str,
    /// The file in it; empty for the usual names.
    pub(crate) file: &'static str,
    /// Whether they were trained with QuickGELU.
    pub quick_gelu: bool,
    /// Whether open_clip lists them below `-quickgelu` too.
    twice: bool,
    /// Whether images are prepared as OpenAI's CLIP does it, so that the weights alone are enough.
    pub(crate) plain: bool,
    /// Their license, where it is known.
    pub license: Option<License>,
}

impl Pretrained {
    /// `ViT-B-16,openai`: the one name of the several that a model goes by in this program.
    pub fn name(&self) -> String {
        format!("{},{}", self.architecture.name, self.tag)
    }

    /// open_clip's second name of the same weights, such as `ViT-B-16-quickgelu,openai`, if it has one.
    pub fn second_name(&self) -> Option<String> {
        self.twice.then(|| format!("{}{QUICK_GELU},{}", self.architecture.name, self.tag))
    }

    /// The repository on the hub.
    pub(crate) fn repository(&self) -> RepoId {
        self.repo.parse().expect("a repository in the checked-in table")
    }
}

/// open_clip's suffix on architectures whose activation is QuickGELU.
pub(crate) const QUICK_GELU: &str = "-quickgelu";

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let [name, refused] = fields(line);
        Family { name, refused }
    };
    rows(include_str!("../data/families.tsv")).map(row).collect()
});

static ARCHITECTURES: LazyLock<Vec<Architecture>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let [name, embed_dim, image_size, family] = fields(line);
        let number = |text: &str| text.parse().expect("a number in the checked-in table");
        let family = FAMILIES.iter().find(|known| known.name == family);
        Architecture {
            name,
            embed_dim: number(embed_dim),
            image_size: number(image_size),
            family: family.expect("a family of the checked-in table"),
        }
    };
    rows(include_str!("../data/architectures.tsv")).map(row).collect()
});

static PRETRAINED: LazyLock<Vec<Pretrained>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let [name, tag, repo, file, quick_gelu, twice, plain, license] = fields(line);
        Pretrained {
            architecture: architecture(name).expect("an architecture of the checked-in table"),
            tag,
            repo,
            file,
            quick_gelu: quick_gelu == "true",
            twice: twice == "true",
            plain: plain == "true",
            license: License::new(license),
        }
    };
    rows(include_str!("../data/pretrained.tsv")).map(row).collect()
});

/// Every family, those that are not read among them.
pub fn families() -> &'static [Family] {
    &FAMILIES
}

/// Every architecture, those that are not read among them.
pub(crate) fn architectures() -> &'static [Architecture] {
    &ARCHITECTURES
}

/// All weights that open_clip has names for, ordered by architecture, those that are not read among them.
pub fn pretrained() -> &'static [Pretrained] {
    &PRETRAINED
}

/// The architecture of exactly this name.
pub(crate) fn architecture(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|arch| arch.name == name)
}

/// The published weights of an architecture.
pub(crate) fn tags(architecture: &Architecture) -> impl Iterator<Item = &'static Pretrained> {
    let name = architecture.name;
    PRETRAINED.iter().filter(move |entry| entry.architecture.name == name)
}

fn rows(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn fields<const N: usize>(line: &'static str) -> [&'static str; N] {
    let fields: Vec<_> = line.split('\t').collect();
    fields.try_into().expect("as many columns as the checked-in table has")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> &'static Pretrained {
        pretrained().iter().find(|entry| entry.name() == name).unwrap()
    }

    #[test]
    fn the_tables_are_whole() {
        let names: Vec<String> = pretrained()
            .iter()
            .flat_map(|entry| [Some(entry.name()), entry.second_name()])
            .flatten()
            .collect();
        assert_eq!(names.len(), 196, "pairs of open_clip 3.3.0");
        assert!(names.contains(&"ViT-B-16-quickgelu,openai".to_owned()));
        for entry in pretrained() {
            assert_eq!(entry.repo.split('/').count(), 2, "{}", entry.name());
            assert!(!entry.tag.is_empty() && !entry.tag.contains(['-', ',']), "{}", entry.name());
        }
        assert!(architectures().len() > 100);
        for family in families() {
            assert!(architectures().iter().any(|arch| arch.family == family), "{}", family.name);
        }
    }

    #[test]
    fn sizes_and_activations_of_known_models() {
        let openai = find("ViT-L-14-336,openai");
        assert_eq!((openai.architecture.embed_dim, openai.architecture.image_size), (768, 336));
        assert!(openai.quick_gelu && openai.plain);
        assert!(find("ViT-B-32,laion400m_e32").quick_gelu && !find("ViT-B-16,laion400m_e32").quick_gelu);
        assert!(!find("ViT-B-32,laion2b_s34b_b79k").quick_gelu);
        // Mean and standard deviation of its own.
        assert!(!find("ViT-L-14,laion2b_s32b_b82k").plain);
        // By the architecture's configuration, not the tag; open_clip has one name for it.
        let roberta = find("roberta-ViT-B-32,laion2b_s12b_b32k");
        assert!(roberta.quick_gelu && roberta.second_name().is_none());
    }

    #[test]
    fn families_and_licenses_of_known_models() {
        for (name, family, license, commercial) in [
            ("ViT-B-32,openai", "clip", "apache-2.0", true),
            ("ViT-B-16-SigLIP,webli", "siglip", "apache-2.0", true),
            ("ViT-gopt-16-SigLIP2-384,webli", "siglip2", "apache-2.0", true),
            ("ViT-H-14-worldwide,metaclip2_worldwide", "metaclip2", "cc-by-nc-4.0", false),
            ("ViT-H-14-CLIPA,datacomp1b", "clipa", "apache-2.0", true),
            ("MobileCLIP-B,datacompdr", "mobileclip", "apple-amlr", false),
            ("MobileCLIP2-S4,dfndr2b", "fastvit", "apple-amlr", false),
            ("ViT-L-14,dfn2b", "clip", "apple-amlr", false),
            ("coca_ViT-L-14,laion2b_s13b_b90k", "coca", "mit", true),
            ("nllb-clip-base-siglip,v1", "nllb", "cc-by-nc-4.0", false),
        ] {
            let entry = find(name);
            assert_eq!(entry.architecture.family.name, family, "{name}");
            let found = entry.license.as_ref().unwrap();
            assert_eq!((found.id(), found.forbids_commercial_use()), (license, !commercial), "{name}");
        }
        assert_eq!(find("ViT-B-32,laion2b_e16").license, None);
        assert_eq!(find("ViT-B-32,openai").architecture.family.refused(), None);
        assert!(find("ViTamin-L,datacomp1b").architecture.family.refused().is_some());
    }
}
