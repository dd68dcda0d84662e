//! Label selectors, as `metav1.LabelSelector` defines them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as api;
use serde::Serialize;

/// Labels of an object, by key.
pub type Labels = BTreeMap<String, String>;

/// A set of requirements on labels, all of which must hold; the empty one selects everything.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "operator")]
enum Requirement {
    In { key: String, values: Vec<String> },
    NotIn { key: String, values: Vec<String> },
    Exists { key: String },
    DoesNotExist { key: String },
}

/// Why a label selector is not one.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum SelectorError {
    #[error(
        "\"{0}\" is not an operator of a label selector: write In, NotIn, Exists or DoesNotExist"
    )]
    Operator(String),
    #[error("{operator} of the label {key} needs at least one value")]
    NoValues { key: String, operator: String },
    #[error("{operator} of the label {key} takes no values")]
    Values { key: String, operator: String },
}

impl LabelSelector {
    /// Reads a selector as the API has it.
    ///
    /// # Errors
    /// If an operator is unknown, or its number of values does not fit it.
    pub fn from_api(selector: &api::LabelSelector) -> Result<Self, SelectorError> {
        let equalities = selector.match_labels.iter().flatten();
        let equalities = equalities.map(|(key, value)| {
            Ok(Requirement::In {
                key: key.clone(),
                values: vec![value.clone()],
            })
        });
        let expressions = selector.match_expressions.iter().flatten();
        equalities
            .chain(expressions.map(Requirement::from_api))
            .collect::<Result<_, _>>()
            .map(|requirements| Self { requirements })
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

/// Whether any of the selectors matches; an empty list selects everything.
pub fn any_matches(selectors: &[LabelSelector], labels: &Labels) -> bool {
    selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
}

impl Requirement {
    fn from_api(expression: &api::LabelSelectorRequirement) -> Result<Self, SelectorError> {
        let key = expression.key.clone();
        let operator = expression.operator.clone();
        let values = expression.values.clone().unwrap_or_default();
        match (operator.as_str(), values.is_empty()) {
            ("In", false) => Ok(Self::In { key, values }),
            ("NotIn", false) => Ok(Self::NotIn { key, values }),
            ("In" | "NotIn", true) => Err(SelectorError::NoValues { key, operator }),
            ("Exists", true) => Ok(Self::Exists { key }),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist { key }),
            ("Exists" | "DoesNotExist", false) => Err(SelectorError::Values { key, operator }),
            _ => Err(SelectorError::Operator(operator)),
        }
    }

    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In { key, values } => labels.get(key).is_some_and(|found| values.contains(found)),
            Self::NotIn { key, values } => {
                !labels.get(key).is_some_and(|found| values.contains(found))
            }
            Self::Exists { key } => labels.contains_key(key),
            Self::DoesNotExist { key } => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(key: &str, operator: &str, values: &[&str]) -> api::LabelSelector {
        api::LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![api::LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: (!values.is_empty())
                    .then(|| values.iter().map(|&value| value.to_owned()).collect()),
            }]),
        }
    }

    #[test]
    fn selects_as_the_api_documents() {
        let labels: Labels = [("zone".to_owned(), "a".to_owned())].into();
        for (key, operator, values, expected) in [
            ("zone", "In", &["a", "b"][..], true),
            ("zone", "In", &["b"], false),
            ("disk", "In", &["b"], false),
            ("zone", "NotIn", &["b"], true),
            ("disk", "NotIn", &["b"], true),
            ("zone", "NotIn", &["a"], false),
            ("zone", "Exists", &[], true),
            ("disk", "Exists", &[], false),
            ("disk", "DoesNotExist", &[], true),
        ] {
            let selector = LabelSelector::from_api(&expression(key, operator, values)).unwrap();
            assert_eq!(
                selector.matches(&labels),
                expected,
                "{key} {operator} {values:?}"
            );
        }
        assert!(LabelSelector::default().matches(&labels));
    }

    #[test]
    fn refuses_what_means_nothing() {
        for (operator, values, message) in [
            (
                "Is",
                &["a"][..],
                "\"Is\" is not an operator of a label selector: write In, NotIn, Exists or DoesNotExist",
            ),
            ("In", &[], "In of the label zone needs at least one value"),
            ("Exists", &["a"], "Exists of the label zone takes no values"),
        ] {
            let error = LabelSelector::from_api(&expression("zone", operator, values)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
