//! `--precision bf16` and `auto` on the processor: other numbers than f32's, the same with every instruction set on vectors, and told.

mod support;

use support::files::{picture, source};
use support::{Xmore, fixture, tiny_model, xmore_in};

/// Pairs, photos and texts.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        source(world.0.path(), 12, 2);
        std::fs::create_dir(world.0.path().join("queries")).unwrap();
        for n in 0..5 {
            picture(&world.0.path().join(format!("queries/{n}.png")), n);
        }
        std::fs::write(world.0.path().join("texts"), "zebra\na thing seen often\npicture number 5\n")
            .unwrap();
        world
    }

    fn run(&self, args: &[&str]) -> Xmore {
        xmore_in(self.0.path(), args)
    }

    /// Embeddings, and what was told.
    fn embed(&self, what: &[&str], precision: &str, simd: Option<&str>) -> (Vec<u8>, String) {
        let file = self.0.path().join("out.npy");
        let mut run = self.run(&[&["embed", "-o", "@out.npy", "--precision", precision], what].concat());
        if let Some(simd) = simd {
            run = run.env("XMORE_SIMD", simd);
        }
        let run = run.run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        (bytes, run.stderr)
    }
}

/// Whether the system says that the processor multiplies tiles in bf16.
fn has_amx() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains(" amx_bf16"))
}

#[test]
fn embeddings_in_bf16_are_near_and_the_same_on_vectors_of_every_length() {
    let world = World::new();
    let model = format!("--model=local-dir:{}", fixture("clip/vit_gelu/open_clip").display());
    let photos = ["@queries", &model];
    let [(exact, _), (near, _)] = ["f32", "bf16"].map(|precision| world.embed(&photos, precision, None));
    let values = |npy: &[u8]| -> Vec<f32> {
        let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
        npy[header..].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let (exact, near) = (values(&exact), values(&near));
    assert!(exact.len() == near.len() && exact != near);
    let sum = exact.iter().zip(&near).map(|(a, b)| a * b).sum::<f32>();
    assert!(sum / 5.0 > 0.9995, "the mean cosine is {}", sum / 5.0);
    let on_vectors = values(&world.embed(&photos, "bf16", Some("avx512")).0);
    for simd in ["avx2", "portable"] {
        assert!(values(&world.embed(&photos, "bf16", Some(simd)).0) == on_vectors, "{simd}");
    }
    // AMX adds in another order.
    if !has_amx() {
        assert!(near == on_vectors);
    }
    let sum = on_vectors.iter().zip(&near).map(|(a, b)| a * b).sum::<f32>();
    assert!(sum / 5.0 > 0.9999, "the mean cosine is {}", sum / 5.0);
}

#[test]
fn a_memory_in_bf16_says_so_and_is_searched_in_bf16() {
    let world = World::new();
    let model = tiny_model();
    let build =
        ["memory", "build", "@pairs.csv", "-o", "@memory", "--max-skipped=50%", "--precision=bf16", &model];
    world.run(&build).ok();
    let info = world.run(&["memory", "info", "@memory"]).ok();
    assert!(info.contains(" bfloat16\n") && info.contains("-bfloat16\n"), "{info}");
    let search = ["memory", "search", "@memory", "--image", "@queries/1.png", "--format", "json"];
    let by_default = world.run(&search).ok();
    for precision in ["bf16", "auto"] {
        let same = world.run(&[&search[..], &["--precision", precision]].concat()).ok();
        assert_eq!(same, by_default, "{precision}");
        let named = world.run(&[&search[..], &["--precision", precision, &model]].concat()).ok();
        assert_eq!(named, by_default, "{precision}, the model named");
    }
    let other = world.run(&[&search[..], &["--precision", "f32"]].concat()).fails(1);
    assert!(other.contains("bfloat16"), "{other}");
}

#[test]
fn auto_tells_what_it_takes() {
    let world = World::new();
    let model = tiny_model();
    let texts = ["--texts", "@texts", &model];
    let (found, told) = world.embed(&texts, "auto", None);
    // On an instruction set without products in bf16 it is f32.
    let (portable, portably) = world.embed(&texts, "auto", Some("portable"));
    assert!(portably.contains("precision f32: "), "{portably}");
    assert!(portable == world.embed(&texts, "f32", Some("portable")).0);
    let precision = if told.contains("precision bf16: ") { "bf16" } else { "f32" };
    assert!(told.contains(&format!("precision {precision}: ")), "{told}");
    assert!(found == world.embed(&texts, precision, None).0);
}
