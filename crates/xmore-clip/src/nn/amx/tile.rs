//! The instructions of AMX: permission, configuration, and one block of sums of two by two tiles.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::ops::Range;
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
/// The most bytes that are prefetched at each step.
pub(super) const MAX_PREFETCH: usize = 256;

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
        && (format == Format::Int8 || is_x86_feature_detected!("avx512bf16"))
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
pub(super) struct Configuration(());

impl Configuration {
    /// Eight tiles of 16 rows of 64 bytes.
    ///
    /// # Safety
    /// [`is_permitted`] must have said so, and there may be one at a time on a thread.
    #[allow(unsafe_code)]
    pub(super) unsafe fn set() -> Self {
        #[repr(C, align(64))]
        struct Bytes([u8; 64]);
        let Bytes(mut bytes) = Bytes([0; 64]);
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

impl Drop for Configuration {
    fn drop(&mut self) {
        // SAFETY: there is a configuration, so the instructions may be used.
        #[allow(unsafe_code)]
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// A block's sums, `[32, 32]`: 32-bit floats or integers.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [u32; BLOCK_ROWS * WIDTH]);

impl Sums {
    pub(super) fn new() -> Self {
        Self([0; BLOCK_ROWS * WIDTH])
    }

    /// Some rows as floats, once they are.
    pub(super) fn floats(&mut self, rows: Range<usize>) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0[rows.start * WIDTH..rows.end * WIDTH])
    }

    /// Where a row begins, at a cache line.
    pub(super) fn row(&self, r: usize) -> *const f32 {
        self.0[r * WIDTH..(r + 1) * WIDTH].as_ptr().cast()
    }

    /// The same, to be written.
    pub(super) fn row_mut(&mut self, r: usize) -> *mut f32 {
        self.0[r * WIDTH..(r + 1) * WIDTH].as_mut_ptr().cast()
    }
}

/// A block of sums that is being computed: what its next step multiplies. The sums are in tiles, which keep them from call to call: compiled code uses no
/// tiles.
pub(super) struct Block {
    /// One or two tiles of rows, each `[steps, 16, 64 bytes]`.
    rows: [*const u8; 2],
    /// Whether there is a second tile of rows.
    both: bool,
    /// The panel, `[steps, 16, 32 columns, 4 bytes]`.
    panel: *const u8,
    /// Where `ahead` bytes a step, at most [`MAX_PREFETCH`], are prefetched. A prefetch faults at no address.
    next: *const u8,
    ahead: usize,
    /// The place in the sums' memory that is touched next, in bytes.
    touched: usize,
}

/// Bytes of the sums' memory that are touched at each step. What tiles are stored to has to be in the first cache, which the operands pass through: a line that
/// is touched once is among the first to go, one that is touched again stays.
const TOUCHED_BYTES: usize = 512;

/// Writes the instructions of a block's steps for one format. Rows are loaded past the first cache (`tileloaddt1`), so that the panel, which the next block
/// of rows is multiplied by, too, stays in it.
macro_rules! steps {
    ($name:ident, $multiply:literal) => {
        /// Multiplies the next `count` steps.
        ///
        /// # Safety
        /// As for [`Block::step`]; `count` must not be zero.
        #[allow(unsafe_code)]
        unsafe fn $name(block: &mut Block, count: usize, sums: &Sums) {
            let Block { rows: [first, second], both, panel, next, ahead, touched } = block;
            let to = sums.0.as_ptr();
            // SAFETY: as promised by the caller; `sums` is only prefetched.
            unsafe {
                if *both {
                    asm!(
                        "2:",
                        "tileloaddt1 tmm4, [{first} + {row}]",
                        "prefetcht0 [{to} + {touched}]",
                        "prefetcht0 [{to} + {touched} + 64]",
                        "tileloadd tmm6, [{panel} + {line}]",
                        "prefetcht1 [{next}]",
                        "tileloadd tmm7, [{panel} + {line} + 64]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        "prefetcht0 [{to} + {touched} + 128]",
                        "prefetcht0 [{to} + {touched} + 192]",
                        "prefetcht1 [{next} + 64]",
                        "tileloaddt1 tmm5, [{second} + {row}]",
                        concat!($multiply, " tmm1, tmm4, tmm7"),
                        "prefetcht0 [{to} + {touched} + 256]",
                        "prefetcht0 [{to} + {touched} + 320]",
                        "cmp {ahead}, 128",
                        "jbe 3f",
                        "prefetcht1 [{next} + 128]",
                        "3:",
                        concat!($multiply, " tmm2, tmm5, tmm6"),
                        "prefetcht0 [{to} + {touched} + 384]",
                        "prefetcht0 [{to} + {touched} + 448]",
                        "cmp {ahead}, 192",
                        "jbe 3f",
                        "prefetcht1 [{next} + 192]",
                        "3:",
                        concat!($multiply, " tmm3, tmm5, tmm7"),
                        "add {touched:e}, {touched_bytes}",
                        "and {touched:e}, {sums_bytes} - 1",
                        "add {first}, 1024",
                        "add {second}, 1024",
                        "add {panel}, 2048",
                        "add {next}, {ahead}",
                        "dec {count}",
                        "jnz 2b",
                        first = inout(reg) *first,
                        second = inout(reg) *second,
                        panel = inout(reg) *panel,
                        next = inout(reg) *next,
                        touched = inout(reg) *touched,
                        count = inout(reg) count => _,
                        ahead = in(reg) *ahead,
                        to = in(reg) to,
                        row = in(reg) ROW_BYTES,
                        line = in(reg) 2 * ROW_BYTES,
                        touched_bytes = const TOUCHED_BYTES,
                        sums_bytes = const size_of::<Sums>(),
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                } else {
                    asm!(
                        "2:",
                        "tileloaddt1 tmm4, [{first} + {row}]",
                        "tileloadd tmm6, [{panel} + {line}]",
                        "prefetcht1 [{next}]",
                        "prefetcht1 [{next} + 64]",
                        "tileloadd tmm7, [{panel} + {line} + 64]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        "cmp {ahead}, 128",
                        "jbe 3f",
                        "prefetcht1 [{next} + 128]",
                        "cmp {ahead}, 192",
                        "jbe 3f",
                        "prefetcht1 [{next} + 192]",
                        "3:",
                        concat!($multiply, " tmm1, tmm4, tmm7"),
                        "add {first}, 1024",
                        "add {panel}, 2048",
                        "add {next}, {ahead}",
                        "dec {count}",
                        "jnz 2b",
                        first = inout(reg) *first,
                        panel = inout(reg) *panel,
                        next = inout(reg) *next,
                        count = inout(reg) count => _,
                        ahead = in(reg) *ahead,
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

steps!(steps_bf16, "tdpbf16ps");
steps!(steps_int8, "tdpbusd");

impl Block {
    /// A block of one or two tiles of rows and a panel, whose sums are zero or those that were kept. If there is a `next`, so many bytes are prefetched from there
    /// at each step.
    ///
    /// # Safety
    /// The tiles must be configured, and no other block may be begun on this thread before this one's sums are stored.
    #[allow(unsafe_code)]
    pub(super) unsafe fn begin(
        rows: [*const u8; 2],
        both: bool,
        panel: *const u8,
        next: Option<(*const u8, usize)>,
        kept: Option<&Sums>,
    ) -> Self {
        // SAFETY: the tiles are configured.
        unsafe {
            match kept {
                None => asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, nomem)
                ),
                // Of a block of one tile of rows the rest is anything.
                Some(sums) => asm!(
                    "tileloadd tmm0, [{from} + {distance}]",
                    "tileloadd tmm1, [{from} + {distance} + 64]",
                    "tileloadd tmm2, [{from} + {distance} + 2048]",
                    "tileloadd tmm3, [{from} + {distance} + 2112]",
                    from = in(reg) sums.0.as_ptr(),
                    distance = in(reg) 2 * ROW_BYTES,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, readonly)
                ),
            }
        }
        let (next, ahead) = next.unwrap_or((panel, 0));
        Self { rows, both, panel, next, ahead, touched: 0 }
    }

    /// Multiplies the next `count` steps; `sums`, where the block's will be stored, stay in the first cache.
    ///
    /// # Safety
    /// The tiles must be configured as they were when the block was begun, and its rows and panel be valid for so many more steps.
    #[allow(unsafe_code)]
    pub(super) unsafe fn step(&mut self, format: Format, count: usize, sums: &Sums) {
        if count == 0 {
            return;
        }
        // SAFETY: as promised by the caller.
        unsafe {
            match format {
                Format::Bf16 => steps_bf16(self, count, sums),
                Format::Int8 => steps_int8(self, count, sums),
            }
        }
    }

    /// Writes the sums to `sums`, all of them or the first 16 rows.
    ///
    /// # Safety
    /// The tiles must be configured as they were when the block was begun.
    #[allow(unsafe_code)]
    pub(super) unsafe fn store(self, sums: &mut Sums) {
        // SAFETY: the tiles are configured; `sums` holds four of them.
        unsafe {
            self.store_to(sums.0.as_mut_ptr(), 2 * ROW_BYTES);
        }
    }

    /// Writes the rows of its one or two tiles, of 32 sums, so many bytes apart.
    ///
    /// # Safety
    /// As for [`Block::store`]; `to` must be valid for them.
    #[allow(unsafe_code)]
    pub(super) unsafe fn store_to(self, to: *mut u32, distance: usize) {
        // SAFETY: as promised by the caller.
        unsafe {
            asm!(
                "tilestored [{to} + {distance}], tmm0",
                "tilestored [{to} + {distance} + 64], tmm1",
                to = in(reg) to,
                distance = in(reg) distance,
                options(nostack)
            );
            if self.both {
                asm!(
                    "tilestored [{to} + {distance}], tmm2",
                    "tilestored [{to} + {distance} + 64], tmm3",
                    to = in(reg) to.byte_add(TILE_ROWS * distance),
                    distance = in(reg) distance,
                    options(nostack)
                );
            }
        }
    }
}

/// Multiplies tiles in bf16 in registers alone, over and over; returns how many operations were done. AMX must be permitted.
pub(super) fn multiply_in_registers() -> usize {
    const STEPS: usize = 1_000_000;
    // SAFETY: permitted, as the caller promises.
    #[allow(unsafe_code)]
    let _tiles = unsafe { Configuration::set() };
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
