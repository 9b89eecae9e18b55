//! Folders of embeddings: aligned, misaligned, damaged.
