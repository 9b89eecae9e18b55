//! Matrix products by AMX, Intel's instructions on tiles of 16 × 16 sums, in bf16 and in 8 bits.
//!
//! See docs/decisions/amx.md. A product in 8 bits is exact, so that it has the bits of every other kernel; one in bf16 adds in its own order.

mod attention;
mod attention_branch;
mod bf16;
mod gates;
mod int8;
mod output;
mod panels;
mod plain;
mod product;
mod query_block;
mod rows;
#[cfg(test)]
mod tests;
mod tile;
mod windows;

use std::sync::OnceLock;

pub(super) use attention::AmxAttention;
pub(super) use bf16::AmxBf16;
pub(super) use int8::AmxInt8;
use tile::Format;

/// The name by which the environment variable `XMORE_SIMD` asks for AMX, which is the default where the processor has it.
const NAME: &str = "amx";

/// Whether products in bf16 are computed by AMX.
pub(super) fn multiplies_bf16() -> bool {
    static CHOSEN: OnceLock<bool> = OnceLock::new();
    *CHOSEN.get_or_init(|| is_wanted() && has_bf16())
}

/// Whether products in 8 bits are computed by AMX.
pub(super) fn multiplies_int8() -> bool {
    static CHOSEN: OnceLock<bool> = OnceLock::new();
    *CHOSEN.get_or_init(|| is_wanted() && has_int8())
}

fn is_wanted() -> bool {
    std::env::var("XMORE_SIMD").map_or(true, |name| name == NAME || !super::simd::is_kernel_name(&name))
}

/// Whether the processor has the instructions for bf16, may use them, and adds in the order that is written down for it.
fn has_bf16() -> bool {
    tile::is_permitted(Format::Bf16) && bf16::adds_in_the_documented_order()
}

/// The same for 8 bits.
fn has_int8() -> bool {
    tile::is_permitted(Format::Int8) && int8::gives_the_exact_sums()
}

/// The function that multiplies tiles in bf16 in registers alone and returns how many operations it did, where AMX is permitted.
pub(super) fn peak_work() -> Option<fn() -> usize> {
    tile::is_permitted(Format::Bf16).then_some(tile::multiply_in_registers)
}
