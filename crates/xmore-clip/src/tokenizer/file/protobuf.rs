//! Just enough protobuf to read sentencepiece's `ModelProto`: slices of the file, no more memory than its pieces take.

/// The most pieces that are read; XLM-V has 900 000.
const MAX_COUNT: usize = 2_000_000;

/// A sentencepiece model.
///
/// Source: google/sentencepiece `src/sentencepiece_model.proto`.
#[derive(Debug)]
pub(super) struct SentencePieceModel<'a> {
    pub pieces: Vec<Piece<'a>>,
    pub algorithm: Algorithm,
    pub byte_fallback: bool,
    pub unknown: u32,
    /// The table of character sequences and what replaces them; empty for none.
    pub charsmap: &'a [u8],
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
    pub whitespace_as_suffix: bool,
}

/// How texts are split into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

/// An entry of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub text: &'a str,
    pub score: f32,
    pub kind: PieceKind,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl<'a> SentencePieceModel<'a> {
    /// Reads a file's bytes.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            unknown: 0,
            charsmap: &[],
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            whitespace_as_suffix: false,
        };
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => {
                    let piece = Piece::read(value.bytes("pieces")?)
                        .map_err(|message| format!("piece {}: {message}", model.pieces.len()))?;
                    if model.pieces.len() == MAX_COUNT {
                        return Err(format!("pieces: expected at most {MAX_COUNT}, found more"));
                    }
                    model.pieces.push(piece);
                }
                2 => model.read_trainer(value.bytes("trainer_spec")?)?,
                3 => model.read_normalizer(value.bytes("normalizer_spec")?)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("expected `pieces`, found none".to_owned());
        }
        if model.unknown as usize >= model.pieces.len() {
            let (id, count) = (model.unknown, model.pieces.len());
            return Err(format!("trainer_spec.unk_id: expected less than the {count} pieces, found {id}"));
        }
        Ok(model)
    }

    fn read_trainer(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match number {
                3 => {
                    self.algorithm = match value.number("trainer_spec.model_type")? {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        other => {
                            return Err(format!(
                                "trainer_spec.model_type: expected 1 (unigram) or 2 (BPE), found {other}"
                            ));
                        }
                    }
                }
                24 => self.whitespace_as_suffix = value.flag("trainer_spec.treat_whitespace_as_suffix")?,
                35 => self.byte_fallback = value.flag("trainer_spec.byte_fallback")?,
                40 => {
                    let id = value.number("trainer_spec.unk_id")?;
                    self.unknown = u32::try_from(id)
                        .map_err(|_| format!("trainer_spec.unk_id: expected an id, found {}", id as i64))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match number {
                2 => self.charsmap = value.bytes("normalizer_spec.precompiled_charsmap")?,
                3 => self.add_dummy_prefix = value.flag("normalizer_spec.add_dummy_prefix")?,
                4 => {
                    self.remove_extra_whitespaces = value.flag("normalizer_spec.remove_extra_whitespaces")?
                }
                5 => self.escape_whitespaces = value.flag("normalizer_spec.escape_whitespaces")?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Piece<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut piece = Self { text: "", score: 0.0, kind: PieceKind::Normal };
        let mut fields = Fields { rest: bytes };
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => {
                    piece.text =
                        std::str::from_utf8(value.bytes("piece")?).map_err(|e| format!("`piece`: {e}"))?;
                }
                2 => {
                    piece.score = value.float("score")?;
                    if !piece.score.is_finite() {
                        return Err(format!("`score`: expected a finite number, found {}", piece.score));
                    }
                }
                3 => {
                    piece.kind = match value.number("type")? {
                        1 => PieceKind::Normal,
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        5 => PieceKind::Unused,
                        6 => PieceKind::Byte,
                        other => return Err(format!("`type`: expected 1 to 6, found {other}")),
                    }
                }
                _ => {}
            }
        }
        if piece.text.is_empty() {
            return Err("expected a `piece` that is not empty".to_owned());
        }
        Ok(piece)
    }
}

/// The fields of a message, in their order in the file.
struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's value by its wire type.
enum Value<'a> {
    Number(u64),
    Fixed32([u8; 4]),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            other => return Err(format!("not a sentencepiece model: unknown wire type {other}")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("not a sentencepiece model: a number of more than 10 bytes".to_owned())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| {
            format!("not a sentencepiece model: {length} bytes expected, {} left", self.rest.len())
        })?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Value<'a> {
    fn number(self, key: &str) -> Result<u64, String> {
        match self {
            Self::Number(value) => Ok(value),
            _ => Err(format!("`{key}`: expected an integer, found another type")),
        }
    }

    fn flag(self, key: &str) -> Result<bool, String> {
        self.number(key).map(|value| value != 0)
    }

    fn float(self, key: &str) -> Result<f32, String> {
        match self {
            Self::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(format!("`{key}`: expected a float, found another type")),
        }
    }

    fn bytes(self, key: &str) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(format!("`{key}`: expected bytes, found another type")),
        }
    }
}
