//! Requests for an operation of the API's description: valid ones, and near misses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::description::{Description, Makers, Operation, pick, word};
use super::wire::Wanted;
use super::{DIM, PAIRS, World};
use crate::support::files::Random;

/// Makes requests.
pub struct Requests<'a> {
    description: &'a Description,
    makers: Makers,
    picture: Vec<u8>,
    pub random: Random,
}

const BOUNDARY: &str = "----edge";

impl<'a> Requests<'a> {
    pub fn new(description: &'a Description, world: &World, seed: u64) -> Self {
        let picture = world.picture();
        let image = json!(STANDARD.encode(&picture));
        let row: Vec<f32> = (0..DIM).map(|i| (i as f32 * 0.7).sin()).collect();
        let inputs = [image.clone(), json!({"base64": image}), json!({"id": 3}), json!({"embedding": row})];
        let labels = [json!(["cat", "dog"]), json!(["a", "b", "c é"]), json!(["dog", "hot air balloon"])];
        let makers = Makers(vec![
            ("image", inputs.to_vec()),
            ("images", vec![json!(inputs), json!([image, "AAAA"]), json!([])]),
            ("base64", vec![image.clone()]),
            ("embedding", vec![json!(row), json!(vec![0.25; DIM])]),
            ("embedding_input", vec![json!(row)]),
            ("id", (0..=PAIRS).map(Value::from).collect()),
            ("ids", vec![json!([0, 1, PAIRS - 1]), json!([5, 5]), json!([])]),
            ("size", vec![json!(16), json!(160), json!(1024)]),
            ("labels", labels.to_vec()),
            ("label_set", vec![Value::Null, Value::Null, json!("pets")]),
            ("name", vec![json!("pets"), json!("other"), json!("V\u{f6}gel 1")]),
            (
                "method",
                ["zero-shot", "templates", "captions", "equal", "xmore", "xmore-kernel"]
                    .map(Value::from)
                    .into(),
            ),
            ("templates", vec![json!(["a photo of a {}"]), json!(["a {}", "the {}"])]),
            ("k", (1..5).map(Value::from).collect()),
            ("neighbors", vec![json!(8), json!(128)]),
            ("modality", vec![json!("image"), json!("text")]),
            ("num_images", (0..5).map(Value::from).collect()),
            ("num_result_ids", (0..5).map(Value::from).collect()),
            ("indice_name", vec![Value::Null, json!("m")]),
            ("use_mclip", vec![json!(false)]),
            ("url", vec![json!("http://127.0.0.1:9/a.png")]),
            ("image_url", vec![Value::Null]),
        ]);
        Self { description, makers, picture, random: Random(seed) }
    }

    /// A request that the description allows.
    pub fn valid(&mut self, operation: &Operation) -> Wanted {
        let (mut path, mut query) = (operation.path.to_owned(), Vec::new());
        let content = operation.value["requestBody"]["content"].as_object();
        let kinds: Vec<&String> = content.map(|content| content.keys().collect()).unwrap_or_default();
        let kind = (!kinds.is_empty()).then(|| pick(&kinds, &mut self.random).as_str());
        // Parameters stand in the query string only where the body is an image.
        let has_query = !matches!(kind, Some("application/json" | "multipart/form-data"));
        for parameter in operation.value["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let value = self.make(&parameter["schema"], name);
            if parameter["in"] == "path" {
                path = path.replace(&format!("{{{name}}}"), &encoded(&text_of(&value)));
            } else if has_query && (name == "labels" || self.random.below(3) == 0) {
                query.push(format!("{name}={}", encoded(&text_of(&value))));
            }
        }
        let mut wanted = Wanted::new(&operation.method.to_uppercase(), &path);
        if !query.is_empty() {
            wanted.target += &format!("?{}", query.join("&"));
        }
        match kind {
            None => wanted,
            Some("multipart/form-data") => {
                let schema = &content.unwrap()["multipart/form-data"]["schema"];
                let form = self.form(schema);
                wanted.with("content-type", &format!("multipart/form-data; boundary={BOUNDARY}")).body(form)
            }
            Some("application/json") => {
                let schema = &content.unwrap()["application/json"]["schema"];
                let value = self.make(schema, "");
                assert_eq!(self.description.check(schema, &value), Ok(()), "what is made must be valid");
                wanted.with("content-type", "application/json").body(value.to_string())
            }
            Some(kind) => wanted.with("content-type", &kind.replace('*', "png")).body(self.picture.clone()),
        }
    }

    fn make(&mut self, schema: &Value, name: &str) -> Value {
        self.description.make(schema, name, &mut self.random, &self.makers)
    }

    fn form(&mut self, schema: &Value) -> Vec<u8> {
        let value = self.make(schema, "");
        assert_eq!(self.description.check(schema, &value), Ok(()), "what is made must be valid");
        let mut form = Vec::new();
        for (name, value) in value.as_object().expect("a form has fields") {
            match value {
                Value::Null => {}
                // Files; their content is not for JSON to say.
                Value::Array(files) if name == "image" => {
                    for _ in files {
                        form.extend(part("image", "; filename=\"a.png\"", &self.picture));
                    }
                }
                value => form.extend(part(name, "", text_of(value).as_bytes())),
            }
        }
        form.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
        form
    }

    /// A request with something wrong in it, perhaps.
    pub fn near_miss(&mut self, operation: &Operation) -> Wanted {
        let mut wanted = self.valid(operation);
        for _ in 0..=self.random.below(2) {
            self.corrupt(&mut wanted, operation);
        }
        wanted
    }

    fn corrupt(&mut self, wanted: &mut Wanted, operation: &Operation) {
        match self.random.below(10) {
            0..4 => match serde_json::from_slice::<Value>(&wanted.body) {
                Ok(mut value) => {
                    self.corrupt_value(&mut value);
                    wanted.body = value.to_string().into_bytes();
                }
                Err(_) => self.corrupt_bytes(&mut wanted.body),
            },
            4 | 5 => self.corrupt_bytes(&mut wanted.body),
            6 => self.corrupt_query(wanted),
            7 if operation.path.contains('{') => self.corrupt_path(wanted, operation),
            7 | 8 => self.corrupt_kind(wanted),
            _ => self.corrupt_headers(wanted),
        }
    }

    /// Changes one place of a JSON value.
    fn corrupt_value(&mut self, value: &mut Value) {
        let random = &mut self.random;
        match value {
            Value::Object(object) if !object.is_empty() && random.below(4) > 0 => {
                let names: Vec<String> = object.keys().cloned().collect();
                let name = pick(&names, random).clone();
                match random.below(6) {
                    0 => drop(object.remove(&name)),
                    1 => drop(object.insert(word(random), json!(1))),
                    _ => self.corrupt_value(&mut object[&name]),
                }
            }
            Value::Array(array) if !array.is_empty() && random.below(4) > 0 => {
                let at = random.below(array.len() as u64) as usize;
                match random.below(6) {
                    0 => drop(array.remove(at)),
                    1 => {
                        let again = array[at].clone();
                        array.extend(std::iter::repeat_n(again, 200));
                    }
                    _ => self.corrupt_value(&mut array[at]),
                }
            }
            value => *value = unexpected(random),
        }
    }

    fn corrupt_bytes(&mut self, body: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(body.len() as u64 + 1) as usize;
        match random.below(8) {
            0 => body.truncate(at),
            1 => drop(body.splice(at..at, [0xff, 0xfe, 0xc0])),
            2 => drop(body.splice(0..0, *b"\xef\xbb\xbf")),
            3 => body.extend(b"}]\0"),
            4 => body.clear(),
            5 => *body = "[".repeat(5_000).into_bytes(),
            6 => {
                let end = (at + 40).min(body.len());
                let again = body[at..end].to_vec();
                body.splice(at..at, again);
            }
            _ if at < body.len() => body[at] ^= 1 << random.below(8),
            _ => body.push(b'{'),
        }
    }

    fn corrupt_query(&mut self, wanted: &mut Wanted) {
        let query = [
            "k=1&k=2",
            "k=-1",
            "k=1e3",
            "k=18446744073709551616",
            "top=0",
            "explain=perhaps",
            "labels=",
            "labels=[1]",
            "labels=[%22a%22,%22b%22]",
            "labels=a,a",
            "labels=%ff,%fe",
            "labels=%zz",
            "&&&==&",
            "n=0",
            "n=99999999999999999999",
            "modality=smell",
            "encoding=hex",
            "size=0",
            "size=16&size=17",
            "size=4294967296",
            "templates=x",
            "templates={}{}",
            "path=/etc/passwd",
            "method=",
            "method[]=xmore",
            "label_set=..%2f..%2fpasswd",
            "?",
            "%00=%00",
            "texts=a",
            "neighbors=1",
        ];
        let sign = if wanted.target.contains('?') { '&' } else { '?' };
        wanted.target += &format!("{sign}{}", pick(&query, &mut self.random));
        if self.random.below(6) == 0 {
            wanted.target += &format!("&labels={}", "x,".repeat(15_000));
        }
    }

    fn corrupt_path(&mut self, wanted: &mut Wanted, operation: &Operation) {
        let pieces = [
            "",
            "-1",
            "1.5",
            "0x1",
            "18446744073709551615",
            "18446744073709551616",
            "%31",
            "%ff",
            "%00",
            "%2e%2e",
            "..%2f..%2fm",
            "%252e",
            "a%20b",
            "NaN",
            "%F0%9F%98%80",
            "+1",
            "pets.txt",
            "con",
            ";",
            "*",
            "%2F",
            "'--",
        ];
        let piece = match self.random.below(8) {
            0 => "9".repeat(3_000),
            _ => (*pick(&pieces, &mut self.random)).to_owned(),
        };
        let start = operation.path.find('{').unwrap();
        let end = operation.path.find('}').unwrap();
        wanted.target = format!("{}{piece}{}", &operation.path[..start], &operation.path[end + 1..]);
    }

    fn corrupt_kind(&mut self, wanted: &mut Wanted) {
        let kinds = [
            "",
            "text/plain",
            "application/json; charset=utf-16",
            "application/xml",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=other",
            "multipart/form-data; boundary=\"",
            "image/",
            "image/svg+xml",
            "application/x-www-form-urlencoded",
            "APPLICATION/JSON",
            "application/json, image/png",
            "*/*",
            "\u{e9}",
        ];
        let kind = *pick(&kinds, &mut self.random);
        wanted.headers.retain(|(name, _)| name != "content-type");
        if !kind.is_empty() || self.random.below(2) == 0 {
            wanted.headers.push(("content-type".to_owned(), kind.to_owned()));
        }
    }

    fn corrupt_headers(&mut self, wanted: &mut Wanted) {
        let headers = [
            ("origin", "null"),
            ("origin", "http://evil.example"),
            ("host", "evil.example"),
            ("authorization", "Basic ====="),
            ("expect", "100-continue"),
            ("content-encoding", "gzip"),
            ("accept", "text/html;q=nan"),
            ("range", "bytes=5-1"),
            ("if-none-match", "*"),
            ("content-type", "image/png"),
            ("x-http-method-override", "DELETE"),
            ("x-api-key", "\u{fffd}"),
        ];
        let (name, value) = *pick(&headers, &mut self.random);
        wanted.headers.push((name.to_owned(), value.to_owned()));
    }
}

/// Something that is hardly ever expected.
fn unexpected(random: &mut Random) -> Value {
    let deep = (0..100).fold(json!(0), |inner, _| json!([inner]));
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(1e-320),
        json!(""),
        json!("a"),
        json!("\u{0}"),
        json!("x".repeat(100_000)),
        json!("data:image/png;base64,"),
        json!("../../etc/passwd"),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!({"base64": "", "id": 1}),
        json!({"path": "/etc/passwd"}),
        json!({"url": "file:///"}),
        json!({"embedding": [1e39]}),
        json!({"embedding": vec![3e38; DIM]}),
        json!({"embedding": vec![0; DIM]}),
        json!({"id": u64::MAX}),
        json!(vec![3e38; DIM]),
        json!(vec!["x"; 300]),
        json!(word(random)),
        deep,
    ];
    pick(&values, random).clone()
}

fn part(name: &str, more: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

/// A value as forms and query strings have it.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Percent-encoded.
fn encoded(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(b).to_string(),
        other => format!("%{other:02x}"),
    };
    text.bytes().map(byte).collect()
}
