//! The instructions of AMX: permission, configuration, and one block of sums of two by two tiles.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// What is multiplied. A row of a tile has 64 bytes in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// 32 numbers a row, sums in 32-bit floats.
    Bf16,
    /// 64 unsigned bytes a row of the left operand, signed ones in the right, sums in 32-bit integers.
    Int8,
}

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
pub(super) const ROW_BYTES: usize = 64;
/// Bytes of a tile.
pub(super) const TILE_BYTES: usize = TILE_ROWS * ROW_BYTES;
/// Rows of a block of sums: two tiles.
pub(super) const BLOCK_ROWS: usize = 2 * TILE_ROWS;
/// Columns of a panel and of a block of sums: two tiles.
pub(super) const WIDTH: usize = 32;
/// Bytes of a panel for one step: 16 groups of 4 bytes of each column.
pub(super) const STEP_BYTES: usize = 2 * TILE_BYTES;
/// Runs of a panel's steps in which all of the next panel is prefetched.
pub(super) const PREFETCH_RUNS: usize = STEP_BYTES / PREFETCH_BYTES;
/// Bytes that are prefetched at each step.
const PREFETCH_BYTES: usize = 256;

/// Whether the processor has the format's instructions and the system lets this process use them. The system is asked once.
pub(super) fn is_permitted(format: Format) -> bool {
    if __cpuid(0).eax < 7 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let bit = match format {
        Format::Bf16 => 22,
        Format::Int8 => 25,
    };
    // Bit 24: tiles.
    features >> 24 & 1 == 1
        && features >> bit & 1 == 1
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && ask_permission()
}

/// Asks Linux to let this process's threads use tiles (ARCH_REQ_XCOMP_PERM of feature 18, XTILEDATA).
fn ask_permission() -> bool {
    static GIVEN: OnceLock<bool> = OnceLock::new();
    *GIVEN.get_or_init(|| {
        const REQUEST: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        // SAFETY: the call reads and writes no memory of this process.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0
        }
    })
}

/// The tiles' configuration on this thread; dropped, the tiles are given back, so that the system need not save them.
pub(super) struct Tiles(());

impl Tiles {
    /// Eight tiles of 16 rows of 64 bytes.
    ///
    /// # Safety
    /// [`is_permitted`] must have said so, and there may be one at a time on a thread.
    #[allow(unsafe_code)]
    pub(super) unsafe fn configure() -> Self {
        #[repr(C, align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        let bytes = &mut configuration.0;
        bytes[0] = 1;
        for tile in 0..8 {
            bytes[16 + 2 * tile] = ROW_BYTES as u8;
            bytes[48 + tile] = TILE_ROWS as u8;
        }
        // SAFETY: the caller promises the permission; the configuration is one of palette 1 and is only read.
        unsafe {
            asm!("ldtilecfg [{0}]", in(reg) bytes.as_ptr(), options(nostack, readonly));
        }
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there is a configuration, so the instructions may be used.
        #[allow(unsafe_code)]
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// A block's sums, `[32, 32]`: 32-bit floats or integers.
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [u32; BLOCK_ROWS * WIDTH]);

/// The operands of a block of sums.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// One or two tiles of rows, each `[steps, 16, 64 bytes]`.
    pub(super) rows: [*const u8; 2],
    /// Whether there is a second tile of rows.
    pub(super) both: bool,
    /// The panel, `[steps, 16, 32 columns, 4 bytes]`.
    pub(super) panel: *const u8,
    pub(super) steps: usize,
    /// Where [`PREFETCH_BYTES`] times the steps are prefetched, or null.
    pub(super) next: *const u8,
}

/// Writes the instructions of a block for one format.
macro_rules! block {
    ($name:ident, $multiply:literal) => {
        /// Writes the sums of all steps to `sums`, all of them or the first 16 rows.
        ///
        /// # Safety
        /// The tiles must be configured, the pointers be valid for what [`Block`] says, with at least one step.
        #[allow(unsafe_code)]
        unsafe fn $name(block: &Block, sums: &mut Sums) {
            let Block { rows: [first, second], both, panel, steps, next } = *block;
            let ahead = if next.is_null() { 0 } else { PREFETCH_BYTES };
            // A prefetch faults at no address.
            let next = if next.is_null() { panel } else { next };
            let to = sums.0.as_mut_ptr();
            // SAFETY: see above; `sums` holds four tiles.
            unsafe {
                if both {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "2:",
                        "tileloadd tmm4, [{first} + {row}]",
                        "tileloadd tmm6, [{panel} + {line}]",
                        "prefetcht1 [{next}]",
                        "tileloadd tmm7, [{panel} + {line} + 64]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        "prefetcht1 [{next} + 64]",
                        "tileloadd tmm5, [{second} + {row}]",
                        concat!($multiply, " tmm1, tmm4, tmm7"),
                        "prefetcht1 [{next} + 128]",
                        concat!($multiply, " tmm2, tmm5, tmm6"),
                        "prefetcht1 [{next} + 192]",
                        concat!($multiply, " tmm3, tmm5, tmm7"),
                        "add {first}, 1024",
                        "add {second}, 1024",
                        "add {panel}, 2048",
                        "add {next}, {ahead}",
                        "dec {steps}",
                        "jnz 2b",
                        "tilestored [{to} + {line}], tmm0",
                        "tilestored [{to} + {line} + 64], tmm1",
                        "tilestored [{to} + {line} + 2048], tmm2",
                        "tilestored [{to} + {line} + 2112], tmm3",
                        first = inout(reg) first => _,
                        second = inout(reg) second => _,
                        panel = inout(reg) panel => _,
                        next = inout(reg) next => _,
                        steps = inout(reg) steps => _,
                        ahead = in(reg) ahead,
                        to = in(reg) to,
                        row = in(reg) ROW_BYTES,
                        line = in(reg) 2 * ROW_BYTES,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                } else {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "2:",
                        "tileloadd tmm4, [{first} + {row}]",
                        "tileloadd tmm6, [{panel} + {line}]",
                        "prefetcht1 [{next}]",
                        "prefetcht1 [{next} + 64]",
                        "tileloadd tmm7, [{panel} + {line} + 64]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        "prefetcht1 [{next} + 128]",
                        "prefetcht1 [{next} + 192]",
                        concat!($multiply, " tmm1, tmm4, tmm7"),
                        "add {first}, 1024",
                        "add {panel}, 2048",
                        "add {next}, {ahead}",
                        "dec {steps}",
                        "jnz 2b",
                        "tilestored [{to} + {line}], tmm0",
                        "tilestored [{to} + {line} + 64], tmm1",
                        first = inout(reg) first => _,
                        panel = inout(reg) panel => _,
                        next = inout(reg) next => _,
                        steps = inout(reg) steps => _,
                        ahead = in(reg) ahead,
                        to = in(reg) to,
                        row = in(reg) ROW_BYTES,
                        line = in(reg) 2 * ROW_BYTES,
                        out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                }
            }
        }
    };
}

block!(block_bf16, "tdpbf16ps");
block!(block_int8, "tdpbusd");

impl Block {
    /// Writes the sums of all steps to `sums`, all of them or the first 16 rows.
    ///
    /// # Safety
    /// The tiles must be configured, the pointers be valid for what [`Block`] says, with at least one step.
    #[allow(unsafe_code)]
    pub(super) unsafe fn multiply(&self, format: Format, sums: &mut Sums) {
        // SAFETY: as promised by the caller.
        unsafe {
            match format {
                Format::Bf16 => block_bf16(self, sums),
                Format::Int8 => block_int8(self, sums),
            }
        }
    }
}

/// Multiplies tiles in bf16 in registers alone, over and over; returns how many operations were done. AMX must be permitted.
pub(super) fn multiply_in_registers() -> usize {
    const STEPS: usize = 1_000_000;
    // SAFETY: permitted, as the caller promises.
    #[allow(unsafe_code)]
    let _tiles = unsafe { Tiles::configure() };
    for _ in 0..STEPS {
        // SAFETY: the tiles are configured; what they hold is not used.
        #[allow(unsafe_code)]
        unsafe {
            asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem)
            );
        }
    }
    STEPS * 4 * 2 * TILE_ROWS * TILE_ROWS * (ROW_BYTES / 2)
}
