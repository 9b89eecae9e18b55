//! timm's models of its class `Eva` that image towers are made of: what their names stand for beside the tensors' shapes.

use crate::arch::shared::block::{BlockForm, NormPlace, PerceptronForm};
use crate::arch::shared::names::{BlockNames, InnerNames, QkvNames};
use crate::arch::shared::rotary::{AxisOrder, RotaryPositions};
use crate::arch::shared::timm::{TIMM_BLOCKS, TIMM_VIT};
use crate::arch::shared::vit::VitNames;

/// A model.
pub(super) struct EvaModel {
    name: &'static str,
    pub(super) heads: usize,
    pub(super) class_token: bool,
    rotary: Option<Rotary>,
    pub(super) form: &'static Form,
}

/// What models of several sizes have in common.
pub(super) struct Form {
    pub(super) names: &'static VitNames,
    pub(super) epsilon: f32,
    pub(super) norm_pre: bool,
    /// Heads of attention pooling; none where the class token is pooled.
    pub(super) pool_heads: Option<usize>,
    /// Without positions, which are each model's own.
    pub(super) blocks: BlockForm,
}

/// [`RotaryPositions`] without the image's size.
struct Rotary {
    reference: usize,
    offset: f32,
    order: AxisOrder,
}

impl EvaModel {
    /// Its blocks, of images of `side` patches a side.
    pub(super) fn blocks(&self, side: usize) -> BlockForm {
        let rotary = self.rotary.as_ref().map(|&Rotary { reference, offset, order }| RotaryPositions {
            side,
            reference,
            offset,
            order,
        });
        BlockForm { rotary, ..self.form.blocks.clone() }
    }
}

/// The model of that name.
pub(super) fn find(name: &str) -> Option<&'static EvaModel> {
    MODELS.iter().find(|model| model.name == name)
}

static MODELS: &[EvaModel] = &[
    pe_core("vit_pe_core_tiny_patch16_384", 3, 24),
    pe_core("vit_pe_core_small_patch16_384", 6, 24),
    pe_core("vit_pe_core_base_patch16_224", 12, 14),
    pe_core("vit_pe_core_large_patch14_336", 16, 24),
    EvaModel {
        class_token: false,
        rotary: Some(Rotary { reference: 32, offset: 0.0, order: AxisOrder::ColumnFirst }),
        ..pe_core("vit_pe_core_gigantic_patch14_448", 16, 32)
    },
    eva02("eva02_base_patch16_clip_224", 12),
    eva02("eva02_large_patch14_clip_224", 16),
    eva02("eva02_large_patch14_clip_336", 16),
    absolute("eva02_enormous_patch14_clip_224", 16, &NORMS_AFTER),
    absolute("eva_giant_patch14_224", 16, &EVA),
    absolute("eva_giant_patch14_clip_224", 16, &EVA),
];

const fn pe_core(name: &'static str, heads: usize, reference: usize) -> EvaModel {
    let rotary = Some(Rotary { reference, offset: 1.0, order: AxisOrder::ColumnFirst });
    EvaModel { name, heads, class_token: true, rotary, form: &PE_CORE }
}

const fn eva02(name: &'static str, heads: usize) -> EvaModel {
    let rotary = Some(Rotary { reference: 16, offset: 0.0, order: AxisOrder::RowFirst });
    EvaModel { name, heads, class_token: true, rotary, form: &EVA02 }
}

/// Without rotary positions.
const fn absolute(name: &'static str, heads: usize, form: &'static Form) -> EvaModel {
    EvaModel { name, heads, class_token: true, rotary: None, form }
}

static PE_CORE: Form =
    Form { names: &TIMM_VIT, epsilon: 1e-5, norm_pre: true, pool_heads: Some(8), blocks: BlockForm::CLIP };

static EVA02: Form = Form {
    names: &EVA02_NAMES,
    blocks: BlockForm { attention_norm: true, perceptron: PerceptronForm::Gated, ..BlockForm::CLIP },
    ..EVA
};

static NORMS_AFTER: Form = Form { blocks: BlockForm { norms: NormPlace::After, ..BlockForm::CLIP }, ..EVA };

const EVA: Form =
    Form { names: &EVA_NAMES, epsilon: 1e-6, norm_pre: false, pool_heads: None, blocks: BlockForm::CLIP };

static EVA_NAMES: VitNames = VitNames { blocks: &EVA_BLOCKS, pool: None, ..TIMM_VIT };
static EVA02_NAMES: VitNames = VitNames { blocks: &EVA02_BLOCKS, pool: None, ..TIMM_VIT };

static EVA_BLOCKS: BlockNames = BlockNames {
    qkv: QkvNames::FusedWithoutKeyBias {
        weight: "attn.qkv.weight",
        query_bias: "attn.q_bias",
        value_bias: "attn.v_bias",
    },
    ..TIMM_BLOCKS
};

static EVA02_BLOCKS: BlockNames = BlockNames {
    perceptron: ["mlp.fc1_x", "mlp.fc2"],
    qkv: QkvNames::SplitWithoutKeyBias(["attn.q_proj", "attn.k_proj", "attn.v_proj"]),
    inner: Some(InnerNames { attention_norm: "attn.norm", gate: "mlp.fc1_g", perceptron_norm: "mlp.norm" }),
    ..TIMM_BLOCKS
};
