//! One object of configuration, in whichever group it is written.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::advertisement::L2Advertisement;
use crate::name::{AdvertisementName, PoolName};
use crate::pool::{Origin, Pool};
use crate::refusal::{FieldError, Kind, Reason};
use crate::selector::Labels;
use crate::{crd, metallb};

/// The API group that an object is written for, which decides what its fields mean.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Group {
    /// `foghorn.dev/v1alpha1`.
    Foghorn,
    /// `metallb.io/v1beta1`.
    MetalLb,
}

impl Group {
    /// The value of `apiVersion` of objects of this group.
    pub fn api_version(self) -> String {
        match self {
            Self::Foghorn => format!("{}/{}", crd::GROUP, crd::VERSION),
            Self::MetalLb => format!("{}/{}", metallb::GROUP, metallb::VERSION),
        }
    }
}

/// A pool or an advertisement.
#[expect(missing_docs, reason = "each variant names its object")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Object {
    Pool(Arc<Pool>),
    Advertisement(Arc<L2Advertisement>),
}

impl Object {
    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pool(_) => Kind::Pool,
            Self::Advertisement(_) => Kind::Advertisement,
        }
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        match self {
            Self::Pool(pool) => pool.name.as_str(),
            Self::Advertisement(advertisement) => advertisement.name.as_str(),
        }
    }

    /// Where the object was written.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Pool(pool) => &pool.origin,
            Self::Advertisement(advertisement) => &advertisement.origin,
        }
    }
}

/// Reads the spec of an object; a missing one is an empty one.
///
/// Fields that are not known are no error here: the API server may have a newer schema than this program.
///
/// # Errors
/// One for each field that cannot be followed.
pub fn read(
    group: Group,
    kind: Kind,
    name: &str,
    labels: Labels,
    spec: Value,
    origin: Origin,
) -> Result<Object, Vec<FieldError>> {
    check_name(name)?;
    let spec = match spec {
        Value::Null => Value::Object(serde_json::Map::new()),
        spec => spec,
    };
    match kind {
        Kind::Pool => {
            let spec: crd::IPAddressPoolSpec = match group {
                Group::Foghorn => exactly(spec)?,
                Group::MetalLb => exactly::<metallb::IPAddressPoolSpec>(spec)?.into(),
            };
            let pool = spec.to_pool(name, labels, origin)?;
            Ok(Object::Pool(Arc::new(pool)))
        }
        Kind::Advertisement => {
            let spec: crd::L2AdvertisementSpec = match group {
                Group::Foghorn => exactly(spec)?,
                Group::MetalLb => exactly::<metallb::L2AdvertisementSpec>(spec)?.into(),
            };
            let advertisement = spec.to_advertisement(name, origin)?;
            Ok(Object::Advertisement(Arc::new(advertisement)))
        }
    }
}

fn exactly<T: DeserializeOwned>(spec: Value) -> Result<T, Vec<FieldError>> {
    serde_path_to_error::deserialize(spec).map_err(|error| {
        let path = error.path().to_string();
        let field = match path.as_str() {
            "." => "spec".to_owned(),
            path => format!("spec.{path}"),
        };
        let message = crate::refusal::shorten(&error.inner().to_string());
        let missing = message
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'));
        let reason = match missing {
            Some(field) => Reason::Missing {
                field: field.to_owned(),
            },
            None => Reason::Type(message),
        };
        vec![FieldError::new(field, reason)]
    })
}

/// RFC 1123 §2.1, as Kubernetes has it for the names of most objects.
fn check_name(name: &str) -> Result<(), Vec<FieldError>> {
    const LONGEST: usize = 253;
    let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(plain)
            && part.ends_with(plain)
            && part.chars().all(|found| plain(found) || found == '-')
    };
    if name.len() <= LONGEST && name.split('.').all(part) {
        return Ok(());
    }
    let reason = Reason::Name(crate::excerpt::excerpt(name));
    Err(vec![FieldError::new("metadata.name", reason)])
}

/// The name of a pool or an advertisement as the snapshot has it.
pub(crate) trait Named {
    /// The type of the name.
    type Name: Clone + Ord;
    /// The name.
    fn name(&self) -> &Self::Name;
    /// Where it was written.
    fn origin(&self) -> &Origin;
}

impl Named for Pool {
    type Name = PoolName;

    fn name(&self) -> &PoolName {
        &self.name
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl Named for L2Advertisement {
    type Name = AdvertisementName;

    fn name(&self) -> &AdvertisementName {
        &self.name
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }
}
