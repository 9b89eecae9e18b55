//! What a user can do about an error of the libraries, which name no flags and no commands: a function for each crate's errors.

use xmore::XmoreError;
use xmore_clip::ClipError;
use xmore_eval::EvalError;
use xmore_files::image::ImageError;
use xmore_hub::ModelError;
use xmore_memory::MemoryError;
use xmore_server::ServerError;

use crate::error::CliError;
use crate::messages::tell;

/// What the user can do about an error, if a flag, a command or another program helps.
pub(crate) fn hint(error: &CliError) -> Option<String> {
    match error {
        CliError::Xmore(error) => of_xmore(error),
        CliError::Clip(error) => of_clip(error),
        CliError::Memory(error) => of_memory(error),
        CliError::Model(error) => of_model(error),
        CliError::Eval(error) => of_eval(error),
        CliError::Server(error) => of_server(error),
        _ => None,
    }
}

fn of_xmore(error: &XmoreError) -> Option<String> {
    match error {
        XmoreError::Clip(error) => of_clip(error),
        XmoreError::Memory(error) => of_memory(error),
        XmoreError::Model(error) => of_model(error),
        _ => None,
    }
}

fn of_clip(error: &ClipError) -> Option<String> {
    match error {
        ClipError::Image { source: ImageError::NotRead { format }, .. } => {
            Some(format!("convert {format} images to JPEG or PNG first"))
        }
        ClipError::Image { source: ImageError::TooMuchMemory { .. }, .. } => {
            Some("--decode-memory SIZE allows more memory for decoding".to_owned())
        }
        _ => None,
    }
}

fn of_memory(error: &MemoryError) -> Option<String> {
    match error {
        MemoryError::MissingColumn { .. } | MemoryError::UnusableColumn { .. } => {
            Some("name the columns with --image-column and --caption-column".to_owned())
        }
        _ => None,
    }
}

fn of_model(_: &ModelError) -> Option<String> {
    None
}

fn of_eval(error: &EvalError) -> Option<String> {
    match error {
        EvalError::MissingColumn { .. } => {
            Some("name the columns with --image-column and --label-column".to_owned())
        }
        _ => None,
    }
}

fn of_server(_: &ServerError) -> Option<String> {
    None
}

/// Hints about the errors of many images, each once.
#[derive(Default)]
pub(crate) struct Hints(Vec<String>);

impl Hints {
    /// Adds what can be done about an error.
    pub(crate) fn collect(&mut self, error: &XmoreError) {
        if let Some(hint) = of_xmore(error)
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
