//! What a user can do about an error, and the exit status. The libraries name no flags and no commands: here is a function for each
//! crate's errors.

use std::io::ErrorKind;

use xmore::{LabelError, RetrievalError, XmoreError};
use xmore_clip::ClipError;
use xmore_eval::EvalError;
use xmore_files::image::ImageError;
use xmore_hub::ModelError;
use xmore_memory::MemoryError;
use xmore_server::ServerError;

use crate::error::CliError;
use crate::interrupt;
use crate::messages::tell;

/// Exit status of a command that could not do its work.
const FAILED: u8 = 1;
/// Exit status of wrong flags, as clap has it.
const USAGE: u8 = 2;
/// Exit status of a command that could read none of its things, or failed on more than is allowed.
const NOT_ENOUGH: u8 = 3;

impl CliError {
    /// Tells the user what happened and what can be done about it; returns the exit status of the command.
    pub(crate) fn report(&self) -> u8 {
        match self {
            // The reader of standard output has all that it wants (`| head`).
            Self::Stdout { reason } if reason.kind() == ErrorKind::BrokenPipe => return 0,
            Self::Interrupted(_) => tell!("{self}"),
            _ => {
                tell!("error: {self}");
                if let Some(hint) = hint(self) {
                    tell!("hint: {hint}");
                }
            }
        }
        self.exit_status()
    }

    fn exit_status(&self) -> u8 {
        match self {
            Self::Interrupted(_) => interrupt::exit_status(),
            Self::NotEnough(_) => NOT_ENOUGH,
            Self::Usage(_)
            | Self::Server(
                ServerError::OpenToOthers { .. } | ServerError::WeakKey | ServerError::Origin { .. },
            )
            | Self::Xmore(
                XmoreError::MethodNeedsMemory { .. } | XmoreError::Memory(MemoryError::Location { .. }),
            )
            | Self::Memory(MemoryError::Location { .. }) => USAGE,
            _ => FAILED,
        }
    }
}

/// What the user can do about an error, if a flag, a command or another program helps.
fn hint(error: &CliError) -> Option<String> {
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
        XmoreError::Label(LabelError::Column { wanted: None, .. }) => {
            Some("name the column with --labels-column".to_owned())
        }
        XmoreError::Retrieval(error) => of_retrieval(error),
        XmoreError::MethodNeedsMemory { .. } => Some("give --memory, or use --method zero-shot".to_owned()),
        XmoreError::NotThisModel { .. } => Some("name the model that made them with --model".to_owned()),
        _ => None,
    }
}

fn of_retrieval(error: &RetrievalError) -> Option<String> {
    let hint = match error {
        RetrievalError::NoCaptionsAsked => "--method zero-shot needs no captions",
        RetrievalError::TooFewNeighbors { k, .. } => {
            return Some(format!("raise --neighbors to {k} or more"));
        }
        RetrievalError::EmptyMemory { .. } => "build it from a source with images and captions",
        RetrievalError::ModelMismatch { remote: false, .. } => {
            "name the memory's model with --model, or add this one's embeddings with `xmore memory embed`"
        }
        RetrievalError::ModelMismatch { remote: true, .. } => {
            "name the index's model with --model, or fill an index of this one's with `xmore memory upload`"
        }
        RetrievalError::KernelNeedsOneModel { .. } => "leave --search-model out, or use --method xmore",
        _ => return None,
    };
    Some(hint.to_owned())
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
