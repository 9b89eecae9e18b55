//! Matrix products by cuBLASLt: y = x Wᵀ + b, by the algorithm that was fastest when a shape was first met.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::{result, sys};

use crate::buffer::Buffer;
use crate::error::{CudaError, Result};
use crate::stream::{Event, Stream};

/// Memory that algorithms may use, on each stream.
pub(crate) const WORKSPACE: usize = 64 << 20;
/// Algorithms that are tried for a shape.
const CANDIDATES: usize = 16;
/// `CUBLAS_OP_T`, which the bindings of cuBLASLt leave out.
const CUBLAS_OP_T: i32 = 1;
/// Runs of each, of which the fastest counts.
const RUNS: usize = 4;

/// Floating-point operations of a timing, and the most products in it.
const RUN_FLOPS: f64 = 1e11;
const MAX_IN_A_ROW: f64 = 20.0;

/// Type of a matrix' elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats, multiplied as such: TF32 is off.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit floats of 4 exponent and 3 fraction bits, with a scale for each row.
    E4m3,
}

impl Format {
    fn cuda(self) -> sys::cudaDataType {
        match self {
            Self::F32 => sys::cudaDataType::CUDA_R_32F,
            Self::F16 => sys::cudaDataType::CUDA_R_16F,
            Self::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            Self::E4m3 => sys::cudaDataType::CUDA_R_8F_E4M3,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::E4m3 => 1,
        }
    }
}

/// Where a matrix is on the card, row after row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Its first element.
    pub pointer: u64,
    /// Elements between the starts of rows.
    pub stride: usize,
}

/// Scales of the rows of x, `[m]`, and of W, `[n]`, in f32: with 8-bit elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scales {
    /// Of x.
    pub x: u64,
    /// Of W.
    pub weight: u64,
}

/// Whether a product replaces its result or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Add {
    /// out = x Wᵀ + b.
    No,
    /// out += x Wᵀ + b.
    Yes,
}

/// out = x Wᵀ + b, with x `[m, k]`, W `[n, k]`, out `[m, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of x.
    pub m: usize,
    /// Rows of W.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// Elements of x and W.
    pub input: Format,
    /// Elements of out and b.
    pub output: Format,
    /// x.
    pub x: Operand,
    /// W.
    pub weight: Operand,
    /// Scales, with [`Format::E4m3`].
    pub scales: Option<Scales>,
    /// b, `[n]`; 0 for none.
    pub bias: u64,
    /// out.
    pub out: Operand,
    /// Whether it is added.
    pub add: Add,
    /// Whether cuBLASLt's algorithms are tried at the first product of this shape, and the fastest kept; else its first choice is used.
    pub tune: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    m: usize,
    n: usize,
    k: usize,
    input: Format,
    output: Format,
    strides: [usize; 3],
    bias: bool,
    add: Add,
    tune: bool,
}

/// The library's handle and the algorithms that were chosen.
pub(crate) struct Products {
    handle: sys::cublasLtHandle_t,
    plans: Mutex<HashMap<Key, Plan>>,
}

// SAFETY: cuBLASLt's handle may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Products {}
// SAFETY: plans are changed under the lock only.
#[allow(unsafe_code)]
unsafe impl Sync for Products {}

/// Descriptions of a product and its algorithm; kept until the process ends.
#[derive(Clone, Copy)]
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    x: sys::cublasLtMatrixLayout_t,
    weight: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Products {
    pub(crate) fn new() -> Result<Self> {
        let handle = result::create_handle()
            .map_err(|error| CudaError::call("cublasLtCreate", format!("{:?}", error.0)))?;
        Ok(Self { handle, plans: Mutex::default() })
    }

    /// Queues a product.
    #[allow(unsafe_code)]
    unsafe fn run(&self, stream: &Stream, product: &Product) -> Result<()> {
        let key = Key {
            m: product.m,
            n: product.n,
            k: product.k,
            input: product.input,
            output: product.output,
            strides: [product.x.stride, product.weight.stride, product.out.stride],
            bias: product.bias != 0,
            add: product.add,
            tune: product.tune,
        };
        // Allocated before cuBLASLt needs it, so that a lack of memory is an error of its own.
        stream.workspace()?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.get(&key) {
            Some(plan) => *plan,
            None => {
                // SAFETY: the caller's promise for the product.
                let plan = unsafe { self.plan(stream, product) }?;
                plans.insert(key, plan);
                plan
            }
        };
        // SAFETY: as above; the lock keeps others from the description until the call has read it.
        unsafe {
            plan.point(product).map_err(|status| failed(product, status))?;
            self.multiply(stream, product, &plan, product.out.pointer)
                .map_err(|status| failed(product, status))
        }
    }

    #[allow(unsafe_code)]
    unsafe fn multiply(
        &self,
        stream: &Stream,
        product: &Product,
        plan: &Plan,
        out: u64,
    ) -> std::result::Result<(), sys::cublasStatus_t> {
        let (alpha, beta) = (1.0f32, if product.add == Add::Yes { 1.0f32 } else { 0.0 });
        let workspace = stream.workspace().map_err(|_| sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED)?;
        // SAFETY: cuBLAS is column-major: it computes outᵀ = W xᵀ, with W as it lies transposed. Layouts are those of the plan.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                product.weight.pointer as *const c_void,
                plan.weight,
                product.x.pointer as *const c_void,
                plan.x,
                out as *const c_void,
                plan.out,
                out as *mut c_void,
                plan.out,
                &raw const plan.algorithm,
                workspace.pointer() as *mut c_void,
                workspace.bytes(),
                stream.raw().cast(),
            )
        }
        .map_err(|error| error.0)
    }

    /// Describes a product and finds its fastest algorithm, with a result of its own.
    #[allow(unsafe_code)]
    unsafe fn plan(&self, stream: &Stream, product: &Product) -> Result<Plan> {
        let fail = |status| failed(product, status);
        let layout = |format: Format, rows: usize, columns: usize, stride: usize| {
            result::create_matrix_layout(format.cuda(), rows as u64, columns as u64, stride as i64)
                .map_err(|error| fail(error.0))
        };
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F)
            .map_err(|error| fail(error.0))?;
        let mut plan = Plan {
            description,
            weight: layout(product.input, product.k, product.n, product.weight.stride)?,
            x: layout(product.input, product.k, product.m, product.x.stride)?,
            out: layout(product.output, product.n, product.m, product.out.stride)?,
            // SAFETY: plain data, replaced below.
            algorithm: unsafe { std::mem::zeroed() },
        };
        // SAFETY: the description was made above.
        unsafe {
            plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, &CUBLAS_OP_T)
                .map_err(fail)?;
            if product.bias != 0 {
                let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
                plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)
                    .map_err(fail)?;
            }
            if product.scales.is_some() {
                let mode = sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
                plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode)
                    .map_err(fail)?;
                plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode)
                    .map_err(fail)?;
            }
            plan.point(product).map_err(fail)?;
        }
        // SAFETY: descriptions are valid.
        let candidates = unsafe { self.candidates(product, &plan) }?;
        plan.algorithm = candidates[0];
        if product.tune && candidates.len() > 1 {
            let scratch =
                Buffer::new(stream.device(), product.m * product.out.stride * product.output.bytes())?;
            scratch.fill(stream, 0)?;
            let [start, end] = [Event::new(stream.device())?, Event::new(stream.device())?];
            let mut fastest = f32::INFINITY;
            // Short products are timed several in a row: starting one takes as long as computing it.
            let flops = 2.0 * product.m as f64 * product.n as f64 * product.k as f64;
            let in_a_row = (RUN_FLOPS / flops).clamp(1.0, MAX_IN_A_ROW) as usize;
            for algorithm in candidates {
                let tried = Plan { algorithm, ..plan };
                // SAFETY: the result goes to the scratch buffer, which is as large as the product's.
                let once = || unsafe { self.multiply(stream, product, &tried, scratch.pointer()) };
                if once().is_err() {
                    continue;
                }
                for _ in 0..RUNS {
                    start.record(stream)?;
                    let done = (0..in_a_row).try_for_each(|_| once());
                    end.record(stream)?;
                    let time = start.elapsed(&end)?;
                    if done.is_ok() && time < fastest {
                        fastest = time;
                        plan.algorithm = algorithm;
                    }
                }
            }
        }
        Ok(plan)
    }

    /// The algorithms that cuBLASLt names for a product, most promising first; at least one.
    #[allow(unsafe_code)]
    unsafe fn candidates(&self, product: &Product, plan: &Plan) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
        let fail = |status| failed(product, status);
        let preference = result::create_matmul_pref().map_err(|error| fail(error.0))?;
        let workspace = WORKSPACE;
        let most = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: descriptions are valid; the array is as long as is said; only the results that were written are read.
        unsafe {
            let set = result::set_matmul_pref_attribute(
                preference,
                most,
                (&raw const workspace).cast(),
                size_of::<usize>(),
            );
            let mut found: [sys::cublasLtMatmulHeuristicResult_t; CANDIDATES] = std::mem::zeroed();
            let mut count = 0;
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                plan.description,
                plan.weight,
                plan.x,
                plan.out,
                plan.out,
                preference,
                CANDIDATES as i32,
                found.as_mut_ptr(),
                &mut count,
            );
            let _ = result::destroy_matmul_pref(preference);
            set.map_err(|error| fail(error.0))?;
            status.result().map_err(|error| fail(error.0))?;
            let count = usize::try_from(count).unwrap_or(0);
            let usable =
                found[..count].iter().filter(|one| one.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
            let usable: Vec<_> = usable.map(|one| one.algo).collect();
            if usable.is_empty() {
                Err(fail(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED))
            } else {
                Ok(usable)
            }
        }
    }
}

impl Plan {
    #[allow(unsafe_code)]
    unsafe fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: &T,
    ) -> std::result::Result<(), sys::cublasStatus_t> {
        // SAFETY: the caller gives the attribute's type.
        unsafe {
            result::set_matmul_desc_attribute(
                self.description,
                attribute,
                std::ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        }
        .map_err(|error| error.0)
    }

    /// Sets the pointers that are part of the description.
    #[allow(unsafe_code)]
    unsafe fn point(&self, product: &Product) -> std::result::Result<(), sys::cublasStatus_t> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // SAFETY: the attributes are pointers.
        unsafe {
            if product.bias != 0 {
                self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &product.bias)?;
            }
            if let Some(scales) = &product.scales {
                self.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &scales.weight)?;
                self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &scales.x)?;
            }
        }
        Ok(())
    }
}

fn failed(product: &Product, status: sys::cublasStatus_t) -> CudaError {
    if status == sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED {
        return CudaError::OutOfMemory { wanted: 0 };
    }
    CudaError::Product { status: format!("{status:?}"), m: product.m, n: product.n, k: product.k }
}

impl Stream {
    /// Queues a matrix product. The first of a shape tries cuBLASLt's algorithms and waits for them, so it must not be part of a
    /// [`Graph`](crate::Graph)'s recording.
    ///
    /// # Errors
    /// [`CudaError::Product`] where there is no algorithm for it (8-bit elements before Hopper, say); those of the driver.
    ///
    /// # Safety
    /// The matrices are of the given sizes and strides, and stay where they are until the stream has done it.
    #[allow(unsafe_code)]
    pub unsafe fn multiply(&self, product: &Product) -> Result<()> {
        self.device().bind()?;
        // SAFETY: the caller's promise.
        unsafe { self.device().products().run(self, product) }
    }
}
