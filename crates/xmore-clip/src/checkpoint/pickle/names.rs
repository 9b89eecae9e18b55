//! The names that a checkpoint's pickle may call.
//!
//! A pickle says "call `module.name` with these arguments". Nothing here is ever called, so no entry of this list can do harm; the
//! list exists because a file that wants to call something else is either not a checkpoint or an attack, and its user should hear of
//! that. It covers what state dicts hold, and what training files of open_clip, PyTorch Lightning and plain loops keep
//! beside them (optimizer, scaler, arguments, random states, metrics). A name that is only mentioned and not called, such as a
//! dtype or a callback's class used as a key, is data whatever it is.

/// `module.{name,name}` groups of what may be called.
const ALLOWED: &[(&str, &[&str])] = &[
    // Containers and plain values of Python; Python 2 and protocol 2 say `__builtin__`.
    ("collections", &["OrderedDict", "defaultdict", "Counter", "deque"]),
    ("builtins", BUILTINS),
    ("__builtin__", BUILTINS),
    ("_codecs", &["encode"]),
    ("copyreg", &["_reconstructor"]),
    ("copy_reg", &["_reconstructor"]),
    ("argparse", &["Namespace"]),
    ("types", &["SimpleNamespace"]),
    ("pathlib", PATHS),
    ("pathlib._local", PATHS),
    ("datetime", &["datetime", "date", "time", "timedelta", "timezone"]),
    // Scalars, arrays and random states of NumPy; `core` became `_core` in NumPy 2.
    ("numpy", &["dtype", "ndarray"]),
    ("numpy.core.multiarray", &["scalar", "_reconstruct"]),
    ("numpy._core.multiarray", &["scalar", "_reconstruct"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("numpy.random._pickle", &["__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"]),
    // PyTorch's tensors and what accompanies them.
    ("torch", &["Size", "device", "Tensor"]),
    ("torch.nn.parameter", &["Parameter", "Buffer"]),
    ("torch.torch_version", &["TorchVersion"]),
    ("torch.serialization", &["_get_layout"]),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    (
        "torch._utils",
        &[
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_qtensor",
            "_rebuild_sparse_tensor",
            "_rebuild_meta_tensor_no_storage",
        ],
    ),
    ("torch.amp.grad_scaler", &["GradScaler"]),
    ("torch.cuda.amp.grad_scaler", &["GradScaler"]),
    // Optimizers and learning rate schedulers that are kept whole beside a state dict: Dassl's warm-up, which CoOp and its successors use,
    // has the scheduler that follows it, and that one its optimizer.
    ("torch.optim", &["Adafactor", "Muon"]),
    ("torch.optim.adadelta", &["Adadelta"]),
    ("torch.optim.adagrad", &["Adagrad"]),
    ("torch.optim.adam", &["Adam"]),
    ("torch.optim.adamax", &["Adamax"]),
    ("torch.optim.adamw", &["AdamW"]),
    ("torch.optim.asgd", &["ASGD"]),
    ("torch.optim.lbfgs", &["LBFGS"]),
    ("torch.optim.nadam", &["NAdam"]),
    ("torch.optim.radam", &["RAdam"]),
    ("torch.optim.rmsprop", &["RMSprop"]),
    ("torch.optim.rprop", &["Rprop"]),
    ("torch.optim.sgd", &["SGD"]),
    ("torch.optim.sparse_adam", &["SparseAdam"]),
    (
        "torch.optim.lr_scheduler",
        &[
            "ChainedScheduler",
            "ConstantLR",
            "CosineAnnealingLR",
            "CosineAnnealingWarmRestarts",
            "ExponentialLR",
            "LambdaLR",
            "LinearLR",
            "MultiStepLR",
            "MultiplicativeLR",
            "PolynomialLR",
            "ReduceLROnPlateau",
            "SequentialLR",
            "StepLR",
        ],
    ),
    ("dassl.optim.lr_scheduler", &["ConstantWarmupScheduler", "LinearWarmupScheduler"]),
    ("dassl.optim.radam", &["AdamW", "PlainRAdam", "RAdam"]),
    (
        "torch.jit._pickle",
        &[
            "build_intlist",
            "build_doublelist",
            "build_boollist",
            "build_tensorlist",
            "build_complexlist",
            "restore_type_tag",
        ],
    ),
    // Configurations that training frameworks put into their files.
    ("pytorch_lightning.utilities.parsing", &["AttributeDict"]),
    ("lightning.pytorch.utilities.parsing", &["AttributeDict"]),
    ("lightning_fabric.utilities.data", &["AttributeDict"]),
    ("lightning.fabric.utilities.data", &["AttributeDict"]),
    ("omegaconf.dictconfig", &["DictConfig"]),
    ("omegaconf.listconfig", &["ListConfig"]),
    ("omegaconf.base", &["ContainerMetadata", "Metadata"]),
    ("omegaconf.nodes", &["AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode"]),
    ("easydict", &["EasyDict"]),
    ("yacs.config", &["CfgNode"]),
];

const BUILTINS: &[&str] = &[
    "dict",
    "list",
    "tuple",
    "set",
    "frozenset",
    "int",
    "float",
    "complex",
    "bool",
    "str",
    "unicode",
    "bytes",
    "bytearray",
    "slice",
    "range",
    "object",
];

const PATHS: &[&str] = &["Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"];

/// Classes of a TorchScript archive live under this module; their code is in the archive and is not read.
const TORCHSCRIPT: &str = "__torch__.";

/// Callables that make a dictionary, filled afterwards or from their last argument.
pub(super) fn makes_dict(name: &str) -> bool {
    matches!(
        name,
        "collections.OrderedDict"
            | "collections.defaultdict"
            | "collections.Counter"
            | "builtins.dict"
            | "__builtin__.dict"
    )
}

/// An error if a checkpoint has no business calling `name`.
pub(super) fn allowed(name: &str) -> Result<(), String> {
    let listed = || {
        let (module, name) = name.rsplit_once('.')?;
        ALLOWED.iter().find(|(m, names)| *m == module && names.contains(&name))
    };
    if name.starts_with(TORCHSCRIPT) || listed().is_some() {
        return Ok(());
    }
    Err(format!(
        "it would call `{name}`, which no state dict needs; refused, nothing was executed. If it is your own file, save the \
         model's `state_dict()` alone, best as safetensors"
    ))
}
