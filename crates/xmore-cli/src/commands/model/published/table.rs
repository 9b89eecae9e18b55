//! The published values: a row for each model. To add one: its names, where the values are from, and what they are of.

/// What is published of one model's outputs.
pub(crate) struct Published<'a> {
    /// Its name in this program, and its names on the hub.
    pub(super) names: &'a [&'a str],
    /// SHA-256 of the checkpoint file that its authors distribute.
    pub(super) checkpoint: &'a str,
    /// Where the values are from.
    pub(super) source: &'a str,
    pub(super) checks: &'a [Check<'a>],
}

/// One published output. Vectors were published without normalization: they are compared as unit vectors.
pub(crate) enum Check<'a> {
    /// Embeddings of texts: an `.npy` file `[texts, dim]`.
    Texts { texts: &'a [&'a str], vectors: &'a [u8] },
    /// The embedding of a picture: an `.npy` file `[1, dim]`.
    Image { picture: Picture<'a>, vector: &'a [u8] },
    /// Of a text's embedding the first components and the sum of all.
    TextPart { text: &'a str, first: &'a [f64], sum: f64 },
    /// The softmax over texts for a picture.
    Probabilities { picture: Picture<'a>, texts: &'a [&'a str], probabilities: &'a [f64] },
}

/// A picture file that is part of this program.
#[derive(Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(super) name: &'a str,
    pub(super) bytes: &'a [u8],
}

const CLIP_PNG: Picture =
    Picture { name: "CLIP.png", bytes: include_bytes!("../../../../data/published/CLIP.png") };
const CLIP_TEXTS: &[&str] = &["a diagram", "a dog", "a cat"];

/// All models of which values are known.
pub(crate) static PUBLISHED: &[Published] = &[Published {
    names: &[
        "ViT-B-32,openai",
        "hf-hub:timm/vit_base_patch32_clip_224.openai",
        "hf-hub:openai/clip-vit-base-patch32",
    ],
    checkpoint: "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    source: "outputs of OpenAI's ViT-B/32 in 32-bit floats, of the test data of MIT-licensed reimplementations",
    checks: &[
        Check::Texts {
            texts: CLIP_TEXTS,
            vectors: include_bytes!("../../../../data/published/vit_b32_texts.npy"),
        },
        Check::TextPart {
            text: "a photo of a man",
            first: &[-0.26425982, 0.32455686, -0.02275231, 0.20319021, -0.00989811],
            sum: 9.667448,
        },
        Check::Image {
            picture: CLIP_PNG,
            vector: include_bytes!("../../../../data/published/vit_b32_image.npy"),
        },
        Check::Probabilities {
            picture: CLIP_PNG,
            texts: CLIP_TEXTS,
            probabilities: &[0.9927937, 0.00421068, 0.00299572],
        },
    ],
}];
