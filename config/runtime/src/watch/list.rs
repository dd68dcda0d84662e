//! One list of everything of a kind, from the API server's cache if that will do.

use futures::AsyncReadExt as _;
use kube::Client;
use kube::core::{ListMeta, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::items::Items;
use super::next::AtLeast;
use super::object::{Unreadable, object};

/// A list as it arrives.
pub(super) struct List<R> {
    body: R,
    items: Items,
    /// What was read last.
    piece: Vec<u8>,
}

/// Everything but the items.
#[derive(Deserialize)]
struct Rest {
    metadata: ListMeta,
}

/// Begins to list what `path` has.
pub(super) async fn list(
    client: &Client,
    path: &str,
    selector: Option<&str>,
    at_least: &AtLeast,
) -> kube::Result<List<impl futures::AsyncRead + Unpin + use<>>> {
    let request = Request::new(path)
        .list(&at_least.parameters(selector))
        .map_err(kube::Error::BuildRequest)?;
    let body = Box::pin(client.request_stream(request).await?);
    Ok(List {
        body,
        items: Items::default(),
        piece: Vec::new(),
    })
}

impl<R: futures::AsyncRead + Unpin> List<R> {
    /// The next few objects; none at the end.
    pub(super) async fn next<K>(&mut self) -> kube::Result<Option<Objects<K>>>
    where
        K: DeserializeOwned + Send + 'static,
    {
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(PIECE, 0);
        let read = self.body.read(&mut piece).await;
        let length = read.map_err(kube::Error::ReadEvents)?;
        if length == 0 {
            return Ok(None);
        }
        piece.truncate(length);
        let mut items = std::mem::take(&mut self.items);
        let parse = move || {
            let objects = parse(&mut items, &piece);
            (piece, items, objects)
        };
        let (piece, items, objects) = if length < LONG_PIECE {
            parse()
        } else {
            // Long lists of several kinds come at the same time, and this thread may be the only one of its runtime.
            tokio::task::spawn_blocking(parse)
                .await
                .map_err(|error| kube::Error::Service(error.into()))?
        };
        self.piece = piece;
        self.items = items;
        objects.map(Some).map_err(kube::Error::SerdeError)
    }

    /// The resourceVersion of the list, after its end.
    pub(super) fn version(self) -> kube::Result<String> {
        let rest: Rest =
            serde_json::from_slice(self.items.rest()).map_err(kube::Error::SerdeError)?;
        Ok(rest.metadata.resource_version.unwrap_or_default())
    }
}

/// Objects, and those that cannot be read.
type Objects<K> = Vec<Result<K, Unreadable>>;

/// The objects that end in this piece of the list.
fn parse<K: DeserializeOwned>(items: &mut Items, piece: &[u8]) -> serde_json::Result<Objects<K>> {
    let mut objects = Vec::new();
    items.take(piece, |item| objects.push(object(item)));
    objects.into_iter().collect()
}

const PIECE: usize = 64 << 10;
/// Octets whose parsing takes longer than to wake another thread for it.
const LONG_PIECE: usize = 4 << 10;
