//! Brings an output to the shape `(B, K, ...)`, and refuses one whose first axis is not the batch.

use tch::Tensor;

use super::in_libtorch;
use crate::error::{Error, Result};

/// The shape `(B, K, ...)` of an output for an input of batch `B`.
///
/// | output | is |
/// |---|---|
/// | `(B, ...)` | as it is |
/// | `(K)` or `()` of a single sample | `(1, K)` or `(1, 1)` |
/// | `(B)`, where a single sample gives one number | `(B, 1)` |
///
/// `of_one` is the shape `(1, K, ...)` of a single sample's output, if it is known.
///
/// # Errors
///
/// [`Error::is_model`] if the first axis is not the batch, or if `of_one` shows that it has the
/// length of the batch only by chance.
pub(crate) fn batched_shape(
    input: &[i64],
    output: &[i64],
    of_one: Option<&[i64]>,
) -> Result<Vec<i64>> {
    let batch = input[0];
    let shape = match *output {
        [] if batch == 1 => vec![1, 1],
        [classes] if batch == 1 => vec![1, classes],
        [samples] if samples == batch => vec![batch, 1],
        [samples, _, ..] if samples == batch => output.to_vec(),
        _ => return Err(not_batched(input, output, of_one)),
    };
    let differs = |one: &[i64]| one.len() != shape.len() || one[1] != shape[1];
    if batch > 1 && of_one.is_some_and(differs) {
        return Err(not_batched(input, output, of_one));
    }
    Ok(shape)
}

/// Reshapes an output, or its scores before a final activation, to the shape from
/// [`batched_shape`].
pub(crate) fn batched(output: &Tensor, shape: &[i64]) -> Result<Tensor> {
    if output.size() == shape {
        return Ok(output.shallow_clone());
    }
    in_libtorch("output", || output.f_reshape(shape))
}

fn not_batched(input: &[i64], output: &[i64], of_one: Option<&[i64]>) -> Error {
    let batch = input[0];
    let cause = match *output {
        [] | [_] => {
            "a squeeze() or an index such as y[0] at the end of the model takes the batch axis away. \
             Export the model without it, or give one sample at a time"
        }
        [1, ..] => {
            "a batch size of 1 is baked into the model, as tracing does with Python numbers \
             (x.view(1, ...)). Write x.shape[0] there and export the model again, or give one sample \
             at a time"
        }
        _ if batch > 1 && of_one.is_none_or(|one| one.len() == output.len()) => {
            "a batch size is baked into the model, as tracing does with Python numbers, or its samples \
             are merged, stacked or permuted. Export a model that returns (B, K, ...) for any batch B"
        }
        _ => {
            "samples, flips or crops are stacked, or axes squeezed or permuted, at the end of the model. \
             Export a model that returns (B, K) or (B, K, [D,] H, W)"
        }
    };
    let alone = match of_one {
        Some(one) if batch > 1 => format!(" (a single sample gives {one:?})"),
        _ => String::new(),
    };
    Error::model(format!(
        "output of shape {output:?} for an input of shape {input:?}{alone}: its first axis is not the \
         batch of {batch}. Probably {cause}"
    ))
}

#[cfg(test)]
mod tests {
    use super::batched_shape;

    const ONE: &[i64] = &[1, 3, 8, 8];
    const TWO: &[i64] = &[2, 3, 8, 8];

    #[test]
    fn a_batch_of_one_may_lose_its_axis() {
        for (output, shape) in [
            (&[][..], &[1, 1][..]),
            (&[5], &[1, 5]),
            (&[1], &[1, 1]),
            (&[1, 5], &[1, 5]),
            (&[1, 5, 8, 8], &[1, 5, 8, 8]),
        ] {
            assert_eq!(batched_shape(ONE, output, None).unwrap(), shape);
        }
    }

    #[test]
    fn one_number_a_sample_is_believed_if_a_single_sample_gives_one() {
        assert_eq!(batched_shape(TWO, &[2], Some(&[1, 1])).unwrap(), [2, 1]);
        let error = batched_shape(TWO, &[2], Some(&[1, 2])).unwrap_err().to_string();
        assert!(error.contains("[2]") && error.contains("[2, 3, 8, 8]"), "{error}");
        assert!(error.contains("a single sample gives [1, 2]"), "{error}");
    }

    #[test]
    fn another_first_axis_is_refused_with_its_likely_cause() {
        for (input, output, of_one, words) in [
            (ONE, &[5, 1][..], None, "permuted"),
            (ONE, &[2, 3, 8, 8], None, "stacked"),
            (TWO, &[1, 5], Some(&[1, 5][..]), "batch size of 1 is baked"),
            (TWO, &[6], Some(&[1, 3]), "squeeze()"),
            (TWO, &[], Some(&[1, 1]), "squeeze()"),
            (TWO, &[4, 5], Some(&[1, 5]), "baked"),
            (TWO, &[2, 5], Some(&[1, 7]), "merged"),
            (TWO, &[2, 5], Some(&[1, 5, 8, 8]), "axes squeezed"),
        ] {
            let error = batched_shape(input, output, of_one).unwrap_err();
            assert!(error.is_model() && error.to_string().contains(words), "{error}");
        }
    }
}
