//! What a user can do about an error of the libraries, which name no flags.

use xmore::XmoreError;
use xmore_clip::ClipError;
use xmore_files::image::ImageError;

use crate::messages::tell;

/// Ways out of the errors of many images, each once.
#[derive(Default)]
pub(crate) struct Hints(Vec<String>);

impl Hints {
    /// Adds the way out of an error, if a flag or another program gives one.
    pub(crate) fn collect(&mut self, error: &XmoreError) {
        if let Some(hint) = hint(error)
            && !self.0.contains(&hint)
        {
            self.0.push(hint);
        }
    }

    /// Tells them.
    pub(crate) fn tell(&self) {
        for hint in &self.0 {
            tell!("hint: {hint}");
        }
    }
}

fn hint(error: &XmoreError) -> Option<String> {
    let XmoreError::Clip(ClipError::Image { source, .. }) = error else { return None };
    match source {
        ImageError::NotRead { format } => Some(format!("convert {format} images to JPEG or PNG first")),
        ImageError::TooMuchMemory { .. } => {
            Some("--decode-memory SIZE allows more memory for decoding".to_owned())
        }
        _ => None,
    }
}
