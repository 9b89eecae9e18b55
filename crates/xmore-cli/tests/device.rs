//! The choice of a device where there is no GPU, or none that can be used: the errors, and `auto`.

mod support;

use support::files::{picture, source};
use support::{Run, tiny_model, xmore_in};

const CLASSIFY: [&str; 7] = [
    "classify",
    "@query.png",
    "--labels",
    "picture number,a thing seen often,zebra",
    "--explain",
    "--format",
    "json",
];

/// Pairs, a memory of them, and a photo.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        source(world.0.path(), 30, 2);
        picture(&world.0.path().join("query.png"), 100);
        let build = world.run(&["memory", "build", "@pairs.csv", "-o", "@memory", "--max-skipped", "50%"]);
        assert_eq!(build.code, 0, "{}", build.stderr);
        world
    }

    /// A run on a machine without a GPU: where there is one, the driver does not show it.
    fn run(&self, args: &[&str]) -> Run {
        let model = tiny_model();
        let args: Vec<&str> = args.iter().copied().chain([model.as_str()]).collect();
        xmore_in(self.0.path(), &args).env("CUDA_VISIBLE_DEVICES", "").run()
    }

    #[track_caller]
    fn refuses(&self, args: &[&str], code: i32, message: &str) {
        let run = self.run(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{args:?}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_with_a_hint() {
    let world = World::new();
    let hint = "hint: --device cpu computes on the processor, --device auto takes a GPU where there is one";
    for device in ["cuda", "cuda:0", "cuda:99"] {
        let with = ["--device", device];
        world.refuses(&[&CLASSIFY[..], &with].concat(), 1, hint);
        world.refuses(&[&CLASSIFY[..], &["--memory", "@memory"], &with].concat(), 1, hint);
        world.refuses(&[&["memory", "search", "@memory", "--text", "zebra"], &with[..]].concat(), 1, hint);
        world.refuses(
            &[&["serve", "--addr", "127.0.0.1:0", "--memory", "@memory"], &with[..]].concat(),
            1,
            hint,
        );
    }
}

#[test]
fn auto_without_a_gpu_gives_what_the_processor_gives() {
    let world = World::new();
    let search = ["memory", "search", "@memory", "--image", "@query.png", "--format", "json"];
    let memory = [&CLASSIFY[..], &["--memory", "@memory"]].concat();
    for args in [&CLASSIFY[..], &memory, &search] {
        let [cpu, auto] = ["cpu", "auto"].map(|device| world.run(&[args, &["--device", device]].concat()));
        assert_eq!(cpu.code, 0, "{args:?}: {}", cpu.stderr);
        assert_eq!(
            (auto.code, without_times(&auto.stdout)),
            (0, without_times(&cpu.stdout)),
            "{args:?}: {}",
            auto.stderr
        );
        assert!(!auto.stderr.contains(" on "), "{}", auto.stderr);
    }
}

#[test]
fn no_device_and_no_precision_of_the_processor_are_refused() {
    let world = World::new();
    for device in ["", "tpu", "cuda:", "cuda:x", "cuda:-1"] {
        let with = format!("--device={device}");
        world.refuses(&[&CLASSIFY[..], &[&with]].concat(), 2, "expected auto, cpu, cuda, or cuda:N");
    }
    let hint = "hint: --precision f32, bf16 and int8 are for --device cpu";
    for precision in ["f16", "fp8"] {
        for device in ["cpu", "auto"] {
            let with = ["--precision", precision, "--device", device];
            world.refuses(&[&CLASSIFY[..], &with].concat(), 1, hint);
        }
    }
}

/// JSON without what differs from run to run.
fn without_times(text: &str) -> String {
    text.lines().filter(|line| !line.contains("seconds")).collect::<Vec<_>>().join("\n")
}
