//! A memory on this machine as a retriever: exact search, stored caption embeddings.

use std::borrow::Cow;

use super::{Neighbor, Neighbors, Retriever, check_queries};
use crate::error::Result;
use crate::store::{Memory, ModelIdentity};

impl Retriever for Memory {
    fn location(&self) -> Cow<'_, str> {
        self.dir().to_string_lossy()
    }

    fn pairs(&self) -> Result<Option<u64>> {
        Ok(Some(self.len()))
    }

    fn identity(&self) -> Option<&ModelIdentity> {
        Some(&self.manifest().model)
    }

    fn nearest_images(&self, queries: &[f32], dim: usize, n: usize) -> Result<Vec<Neighbors>> {
        check_queries(queries, dim, self.identity())?;
        let found = self.search_images(queries, n)?;
        found
            .into_iter()
            .map(|hits| {
                let neighbors = hits.into_iter().map(|hit| {
                    let mut embedding = vec![0.0; dim];
                    self.text_embedding(hit.id, &mut embedding)?;
                    Ok(Neighbor {
                        id: hit.id,
                        similarity: hit.similarity,
                        caption: self.caption(hit.id)?.to_owned(),
                        image_path: self.image_path(hit.id)?.to_owned(),
                        text_embedding: Some(embedding),
                    })
                });
                Ok(Neighbors { pairs: neighbors.collect::<Result<_>>()?, ..Neighbors::default() })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MemoryError;
    use crate::search::VectorError;
    use crate::store::MemoryWriter;

    #[test]
    fn a_memory_answers_with_captions_paths_and_caption_embeddings() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelIdentity::new("m", "00", 2);
        let mut writer = MemoryWriter::create(dir.path(), model.clone()).unwrap();
        writer.push("a.jpg", "an a", &[1.0, 0.0], &[0.0, 1.0]).unwrap();
        writer.push("b.jpg", "a b", &[0.0, 1.0], &[1.0, 0.0]).unwrap();
        writer.finish().unwrap();
        let memory = Memory::open(dir.path()).unwrap();
        let retriever: &dyn Retriever = &memory;

        assert_eq!(retriever.location(), dir.path().to_string_lossy());
        assert_eq!((retriever.pairs().unwrap(), retriever.identity()), (Some(2), Some(&model)));
        let answers = retriever.nearest_images(&[0.0, 1.0, 1.0, 0.0], 2, 5).unwrap();
        let b = Neighbor {
            id: 1,
            similarity: 1.0,
            caption: "a b".into(),
            image_path: "b.jpg".into(),
            text_embedding: Some(vec![1.0, 0.0]),
        };
        assert_eq!(answers[0].pairs[0], b);
        assert_eq!(answers[1].pairs.iter().map(|n| n.id).collect::<Vec<_>>(), [0, 1]);
        // A memory of two pairs has no third: nothing is missing.
        assert_eq!((answers[0].missing, &answers[0].note), (0, &None));
        assert!(matches!(
            retriever.nearest_images(&[0.0; 4], 4, 1),
            Err(MemoryError::Vector(VectorError::Length { .. }))
        ));
    }
}
