//! The fields of a form that a browser or a script sent.

use axum::extract::{Form, FromRequest, Request};

use crate::console::problem::Refusal;

/// The fields in their order. A name may occur several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct FormFields(pub(crate) Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for FormFields {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<FormFields, Refusal> {
        match Form::<Vec<(String, String)>>::from_request(request, state).await {
            Ok(Form(fields)) => Ok(FormFields(fields)),
            Err(error) => Err(Refusal::new(
                error.status(),
                "the form cannot be read",
                "send fields as a browser does, 1 MiB at most",
            )),
        }
    }
}

impl FormFields {
    /// Returns the last field of this name, trimmed; an empty text where it is missing.
    pub(crate) fn one(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// Returns the last field of this name as it was sent, with the space around it.
    pub(crate) fn exact(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Returns the values of all fields of this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let form = FormFields(vec![field("id", "1"), field("id", "2"), field("x", " y ")]);
        assert_eq!(form.all("id").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((form.one("x"), form.one("none")), ("y", ""));
    }
}
