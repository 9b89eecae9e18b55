//! Pairs that may be away, and what to do then.

use std::sync::Arc;

use xmore_clip::DeviceChoice;
use xmore_memory::MemoryError;
use xmore_memory::retriever::RemoteOptions;

use crate::error::Result;
use crate::retrieve::OpenPairs;

/// What to do while a remote index cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfUnreachable {
    /// End with an error.
    #[default]
    Fail,
    /// Classify by the image alone.
    ZeroShot,
}

/// Pairs that were asked for, or why they are done without.
pub struct Opened {
    /// The pairs.
    pub pairs: Option<Arc<OpenPairs>>,
    /// Why there are none, where [`IfUnreachable::ZeroShot`] allows it.
    pub unreachable: Option<MemoryError>,
}

impl Opened {
    /// Opens a memory's folder, to be searched on a device, or a remote index by its URL.
    ///
    /// # Errors
    /// Those of [`OpenPairs::open`] and [`OpenPairs::search_on`].
    pub fn open(
        location: &str,
        options: &RemoteOptions,
        device: DeviceChoice,
        if_unreachable: IfUnreachable,
    ) -> Result<Self> {
        match OpenPairs::open(location, options) {
            Ok(pairs) => Ok(Self { pairs: Some(Arc::new(pairs.search_on(device)?)), unreachable: None }),
            Err(error) if error.is_unreachable() && if_unreachable == IfUnreachable::ZeroShot => {
                Ok(Self { pairs: None, unreachable: Some(error) })
            }
            Err(error) => Err(error.into()),
        }
    }
}
