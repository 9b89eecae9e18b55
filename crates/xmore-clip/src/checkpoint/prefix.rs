//! Plain names: a training file's model, without what wrapped it.
//!
//! Training loops save `{"state_dict": {…}, "optimizer": {…}}` or the like, and wrappers prepend their attribute to every name:
//! `module.` (DataParallel, DistributedDataParallel), `_orig_mod.` (torch.compile), `model.` (Lightning, TorchScript wrappers).

use std::collections::BTreeMap;

/// Groups that hold the model, the first found wins.
const GROUPS: [&str; 3] = ["state_dict.", "model_state_dict.", "model."];

/// What else a training file has at its top. Beside other names than these, `model.` is a part of the model.
const TRAINING: [&str; 8] =
    ["optim", "scaler", "grad_scaler", "scheduler", "lr_sched", "ema", "loss", "model_ema"];

/// Prefixes of wrappers, taken off where every name has them.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// Reduces tensors to the model's own under their plain names.
pub(super) fn plain<T>(mut tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let group = GROUPS.into_iter().find(|group| {
        let mut others = tensors.keys().filter(|name| !name.starts_with(group)).peekable();
        let found = tensors.keys().any(|name| name.starts_with(group));
        found
            && (*group != "model." || others.all(|name| TRAINING.iter().any(|other| name.starts_with(other))))
    });
    if let Some(group) = group {
        tensors = strip(tensors, group);
    }
    while let Some(wrapper) = WRAPPERS.into_iter().find(|w| {
        !tensors.is_empty() && tensors.keys().all(|name| name.len() > w.len() && name.starts_with(w))
    }) {
        tensors = strip(tensors, wrapper);
    }
    tensors
}

/// Keeps the names with the prefix, without it.
fn strip<T>(tensors: BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
    let tensors = tensors.into_iter();
    tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(given: &[&str]) -> Vec<String> {
        plain(given.iter().map(|name| (name.to_string(), ())).collect()).into_keys().collect()
    }

    #[test]
    fn plain_names_stay() {
        let given = ["logit_scale", "positional_embedding", "visual.proj"];
        assert_eq!(names(&given), given);
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn a_training_file_gives_its_model_only() {
        let given = [
            "optimizer.state.visual.proj.exp_avg",
            "state_dict.module.logit_scale",
            "state_dict.module.visual.proj",
        ];
        assert_eq!(names(&given), ["logit_scale", "visual.proj"]);
        assert_eq!(names(&["model.logit_scale", "optimizer.x", "model_ema.logit_scale"]), ["logit_scale"]);
        assert_eq!(names(&["ema", "model_state_dict._orig_mod.module.a"]), ["a"]);
    }

    #[test]
    fn wrappers_come_off_only_where_all_names_have_them() {
        assert_eq!(names(&["_orig_mod.module.a.b", "_orig_mod.module.c"]), ["a.b", "c"]);
        assert_eq!(names(&["logit_scale", "module.a"]), ["logit_scale", "module.a"]);
        // A language model's `model.` beside its head is part of the name.
        assert_eq!(names(&["lm_head.weight", "model.a"]), ["lm_head.weight", "model.a"]);
        // Never down to nothing.
        assert_eq!(names(&["module."]), ["module."]);
    }
}
