//! Every kernel compiles, for every element and several architectures: this needs the compiler's library (pip: `nvidia-cuda-nvrtc`), not a card.

use xmore_cuda::{CudaError, Element, Source, compile};

/// Ampere, and Hopper with its own instructions.
const TARGETS: [&str; 2] = ["sm_80", "sm_90a"];

#[test]
fn every_kernel_compiles_for_every_element() {
    for source in Source::ALL {
        for element in [Element::F32, Element::F16, Element::Bf16] {
            for target in TARGETS {
                for defines in source.variants(element) {
                    match compile(source, target, &defines) {
                        Ok(code) => assert!(code.len() > 1000, "{} for {target}", source.name()),
                        Err(CudaError::NoLibrary { library, searched }) => {
                            assert!(
                                std::env::var_os("XMORE_REQUIRE_NVRTC").is_none(),
                                "{library} is not in {searched:?}"
                            );
                            println!("SKIPPED: {library} is not installed, so no kernel was compiled");
                            return;
                        }
                        Err(error) => panic!("{defines:?}: {error}"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_source_that_does_not_compile_is_an_error_with_the_log() {
    match compile(Source::Rows, "sm_80", &[("MAX_VECTORS", -1)]) {
        Err(CudaError::Compile { source_name, log, .. }) => {
            assert_eq!(source_name, "rows");
            assert!(log.contains("error"), "{log}");
        }
        Err(CudaError::NoLibrary { .. }) => println!("SKIPPED: NVRTC is not installed"),
        other => panic!("{other:?}"),
    }
}
