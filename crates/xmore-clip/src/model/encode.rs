//! Images and texts through the towers.

use rayon::prelude::*;

use super::Model;
use crate::device::TextEncoder;
use crate::embeddings::Embeddings;
use crate::error::{ClipError, Result};
use crate::preprocess::Pixels;
use crate::tokenizer::Tokens;

/// What [`Model::encode_texts`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEmbeddings {
    /// Unit rows `[texts, dim]`.
    pub embeddings: Embeddings,
    /// How many texts were longer than the model's context and were cut.
    pub truncated: usize,
}

impl Model {
    /// Unit rows `[images, dim]`.
    ///
    /// # Errors
    /// Those of loading the image tower, at first use, and [`ClipError::PixelCount`].
    pub fn encode_images(&self, images: &[Pixels]) -> Result<Embeddings> {
        let rows = self.image()?.embeddings(&self.checked(images)?, self.dim())?;
        Ok(Embeddings::new(rows, self.dim()))
    }

    /// Seconds that each of `repeats` passes of these images takes, from pixels where the device reads them to embeddings there: what a
    /// benchmark compares.
    ///
    /// # Errors
    /// Those of [`Model::encode_images`].
    pub fn time_image_passes(&self, images: &[Pixels], repeats: usize) -> Result<Vec<f64>> {
        self.image()?.time_passes(&self.checked(images)?, self.dim(), repeats)
    }

    /// Unit rows `[texts, dim]`.
    ///
    /// # Errors
    /// Those of loading the text tower, at first use, and [`ClipError::Tokenize`].
    pub fn encode_texts<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<TextEmbeddings> {
        let (tokens, truncated) = self.token_ids(texts)?;
        let ids: Vec<&[u32]> = tokens.iter().map(|t| t.ids.as_slice()).collect();
        Ok(TextEmbeddings { embeddings: self.encode_token_ids(&ids)?, truncated })
    }

    /// Unit rows `[texts, dim]` of texts that were tokenized elsewhere, start and end tokens included, without padding.
    ///
    /// # Errors
    /// Those of loading the text tower, at first use, and [`ClipError::Tokens`].
    pub fn encode_token_ids(&self, texts: &[&[u32]]) -> Result<Embeddings> {
        let rows = self.checked_text(texts)?.embeddings(texts, &[], self.dim())?;
        Ok(Embeddings::new(rows, self.dim()))
    }

    /// Unit rows `[texts, dim]` of prompts whose first tokens are learned vectors instead of words, as CoOp (arXiv 2109.01134) has them:
    /// start token, `context`, the text, end token. `context` is `[tokens, width]`, in the space of token embeddings. A text that is
    /// too long is cut.
    ///
    /// # Errors
    /// [`ClipError::Context`] if the vectors do not fit the text tower; those of [`Model::encode_texts`].
    pub fn encode_texts_with_context<S: AsRef<str> + Sync>(
        &self,
        context: &[f32],
        width: usize,
        texts: &[S],
    ) -> Result<Embeddings> {
        let tokenizer = self.tokenizer()?;
        let ids = |text: &S| Ok(tokenizer.encode(text.as_ref())?.ids);
        self.with_context(context, width, texts.par_iter().map(ids).collect::<Result<_>>()?)
    }

    /// `texts` are token ids with start and end; the context is inserted after the start.
    fn with_context(&self, context: &[f32], width: usize, texts: Vec<Vec<u32>>) -> Result<Embeddings> {
        let text = self.text()?;
        let fail = |message: String| ClipError::Context { path: self.path.clone(), message };
        if !text.takes_context() {
            return Err(fail("this text tower takes no vectors instead of words; CLIP's does".to_owned()));
        }
        if width != text.width() || width == 0 || !context.len().is_multiple_of(width) {
            let expected = text.width();
            return Err(fail(format!(
                "{} values in vectors of {width}, expected vectors of {expected}",
                context.len()
            )));
        }
        let (tokens, longest) = (context.len() / width, self.context_length());
        // Start, end, and something to classify.
        if tokens + 3 > longest {
            return Err(fail(format!("{tokens} vectors leave no place for a label among {longest} tokens")));
        }
        let lengthen = |ids: Vec<u32>| {
            let (start, rest) = ids.split_at(1);
            // The ids in the vectors' places are not looked at; 0 is below the end token's, which is found as the largest.
            let mut ids = [start, &vec![0; tokens], rest].concat();
            if let Some(&end) = ids.last().filter(|_| ids.len() > longest) {
                ids.truncate(longest - 1);
                ids.push(end);
            }
            ids
        };
        let ids: Vec<Vec<u32>> = texts.into_iter().map(lengthen).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        Ok(Embeddings::new(text.embeddings(&ids, context, self.dim())?, self.dim()))
    }

    /// The image tower's features before the head, `[images, width]`: what heads are trained on.
    ///
    /// # Errors
    /// Those of loading the image tower, at first use, and [`ClipError::PixelCount`].
    pub fn image_features(&self, images: &[Pixels]) -> Result<Embeddings> {
        let (rows, width) = self.image()?.features(&self.checked(images)?)?;
        Ok(Embeddings::new(rows, width))
    }

    /// The images, if they are of the tower's size.
    fn checked<'p>(&self, images: &'p [Pixels]) -> Result<Vec<&'p Pixels>> {
        let preprocess = self.preprocess();
        if let Some(wrong) = images.iter().find(|image| !preprocess.expects(image)) {
            let side = preprocess.size() as usize;
            let found = wrong.as_slice().len();
            return Err(ClipError::PixelCount { found, expected: side * side * 3, side });
        }
        Ok(images.iter().collect())
    }

    /// The text tower's features before the head, `[texts, width]`, and how many texts were cut.
    ///
    /// # Errors
    /// Those of loading the text tower, at first use, and [`ClipError::Tokenize`].
    pub fn text_features<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<(Embeddings, usize)> {
        let (tokens, truncated) = self.token_ids(texts)?;
        let ids: Vec<&[u32]> = tokens.iter().map(|t| t.ids.as_slice()).collect();
        let text = self.checked_text(&ids)?;
        Ok((Embeddings::new(text.features(&ids)?, text.width()), truncated))
    }

    /// The texts' tokens, and how many texts were cut. The text tower is loaded beside.
    fn token_ids<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<(Vec<Tokens>, usize)> {
        let (tokenizer, tower) = rayon::join(|| self.tokenizer(), || self.text());
        let (tokenizer, _) = (tokenizer?, tower?);
        let tokens: Vec<Tokens> =
            texts.par_iter().map(|text| tokenizer.encode(text.as_ref())).collect::<Result<_>>()?;
        let truncated = tokens.iter().filter(|t| t.truncated).count();
        Ok((tokens, truncated))
    }

    /// The text tower, if it can take these tokens.
    fn checked_text(&self, texts: &[&[u32]]) -> Result<&dyn TextEncoder> {
        let text = self.text()?;
        let fail = |message: String| Err(ClipError::Tokens { path: self.path.clone(), message });
        let vocabulary = text.vocabulary();
        if let Some(id) = texts.iter().flat_map(|t| t.iter()).find(|&&id| id as usize >= vocabulary) {
            return fail(format!("token {id}, but the text tower knows {vocabulary} tokens only"));
        }
        let context = self.context_length();
        if let Some(wrong) = texts.iter().find(|t| !(1..=context).contains(&t.len())) {
            return fail(format!("a text of {} tokens, expected 1 to {context}", wrong.len()));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Checkpoint;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
    }

    #[test]
    fn vectors_of_real_words_give_the_very_bits_of_the_words() {
        let folder = fixture("clip/vit_gelu/open_clip");
        let model = Model::load(&folder).unwrap();
        let checkpoint = Checkpoint::open(folder.join("open_clip_model.safetensors")).unwrap();
        let shape = checkpoint.shape("token_embedding.weight").unwrap().to_vec();
        let (vocabulary, width) = (shape[0] as u32, shape[1]);
        let table = checkpoint.tensor("token_embedding.weight", &shape).unwrap();
        let (start, end) = (vocabulary - 2, vocabulary - 1);
        let context = [5usize, 9, 7].map(|id| &table[id * width..(id + 1) * width]).concat();
        let labels = [vec![start, 3, end], vec![start, 8, 2, 6, end]];
        let words: Vec<Vec<u32>> = labels.iter().map(|ids| [&[start, 5, 9, 7], &ids[1..]].concat()).collect();
        let words: Vec<&[u32]> = words.iter().map(Vec::as_slice).collect();
        let plain = model.encode_token_ids(&words).unwrap();
        let found = model.with_context(&context, width, labels.to_vec()).unwrap();
        assert_eq!(found, plain);
        let other: Vec<f32> = context.iter().map(|v| v + 0.1).collect();
        assert_ne!(model.with_context(&other, width, labels.to_vec()).unwrap(), plain);
        // Without vectors it is the plain prompt.
        let labels: Vec<&[u32]> = labels.iter().map(Vec::as_slice).collect();
        let owned = labels.iter().map(|ids| ids.to_vec()).collect();
        assert_eq!(model.with_context(&[], width, owned).unwrap(), model.encode_token_ids(&labels).unwrap());
    }

    #[test]
    fn vectors_that_do_not_fit_are_refused() {
        let model = Model::load(fixture("clip/vit_gelu/open_clip")).unwrap();
        let width = model.text().unwrap().width();
        let error = |context: &[f32], width| {
            model.with_context(context, width, vec![vec![94, 1, 95]]).unwrap_err().to_string()
        };
        assert!(error(&[0.0; 6], 3).contains("expected vectors of"));
        assert!(error(&vec![0.0; 75 * width], width).contains("leave no place"));
        let lite = Model::load(fixture("tiny")).unwrap();
        let width = lite.text().unwrap().width();
        let refused = lite.encode_texts_with_context(&vec![0.0; width], width, &["cat"]).unwrap_err();
        assert!(refused.to_string().contains("takes no vectors"), "{refused}");
    }
}
