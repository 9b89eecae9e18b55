//! The kernels: CUDA C++ sources, a row of [`Source`] for each, and compiled functions.
//!
//! Sources use no header of the toolkit, so that a machine with the compiler's library alone can compile them. `prelude.cu` stands before each:
//! element types and their conversions, chosen by the macro `ELEMENT` ([`Element`]).

use std::ffi::CString;

use cudarc::driver::{result, sys};

use crate::error::{Result, driver};

/// A source file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Attention by tensor cores, of 16-bit elements.
    Attention,
    /// The same by Hopper's warpgroup products, for heads of 64.
    AttentionHopper,
    /// Attention in 32-bit floats.
    AttentionF32,
    /// Convolutions and pooling of channels-last images.
    Convolution,
    /// From images and token ids to rows of tokens.
    Embed,
    /// Whether decoded images were written.
    Jpeg,
    /// Resampling of 8-bit images.
    Resize,
    /// Layer norms, activations, quantization to 8 bits, and other work on rows.
    Rows,
    /// Exact search: inner products with stored rows, of which the best are kept.
    Search,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Attention,
        Self::AttentionHopper,
        Self::AttentionF32,
        Self::Convolution,
        Self::Embed,
        Self::Jpeg,
        Self::Resize,
        Self::Rows,
        Self::Search,
    ];

    /// Its file name without the ending.
    pub fn name(self) -> &'static str {
        self.parts().0
    }

    /// The whole text: the prelude and the file.
    pub fn text(self) -> String {
        [include_str!("prelude.cu"), self.parts().1].concat()
    }

    /// The macros of each variant that is used with an element: what the kernels are compiled with in tests. Empty where an element has none.
    pub fn variants(self, element: Element) -> Vec<Vec<(&'static str, i64)>> {
        let code = ("ELEMENT", element.code());
        match self {
            Self::Attention | Self::AttentionHopper if element == Element::F32 => Vec::new(),
            Self::Attention => [32, 64, 80, 96, 112, 128].map(|head| vec![code, ("HEAD", head)]).to_vec(),
            Self::Rows => (0..2)
                .flat_map(|q| {
                    [1, 3, 4, 8]
                        .map(|n| vec![code, ("MAX_VECTORS", n), ("QUANTIZE", q), ("ACTIVATION", n % 5)])
                })
                .collect(),
            // Stored rows are f16, whatever the encoder computes with.
            Self::Search if element != Element::F16 => Vec::new(),
            Self::Search => {
                let few = [1, 2, 4, 8].into_iter().flat_map(|queries| {
                    [128, 384, 512, 768].map(|width| vec![("QUERIES", queries), ("WIDTH", width)])
                });
                let many = [64, 128].map(|tile| vec![("TILE", tile)]);
                let hopper = [64, 128, 256].map(|tile| vec![("HOPPER", tile)]);
                few.chain(many).chain(hopper).chain([Vec::new()]).collect()
            }
            Self::AttentionF32 | Self::AttentionHopper | Self::Convolution | Self::Embed => vec![vec![code]],
            // Kernels of bytes are the same for every element.
            Self::Jpeg | Self::Resize if element == Element::F32 => vec![Vec::new()],
            Self::Jpeg | Self::Resize => Vec::new(),
        }
    }

    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Attention => ("attention", include_str!("attention.cu")),
            Self::AttentionHopper => ("attention_hopper", include_str!("attention_hopper.cu")),
            Self::AttentionF32 => ("attention_f32", include_str!("attention_f32.cu")),
            Self::Convolution => ("convolution", include_str!("convolution.cu")),
            Self::Embed => ("embed", include_str!("embed.cu")),
            Self::Jpeg => ("jpeg", include_str!("jpeg.cu")),
            Self::Resize => ("resize", include_str!("resize.cu")),
            Self::Rows => ("rows", include_str!("rows.cu")),
            Self::Search => ("search", include_str!("search.cu")),
        }
    }
}

/// Type of the elements that a kernel reads and writes; it computes in 32-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Element {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Value of the macro `ELEMENT`.
    pub fn code(self) -> i64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
        }
    }

    /// Values in this type, as bytes.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        }
    }
}

/// A compiled kernel. It stays loaded until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    raw: sys::CUfunction,
}

// SAFETY: a function handle may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Kernel {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Loads a function of a cubin into the current context.
    pub(crate) fn load(code: &[u8], name: &str) -> Result<Self> {
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: `code` is a whole cubin, which the driver copies; the module is never unloaded.
        #[allow(unsafe_code)]
        unsafe {
            let module =
                result::module::load_data(code.as_ptr().cast()).map_err(driver("cuModuleLoadData"))?;
            let raw = result::module::get_function(module, name).map_err(driver("cuModuleGetFunction"))?;
            Ok(Self { raw })
        }
    }

    pub(crate) fn raw(&self) -> sys::CUfunction {
        self.raw
    }

    /// Lets it be launched with so much dynamic shared memory; up to 48 KiB need no permission.
    pub(crate) fn allow_shared(&self, bytes: usize) -> Result<()> {
        if bytes <= 48 << 10 {
            return Ok(());
        }
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function stays loaded.
        #[allow(unsafe_code)]
        unsafe {
            result::function::set_function_attribute(
                self.raw,
                attribute,
                i32::try_from(bytes).unwrap_or(i32::MAX),
            )
        }
        .map_err(driver("cuFuncSetAttribute"))
    }
}
