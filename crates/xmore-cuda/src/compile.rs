//! Kernel sources to machine code, by NVRTC. This needs the compiler's library and no card.

use std::ffi::CString;

use cudarc::nvrtc::{result, sys};

use crate::error::{CudaError, Result};
use crate::kernels::Source;
use crate::libraries::open_compiler;

/// Machine code (a cubin) of a source for an architecture such as `sm_90a`; `defines` are `NAME=VALUE`.
///
/// # Errors
/// [`CudaError::NoLibrary`] without NVRTC; [`CudaError::Compile`] with the compiler's log.
pub fn compile(source: Source, target: &str, defines: &[(&str, i64)]) -> Result<Vec<u8>> {
    open_compiler()?;
    let fail =
        |log: String| CudaError::Compile { source_name: source.name(), target: target.to_owned(), log };
    let text = CString::new(source.text()).map_err(|_| fail("the source holds a zero byte".to_owned()))?;
    let name = CString::new(format!("{}.cu", source.name()))
        .map_err(|_| fail("the name holds a zero byte".to_owned()))?;
    let mut options = vec![
        format!("--gpu-architecture={target}"),
        "--std=c++17".to_owned(),
        // Generic lambdas need it before CUDA 13.1.
        "--device-as-default-execution-space".to_owned(),
    ];
    options.extend(defines.iter().map(|(name, value)| format!("--define-macro={name}={value}")));
    let program =
        result::create_program(&text, Some(&name)).map_err(|error| fail(format!("{:?}", error.0)))?;
    let compiled = compiled(program, &options).map_err(fail);
    // SAFETY: the program was made above and is not used again.
    #[allow(unsafe_code)]
    let _ = unsafe { result::destroy_program(program) };
    compiled
}

fn compiled(program: sys::nvrtcProgram, options: &[String]) -> std::result::Result<Vec<u8>, String> {
    // SAFETY: `program` is one that NVRTC gave and still has; buffers are as long as it says.
    #[allow(unsafe_code)]
    unsafe {
        if let Err(error) = result::compile_program(program, options) {
            let log = result::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.iter().map(|&c| c as u8).filter(|&c| c != 0).collect();
            return Err(format!("{:?}: {}", error.0, String::from_utf8_lossy(&log).trim()));
        }
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program, &mut size).result().map_err(|error| format!("{:?}", error.0))?;
        let mut code = vec![0u8; size];
        sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast())
            .result()
            .map_err(|error| format!("{:?}", error.0))?;
        Ok(code)
    }
}
