//! The CUDA libraries, opened by path before the bindings ask for them by name.
//!
//! `cudarc` opens libraries by their names and panics where that fails; a library that is already open is found by its name wherever it lies. So
//! each is opened here first, and one that is missing is an error.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

use crate::error::{CudaError, Result};

/// Major versions of the CUDA toolkit whose libraries are used, the preferred one first.
const MAJORS: [u32; 2] = [13, 12];

/// Opens NVRTC and cuBLASLt, once.
pub(crate) fn open_toolkit() -> Result<()> {
    static OPENED: OnceLock<Result<()>> = OnceLock::new();
    OPENED
        .get_or_init(|| ["libnvrtc", "libcublasLt"].into_iter().try_for_each(|name| open(name).map(keep)))
        .clone()
}

/// Opens NVRTC alone, once: what compiling needs, on a machine without a card too.
pub(crate) fn open_compiler() -> Result<()> {
    static OPENED: OnceLock<Result<()>> = OnceLock::new();
    OPENED.get_or_init(|| open("libnvrtc").map(keep)).clone()
}

/// Opens a library of the toolkit, such as `libnvjpeg`, from the first place that has it.
pub(crate) fn open(library: &'static str) -> Result<Library> {
    let folders = folders();
    for major in MAJORS {
        let file = format!("{library}.so.{major}");
        let paths = folders.iter().map(|folder| folder.join(&file)).filter(|path| path.is_file());
        for name in paths.chain([PathBuf::from(&file)]) {
            open_beside(&name, library);
            // SAFETY: NVIDIA's libraries run no code at opening that a program must prepare for.
            #[allow(unsafe_code)]
            if let Ok(library) = unsafe { Library::new(&name) } {
                return Ok(library);
            }
        }
    }
    Err(CudaError::NoLibrary { library, searched: folders })
}

/// Opens what a library in a folder opens itself by name alone: NVRTC's `libnvrtc-builtins`, which the system does not find in a Python package.
fn open_beside(path: &Path, library: &str) {
    let beside = format!("{library}-builtins.so");
    let Some(Ok(entries)) =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(std::fs::read_dir)
    else {
        return;
    };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&beside)) {
        // SAFETY: as of the library itself.
        #[allow(unsafe_code)]
        if let Ok(opened) = unsafe { Library::new(entry.path()) } {
            keep(opened);
        }
    }
}

/// Open until the process ends, so that its name finds it.
fn keep(library: Library) {
    std::mem::forget(library);
}

/// Folders that may hold the toolkit's libraries: named ones, the system's, those of Python environments.
fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |folder: PathBuf| {
        if folder.is_dir() && !found.contains(&folder) {
            found.push(folder);
        }
    };
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(root) = std::env::var_os(variable) {
            add(Path::new(&root).join("lib64"));
        }
    }
    for root in ["/usr/local/cuda", "/usr/local/cuda-13", "/usr/local/cuda-12", "/opt/cuda"] {
        add(Path::new(root).join("lib64"));
    }
    for packages in python_packages() {
        // CUDA 13's wheels share a folder; CUDA 12's have one each.
        for part in ["cu13", "cuda_nvrtc", "cublas", "nvjpeg", "cuda_runtime"] {
            add(packages.join("nvidia").join(part).join("lib"));
        }
    }
    found
}

/// The `site-packages` of the Python environment in use: the active one, and that of `python3` on the path.
fn python_packages() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(std::env::var_os).map(PathBuf::from).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let python =
        std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|python| python.is_file());
    roots.extend(python.and_then(|python| Some(python.parent()?.parent()?.to_owned())));
    let mut packages: Vec<PathBuf> = std::env::var_os("PYTHONPATH")
        .map(|paths| std::env::split_paths(&paths).collect())
        .unwrap_or_default();
    for root in roots {
        let Ok(entries) = std::fs::read_dir(root.join("lib")) else { continue };
        let pythons = entries.flatten().map(|entry| entry.path());
        for python in pythons
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
        {
            packages.extend([python.join("site-packages"), python.join("dist-packages")]);
        }
    }
    packages
}
