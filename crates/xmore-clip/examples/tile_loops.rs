//! What AMX reaches where its operands come from: `cargo run --release -p xmore-clip --example tile_loops`.
//!
//! Loops of 24 steps of 2 × 2 tiles in bf16 (768 inputs of 32 rows and 32 columns) on one thread: nanoseconds, the least of several runs. See docs/decisions/amx.md.

fn main() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    amx::main();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    println!("no AMX here");
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(unsafe_code)]
mod amx {
    use std::arch::asm;
    use std::time::Instant;

    /// Steps of a loop, and bytes that each reads.
    const STEPS: usize = 24;
    const STEP: usize = 4096;

    /// Tiles of 16 rows of 64 bytes, or nothing if there are none.
    fn configure() -> bool {
        // SAFETY: the call reads and writes no memory of this process.
        let permitted = unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1023, 18) == 0 };
        if permitted {
            #[repr(C, align(64))]
            struct Bytes([u8; 64]);
            let Bytes(mut bytes) = Bytes([0; 64]);
            bytes[0] = 1;
            (0..8).for_each(|tile| (bytes[16 + 2 * tile], bytes[48 + tile]) = (64, 16));
            // SAFETY: tiles are permitted, the configuration is one of palette 1.
            unsafe { asm!("ldtilecfg [{0}]", in(reg) bytes.as_ptr()) };
        }
        permitted
    }

    /// Runs one loop over and over and tells how long one takes. `advance` bytes lie between the operands of one step and those of the next.
    macro_rules! time {
        ($name:literal, $operands:expr, $sums:expr, $advance:expr, [$($step:expr),*], [$($end:literal),*]) => {{
            let mut least = f64::INFINITY;
            for _ in 0..7 {
                const LOOPS: usize = 10_000;
                let start = Instant::now();
                for _ in 0..LOOPS {
                    // SAFETY: the tiles are configured; the operands have the steps' bytes, the sums 4 KiB.
                    unsafe {
                        asm!(
                            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                            "2:", $($step,)*
                            "add {touched:e}, 512", "and {touched:e}, 4095", "add {operands}, {advance}", "dec {steps}", "jnz 2b",
                            $($end,)* "/* {row} {sums} */",
                            operands = inout(reg) $operands.as_ptr() => _,
                            steps = inout(reg) STEPS => _,
                            touched = inout(reg) 0usize => _,
                            sums = in(reg) $sums.as_mut_ptr(),
                            row = in(reg) 64usize,
                            advance = in(reg) $advance,
                            out("rax") _, out("rcx") _,
                            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        );
                    }
                }
                least = least.min(start.elapsed().as_secs_f64() / LOOPS as f64);
            }
            println!("{:<66}{:>6.0} ns", $name, least * 1e9);
        }};
    }

    pub(super) fn main() {
        if !configure() {
            return println!("no AMX here, or it is not permitted");
        }
        let mut memory = vec![0u8; STEPS * STEP + 2 * STEP];
        // At a page, so that rows are whole cache lines.
        let at = memory.as_ptr().align_offset(STEP);
        let (sums, operands) = memory[at..].split_at_mut(STEP);
        operands.fill(0x3c);
        time!(
            "multiplications alone",
            operands,
            sums,
            0usize,
            [
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7"
            ],
            []
        );
        macro_rules! loads {
            ($name:literal, $advance:expr, [$($touch:literal),*], [$($end:literal),*]) => {
                time!($name, operands, sums, $advance,
                    ["tileloadd tmm4, [{operands} + {row}]", "tileloadd tmm6, [{operands} + {row} + 2048]", $($touch,)*
                     "tileloadd tmm7, [{operands} + {row} + 3072]", "tdpbf16ps tmm0, tmm4, tmm6",
                     "tileloadd tmm5, [{operands} + {row} + 1024]", "tdpbf16ps tmm1, tmm4, tmm7",
                     "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7"], [$($end),*])
            };
        }
        macro_rules! stored {
            ($name:literal, $advance:expr, [$($touch:literal),*]) => {
                loads!($name, $advance, [$($touch),*],
                    ["tilestored [{sums} + {row}], tmm0", "tilestored [{sums} + {row} + 1024], tmm1",
                     "tilestored [{sums} + {row} + 2048], tmm2", "tilestored [{sums} + {row} + 3072], tmm3"])
            };
        }
        loads!("operands from the first cache", 0usize, [], []);
        stored!("operands from the first cache, sums stored", 0usize, []);
        loads!("operands from the second cache", STEP, [], []);
        stored!("operands from the second cache, sums stored", STEP, []);
        // A panel of 16 steps, and rows of 24 behind it: more than the first cache holds.
        macro_rules! rows {
            ($name:literal, $load:literal) => {
                time!(
                    $name,
                    operands,
                    sums,
                    STEP / 2,
                    [
                        "add ecx, 2048",
                        "and ecx, 30720",
                        "lea rax, [{sums} + rcx + 4096]",
                        concat!($load, " tmm4, [{operands} + {row} + 32768]"),
                        "tileloadd tmm6, [rax + {row}]",
                        "tileloadd tmm7, [rax + {row} + 1024]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        concat!($load, " tmm5, [{operands} + {row} + 33792]"),
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7"
                    ],
                    []
                )
            };
        }
        rows!("16 steps of a panel over and over, rows from the second cache", "tileloadd");
        rows!("the same, rows loaded past the first cache", "tileloaddt1");
        stored!(
            "operands from the second cache, sums stored where steps touched",
            STEP,
            [
                "prefetcht0 [{sums} + {touched}]",
                "prefetcht0 [{sums} + {touched} + 64]",
                "prefetcht0 [{sums} + {touched} + 128]",
                "prefetcht0 [{sums} + {touched} + 192]",
                "prefetcht0 [{sums} + {touched} + 256]",
                "prefetcht0 [{sums} + {touched} + 320]",
                "prefetcht0 [{sums} + {touched} + 384]",
                "prefetcht0 [{sums} + {touched} + 448]"
            ]
        );
    }
}
