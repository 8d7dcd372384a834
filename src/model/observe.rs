//! Telling an observer what matrices are multiplied with.

use crate::ops::input::Input;
use crate::ops::{Compute, Inputs};
use crate::weights::{Matrix, Store};

/// Shows the input of some matrices to whoever observes; `position` is that of its first row in the sequence.
pub(super) fn observe<const N: usize>(
    compute: &Compute,
    store: &Store,
    matrices: [&Matrix; N],
    input: Input<'_>,
    position: Option<usize>,
) {
    if let Some(observer) = &compute.observer {
        let tensors = matrices.map(|matrix| store.name(matrix));
        observer.observe(&Inputs { tensors: &tensors, values: input.values(), columns: input.columns(), position });
    }
}
