//! Sources against files of independent writers, and images read back from them.
