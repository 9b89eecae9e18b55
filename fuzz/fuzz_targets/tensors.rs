//! What every target does with a checkpoint that opens.

use xmore_clip::Checkpoint;

/// Reads every tensor; each has as many values as its shape says, and all of them are numbers.
pub fn read(checkpoint: &Checkpoint) {
    for name in checkpoint.names() {
        let shape = checkpoint.shape(name).expect("a name that is listed has a shape");
        assert!(checkpoint.dtype(name).is_some());
        if let Ok(values) = checkpoint.tensor(name, shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
}
