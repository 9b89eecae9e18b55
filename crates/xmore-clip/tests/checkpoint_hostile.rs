//! Archives made to mislead: contradictory directories, pickles that grow. Each is refused, with a reason and little memory.

use std::path::Path;

use xmore_clip::Checkpoint;

/// Bytes that are put into an archive.
struct Archive {
    members: Vec<(String, Vec<u8>)>,
}

/// An archive, and where its parts lie.
struct Written {
    bytes: Vec<u8>,
    directory: usize,
    end: usize,
}

impl Archive {
    /// PyTorch's layout with one pickle and a storage of four f32.
    fn torch(pickle: &[u8]) -> Self {
        let data = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { members: vec![("x/data.pkl".into(), pickle.to_vec()), ("x/data/0".into(), data)] }
    }

    fn write(&self) -> Written {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in &self.members {
            let header = bytes.len() as u32;
            let sizes = [0, data.len() as u32, data.len() as u32].map(u32::to_le_bytes).concat();
            let lengths = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
            bytes.extend(
                [b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0".as_slice(), &sizes, &lengths, name.as_bytes(), data]
                    .concat(),
            );
            let entry =
                [b"PK\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0".as_slice(), &sizes, &lengths, &[0; 10]].concat();
            directory.extend([entry.as_slice(), &header.to_le_bytes(), name.as_bytes()].concat());
        }
        let start = bytes.len();
        bytes.extend(&directory);
        let end = bytes.len();
        let count = (self.members.len() as u16).to_le_bytes();
        let place = [directory.len() as u32, start as u32].map(u32::to_le_bytes).concat();
        bytes.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &place, &[0; 2]].concat());
        Written { bytes, directory: start, end }
    }

    fn open(&self) -> Result<Checkpoint, String> {
        open(self.write().bytes)
    }
}

fn open(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    Checkpoint::from_bytes(bytes, Path::new("hostile.pt")).map_err(|e| e.to_string())
}

/// Pickle text: a string.
fn text(s: &str) -> Vec<u8> {
    [b"X".as_slice(), &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat()
}

/// Pickle text: a tensor of the storage `0`, of any shape and strides that are themselves pickle text.
fn tensor(shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let storage =
        [b"(".as_slice(), &text("storage"), b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), b"K\x04tQ"]
            .concat();
    [b"ctorch._utils\n_rebuild_tensor_v2\n(".as_slice(), &storage, b"K\0", shape, strides, b"\x89NtR"]
        .concat()
}

fn dict(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(|(k, v)| [text(k).as_slice(), v].concat()).collect();
    [b"}(".as_slice(), &entries, b"u"].concat()
}

fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

fn plain() -> Archive {
    Archive::torch(&pickle(&dict(&[("a", &tensor(b"K\x02K\x02\x86", b"K\x02K\x01\x86"))])))
}

#[track_caller]
fn refused(result: Result<Checkpoint, String>, why: &str) {
    let error = result.err().expect("it is refused");
    assert!(error.contains(why), "expected {why:?}, found: {error}");
}

#[test]
fn the_archive_that_the_others_damage_is_read() {
    let checkpoint = plain().open().unwrap();
    assert_eq!(*checkpoint.tensor("a", &[2, 2]).unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn directories_that_contradict_themselves_are_refused() {
    let mut twice = plain();
    twice.members.push(twice.members[1].clone());
    refused(twice.open(), "two members are named \"x/data/0\"");

    let Written { bytes, directory, end } = plain().write();
    let changed = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        open(bytes)
    };
    // The second entry starts after 46 bytes and the first one's name.
    let second = directory + 46 + "x/data.pkl".len();
    // More members than entries; far more.
    refused(changed(end + 8, &[3, 0, 3, 0]), "contradicts itself");
    refused(changed(end + 8, &[0xff; 4]), "contradicts itself");
    // Fewer.
    refused(changed(end + 8, &[1, 0, 1, 0]), "zip directory ends at byte");
    // A directory elsewhere, and past the end.
    refused(changed(end + 16, &[0; 4]), "entry 0 of its zip directory is damaged");
    refused(changed(end + 16, &[0xff, 0xff, 0xff, 0x7f]), "contradicts itself");
    // A member where another lies; under another's name; longer than the file.
    refused(changed(second + 42, &[0; 4]), "is not where its zip directory says");
    refused(changed(second + 46, b"y"), "is not where its zip directory says");
    refused(changed(second + 20, &[0xff, 0xff, 0xff, 0x7e, 0xff, 0xff, 0xff, 0x7e]), "is not where");
    // zip64 sizes announced and not given.
    refused(changed(second + 20, &[0xff; 8]), "entry 1 of its zip directory is damaged");
    // Two members over the same bytes: the first made longer.
    let longer = u32::from_le_bytes(bytes[directory + 20..directory + 24].try_into().unwrap()) + 8;
    refused(
        changed(directory + 20, &[longer.to_le_bytes(), longer.to_le_bytes()].concat()),
        "members overlap",
    );
}

#[test]
fn zip64_records_must_agree_with_the_old_ones() {
    let Written { bytes, directory, end } = plain().write();
    let with = |count: u64, size: u64, start: u64, at: u64, old_start: u32| {
        let mut out = bytes[..end].to_vec();
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([0; 12]);
        out.extend([count, count, size, start].map(u64::to_le_bytes).concat());
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(at.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(&bytes[end..end + 16]);
        out.extend(old_start.to_le_bytes());
        out.extend([0; 2]);
        open(out)
    };
    let (size, start, at) = ((end - directory) as u64, directory as u64, end as u64);
    assert!(with(2, size, start, at, directory as u32).is_ok());
    assert!(with(2, size, start, at, u32::MAX).is_ok());
    for (count, size, start, at) in [
        (3, size, start, at),
        (u64::MAX, size, start, at),
        (2, u64::MAX, start, at),
        (2, size, start + 1, at),
        (2, size, start, at + 1),
        (2, size, start, u64::MAX),
    ] {
        refused(with(count, size, start, at, directory as u32), "contradicts itself");
    }
    // Where the old field is full, the new one is used and checked.
    refused(with(2, size, u64::MAX - 4, at, u32::MAX), "contradicts itself");
}

#[test]
fn shapes_that_no_storage_holds_are_refused() {
    let shaped = |shape: &[u8], strides: &[u8]| {
        Archive::torch(&pickle(&dict(&[("a", &tensor(shape, strides))]))).open()
    };
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    refused(shaped(b"K\x05\x85", b"K\x01\x85"), "its storage \"0\" at");
    refused(shaped(&[huge.as_slice(), b"\x85"].concat(), b"K\x01\x85"), "tensor `a`");
    refused(shaped(&[huge.as_slice(), huge, b"\x86"].concat(), b"K\0K\0\x86"), "overflows");
    refused(shaped(b"K\x02\x85", &[huge.as_slice(), b"\x85"].concat()), "overflows");
    // A view that repeats one element may have no more of them than the file has bytes.
    refused(shaped(b"J\0\0\0\x10\x85", b"K\0\x85"), "more elements than the file has bytes");
    assert!(shaped(b"K\x09\x85", b"K\0\x85").is_ok());
    refused(shaped(b"K\x02\x85", b")"), "but strides []");
    refused(shaped(b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t", b")"), "no short tuple");
    refused(shaped(b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), "no short tuple");
}

#[test]
fn dictionaries_that_hold_each_other_a_billion_times_are_refused() {
    // d0 = {"a": tensor}; d1 = {"0": d0, …, "9": d0}; d2 = {"0": d1, …}: 10^9 tensors after nine.
    let mut body = [dict(&[("a", &tensor(b"K\x04\x85", b"K\x01\x85"))]).as_slice(), b"q\0"].concat();
    for level in 0..9u8 {
        let get = [b'h', level];
        let keys: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let entries: Vec<(&str, &[u8])> = keys.iter().map(|k| (k.as_str(), get.as_slice())).collect();
        body.extend([dict(&entries).as_slice(), &[b'q', level + 1]].concat());
    }
    refused(Archive::torch(&pickle(&body)).open(), "65536 tensors");
    // Itself.
    refused(Archive::torch(&pickle(b"}q\0X\x01\0\0\0ah\0s")).open(), "nested too deeply");
}

#[test]
fn pickles_that_grow_beyond_any_checkpoint_are_refused() {
    // A list of 1000 pairs, copied into an ordered dictionary again and again.
    let pairs: Vec<u8> = (0..1000).flat_map(|_| *b"K\x01K\x02\x86").collect();
    let mut copies = [b"](".as_slice(), &pairs, b"eq\x000ccollections\nOrderedDict\nq\x010"].concat();
    copies.extend((0..5000).flat_map(|_| *b"h\x01h\0\x85R0"));
    refused(Archive::torch(&pickle(&copies)).open(), "more than 2097152 values");
    // Memo entries and containers without end.
    let memo: Vec<u8> = [
        b"N".as_slice(),
        &(0..3_000_000u32).flat_map(|n| [&b"r"[..], &n.to_le_bytes()].concat()).collect::<Vec<_>>(),
    ]
    .concat();
    refused(Archive::torch(&pickle(&memo)).open(), "larger than any checkpoint's index");
    refused(Archive::torch(&pickle(&b"}0".repeat(3_000_000))).open(), "larger than any checkpoint's index");
    refused(Archive::torch(&pickle(&b"N".repeat(3_000_000))).open(), "larger than any checkpoint's index");
}

#[test]
fn calls_of_anything_else_are_refused_by_name_whatever_their_form() {
    for (form, name) in [
        (b"cos\nsystem\nX\x04\0\0\0true\x85R".as_slice(), "os.system"),
        (b"\x8c\x08builtins\x8c\x04eval\x93X\x01\0\0\x001\x85R", "builtins.eval"),
        (b"csubprocess\nPopen\n)\x81", "subprocess.Popen"),
        (b"csubprocess\nPopen\n)}\x92", "subprocess.Popen"),
        (b"ccopy_reg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR", "subprocess.Popen"),
        (b"c__builtin__\ngetattr\n(cos\nsystem\nX\x01\0\0\0atR", "__builtin__.getattr"),
    ] {
        refused(Archive::torch(&pickle(&dict(&[("a", form)]))).open(), &format!("would call `{name}`"));
    }
    // What a call gives is not called either.
    refused(Archive::torch(&pickle(b"cnumpy\ndtype\n)R)R")).open(), "a call of something that is no global");
    // A name that is only mentioned is data.
    let entries = dict(&[("a", &tensor(b"K\x04\x85", b"K\x01\x85")), ("b", b"cos\nsystem\n")]);
    assert_eq!(Archive::torch(&pickle(&entries)).open().unwrap().names().count(), 1);
}
