//! From the images and texts of a call to an answer for each, by way of the batcher.

use std::time::Instant;

use super::{Item, Timings, items};
use crate::api_error::{ApiError, ErrorCode};
use crate::app::App;
use crate::batcher::{Done, Input, Task};
use crate::input::{Call, ImageInput, Parameters};
use crate::options::Limits;
use crate::times::Times;

/// A call's images, then its texts, as the batcher takes them; each may be wrong by itself.
///
/// # Errors
/// That there are none, or more than are taken.
pub(crate) async fn queries<P: Parameters>(
    app: &App,
    call: &mut Call<P>,
) -> Result<Vec<Result<Input, ApiError>>, ApiError> {
    let limits = &app.options.limits;
    let (images, texts) = (std::mem::take(&mut call.images), call.parameters.texts());
    check_count(images.len() + texts.len(), limits.inputs)?;
    let mut all = inputs(app, images, call.deadline).await;
    all.extend(texts.into_iter().map(|text| check_text(&text, limits).map(|()| Input::Text(text))));
    Ok(all)
}

/// An item of the answer for each input, as `shape` makes it of what came of a good one, and how long it took.
///
/// # Errors
/// What concerns the whole request, see [`items`].
pub(crate) async fn answer<T>(
    app: &App,
    inputs: Vec<Result<Input, ApiError>>,
    task: &Task,
    deadline: Instant,
    shape: impl Fn(Done) -> Result<T, ApiError>,
) -> Result<(Vec<Item<T>>, Timings), ApiError> {
    let (results, times) = run(app, inputs, task, deadline).await?;
    let results = results.into_iter().map(|result| result.and_then(&shape)).collect();
    Ok((items(results)?, times.into()))
}

/// What may be there once, or several times in a list.
pub(crate) fn one_or_many<T>(one: &mut Option<T>, many: &mut Option<Vec<T>>) -> Vec<T> {
    one.take().into_iter().chain(many.take().into_iter().flatten()).collect()
}

/// Images as the batcher takes them; each may be wrong by itself.
pub(crate) async fn inputs(
    app: &App,
    images: Vec<ImageInput>,
    deadline: Instant,
) -> Vec<Result<Input, ApiError>> {
    let mut inputs = Vec::with_capacity(images.len());
    for image in images {
        inputs.push(match image {
            ImageInput::Bytes(bytes) if bytes.is_empty() => {
                Err(ApiError::new(ErrorCode::UndecodableImage, "the image is empty"))
            }
            ImageInput::Bytes(bytes) => Ok(Input::Image(bytes)),
            ImageInput::Embedding(values) => unit(&values, &app.batcher.models.dims()),
            ImageInput::Pair(id) => app.batcher.snapshot().pair_embeddings(id).map(Input::Rows),
            ImageInput::Url(url) => match &app.fetcher {
                Some(fetcher) => tokio::time::timeout_at(deadline.into(), fetcher.fetch(&url))
                    .await
                    .unwrap_or_else(|_| Err(ApiError::timeout()))
                    .map(Input::Image),
                None => Err(ApiError::new(
                    ErrorCode::Disabled,
                    "this server does not fetch URLs; send the image itself",
                )),
            },
        });
    }
    inputs
}

/// Checks an embedding; one that is not of unit length is made so.
pub(crate) fn unit(values: &[f32], dims: &[usize]) -> Result<Input, ApiError> {
    let expected: usize = dims.iter().sum();
    let wrong = |message: String| Err(ApiError::new(ErrorCode::InvalidParameter, message));
    if values.len() != expected {
        return wrong(format!("an embedding of {} values, expected {expected}", values.len()));
    }
    let mut rest = values;
    let mut rows = Vec::with_capacity(dims.len());
    for &dim in dims {
        let (row, others) = rest.split_at(dim);
        rest = others;
        let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return wrong(format!("an embedding of length {norm}, expected a unit vector"));
        }
        // Stored ones are rounded to 16 bits.
        rows.push(if (norm - 1.0).abs() < 1e-3 {
            row.to_vec()
        } else {
            row.iter().map(|&v| (f64::from(v) / norm) as f32).collect()
        });
    }
    Ok(Input::Rows(rows))
}

/// At least one input, and at most as many as are taken.
fn check_count(count: usize, most: usize) -> Result<(), ApiError> {
    match count {
        0 => Err(ApiError::invalid("no image or text: send `image`, `images`, `text` or `texts`")),
        count if count > most => {
            let message = format!("{count} images and texts; at most {most} are taken at once");
            Err(ApiError::new(ErrorCode::TooMany, message))
        }
        _ => Ok(()),
    }
}

/// # Errors
/// [`ErrorCode::InvalidParameter`] for a text that is longer than is taken.
pub(crate) fn check_text(text: &str, limits: &Limits) -> Result<(), ApiError> {
    let most = limits.text_bytes;
    if text.len() <= most {
        return Ok(());
    }
    let message = format!("a text of {} bytes; at most {most} are read", text.len());
    Err(ApiError::new(ErrorCode::InvalidParameter, message))
}

/// Sends the inputs that are good to the batcher; the others keep their errors, in their places.
pub(crate) async fn run(
    app: &App,
    inputs: Vec<Result<Input, ApiError>>,
    task: &Task,
    deadline: Instant,
) -> Result<(Vec<Result<Done, ApiError>>, Times), ApiError> {
    let good: Vec<Input> = inputs.iter().filter_map(|input| input.as_ref().ok().cloned()).collect();
    let mut done = app.batcher.answer(good, task, deadline).await?.into_iter();
    let times = done.as_slice().iter().flatten().fold(Times::default(), |all, done| all.max(done.times));
    let missing = || ApiError::internal(&"fewer answers than inputs");
    let results = inputs
        .into_iter()
        .map(|input| match input {
            Ok(_) => done.next().unwrap_or_else(|| Err(missing())),
            Err(error) => Err(error),
        })
        .collect();
    Ok((results, times))
}
