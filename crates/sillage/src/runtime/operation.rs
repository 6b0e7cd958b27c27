//! Tombstones: a command whose undo was handled first is dropped, however late it comes.
//!
//! A saga's commands say which operation they belong to (`service/saga/instance/step`, the same for
//! every attempt) and whether they do it or undo it. Where an undo is handled its service keeps, in
//! the same commit, that the operation was undone; a command that comes later finds that and has no
//! effect. Both at once: the command's commit requires that there is no tombstone yet.

use crate::{handler::Context, names};
use serde_json::json;
use sillage_core::{Condition, Draft, Failure, Header, Message, Sort, Text, Write};

/// The header that says whether an operation is done or undone.
const OPERATION: &str = "sillage-operation";
const DO: &str = "do";
const UNDO: &str = "undo";

/// Makes a command a part of an operation.
pub(crate) fn mark(draft: &mut Draft, operation: Text, undo: bool) {
    draft.operation_id = Some(operation);
    let value = if undo { UNDO } else { DO };
    draft.headers.push(Header { name: OPERATION.into(), value: value.into() });
}

/// Whether a command was undone before it came: then nothing comes of it. Otherwise it requires that
/// there is no tombstone at its commit, and an undo writes its tombstone there.
pub(crate) async fn is_undone(context: &Context) -> Result<bool, Failure> {
    let message = context.message();
    let Some((operation, undo)) = operation_of(message) else { return Ok(false) };
    let Some(database) = &context.shared.database else { return Ok(false) };
    if undo {
        tombstone(context.service(), message)?
            .into_iter()
            .for_each(|it| context.beside().write(it));
        return Ok(false);
    }
    let (collection, id) =
        (Text::from(names::TOMBSTONES), names::tombstone(context.service(), operation));
    let known = database.get(&collection, &[&id]).await?.pop().flatten();
    if known.is_some() {
        let service = context.service();
        tracing::info!(service, operation, name = %message.name, "undone before it came: dropped");
        return Ok(true);
    }
    context.beside().require(Condition::Document { collection, id, expected: None });
    Ok(false)
}

/// What is kept of an operation that this command undoes.
pub(crate) fn tombstone(service: &str, message: &Message) -> Result<Option<Write>, Failure> {
    let Some((operation, true)) = operation_of(message) else { return Ok(None) };
    let (collection, id) = (names::TOMBSTONES.into(), names::tombstone(service, operation));
    let body = json!({ "message": message.id, "source": message.source, "at": message.time });
    let sort = Some(Sort::Text(message.time.to_string().into()));
    let body = serde_json::to_vec(&body)?.into();
    Ok(Some(Write::Put { collection, id, sort, body }))
}

fn operation_of(message: &Message) -> Option<(&str, bool)> {
    let operation = message.operation_id.as_deref()?;
    match &**message.header(OPERATION)? {
        value if value == DO.as_bytes() => Some((operation, false)),
        value if value == UNDO.as_bytes() => Some((operation, true)),
        _ => None,
    }
}
