//! One list of everything of a kind, from the API server's cache if that will do.

use futures::{AsyncReadExt as _, pin_mut};
use kube::Client;
use kube::core::{ListMeta, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::items::Items;
use super::next::AtLeast;

/// A list as it arrives.
pub(super) struct List<R> {
    body: R,
    items: Items,
    buffer: Vec<u8>,
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
        buffer: vec![0; PIECE],
    })
}

impl<R: futures::AsyncRead + Unpin> List<R> {
    /// The next few objects; none at the end. One that cannot be read is an error of the whole list.
    pub(super) async fn next<K: DeserializeOwned>(&mut self) -> kube::Result<Option<Vec<K>>> {
        let body = &mut self.body;
        pin_mut!(body);
        let length = body
            .read(&mut self.buffer)
            .await
            .map_err(kube::Error::ReadEvents)?;
        if length == 0 {
            return Ok(None);
        }
        let mut objects = Vec::new();
        let octets = self.buffer.get(..length).unwrap_or_default();
        self.items
            .take(octets, |item| objects.push(serde_json::from_slice(item)));
        let objects: Result<Vec<K>, _> = objects.into_iter().collect();
        objects.map(Some).map_err(kube::Error::SerdeError)
    }

    /// The resourceVersion of the list, after its end.
    pub(super) fn version(self) -> kube::Result<String> {
        let rest: Rest =
            serde_json::from_slice(self.items.rest()).map_err(kube::Error::SerdeError)?;
        Ok(rest.metadata.resource_version.unwrap_or_default())
    }
}

const PIECE: usize = 64 << 10;
