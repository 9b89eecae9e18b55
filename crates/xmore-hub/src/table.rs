//! open_clip's names: architectures, and the (architecture, tag) pairs whose weights are on the hub.

use std::sync::LazyLock;

use crate::hub::RepoId;

/// An architecture of open_clip's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Its name, such as `ViT-B-16`.
    pub name: &'static str,
    /// Length of its embeddings.
    pub embed_dim: usize,
    /// Side of the square image it takes, in pixels.
    pub image_size: usize,
    /// Why it cannot be loaded; empty where it can.
    pub(crate) refused: &'static str,
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
    /// Whether images are prepared as OpenAI's CLIP does it, so that the weights alone are enough.
    pub(crate) plain: bool,
}

impl Pretrained {
    /// `ViT-B-16,openai`: the one name of the several that a model goes by in this program.
    pub fn name(&self) -> String {
        format!("{},{}", self.architecture.name, self.tag)
    }

    /// The repository on the hub.
    pub(crate) fn repository(&self) -> RepoId {
        self.repo.parse().expect("a repository in the checked-in table")
    }
}

/// open_clip's suffix on architectures whose activation is QuickGELU.
pub(crate) const QUICK_GELU: &str = "-quickgelu";

static ARCHITECTURES: LazyLock<Vec<Architecture>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let [name, embed_dim, image_size, refused] = fields(line);
        let number = |text: &str| text.parse().expect("a number in the checked-in table");
        Architecture { name, embed_dim: number(embed_dim), image_size: number(image_size), refused }
    };
    rows(include_str!("../data/architectures.tsv")).map(row).collect()
});

static PRETRAINED: LazyLock<Vec<Pretrained>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let [name, tag, repo, file, quick_gelu, plain] = fields(line);
        Pretrained {
            architecture: architecture(name).expect("an architecture of the checked-in table"),
            tag,
            repo,
            file,
            quick_gelu: quick_gelu == "true",
            plain: plain == "true",
        }
    };
    rows(include_str!("../data/pretrained.tsv")).map(row).collect()
});

/// Every architecture, those that are refused among them.
pub(crate) fn architectures() -> &'static [Architecture] {
    &ARCHITECTURES
}

/// The weights that can be asked for by open_clip's names, ordered by architecture.
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

    #[test]
    fn the_tables_are_whole() {
        assert!(architectures().len() > 100 && pretrained().len() >= 70);
        for entry in pretrained() {
            assert!(entry.architecture.refused.is_empty(), "{}", entry.name());
            assert_eq!(entry.repo.split('/').count(), 2, "{}", entry.name());
            assert!(!entry.tag.is_empty() && !entry.tag.contains(['-', ',']), "{}", entry.name());
        }
    }

    #[test]
    fn sizes_and_activations_of_known_models() {
        let find = |name: &str| pretrained().iter().find(|entry| entry.name() == name).unwrap();
        let openai = find("ViT-L-14-336,openai");
        assert_eq!((openai.architecture.embed_dim, openai.architecture.image_size), (768, 336));
        assert!(openai.quick_gelu && openai.plain);
        assert!(find("ViT-B-32,laion400m_e32").quick_gelu && !find("ViT-B-16,laion400m_e32").quick_gelu);
        assert!(!find("ViT-B-32,laion2b_s34b_b79k").quick_gelu);
        // Mean and standard deviation of its own.
        assert!(!find("ViT-L-14,laion2b_s32b_b82k").plain);
        assert!(!architecture("ViT-B-16-SigLIP").unwrap().refused.is_empty());
    }
}
