//! A query's parameters, each at most once: which of two counts would be a guess (RFC 6749 §3.1).
//! Knows no parameter.

use std::collections::BTreeMap;

use gatehouse_contract::Reason;
use gatehouse_service::Reply;

/// More is nobody's answer.
const MAX_BYTES: usize = 8 * 1024;

/// The parameters by name.
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 where a parameter stands twice, or for a query that is far too long.
    pub fn read(text: Option<&str>) -> Result<Self, Reply> {
        let broken = |why: &str| Reply::new(Reason::PathInvalid).detail(why.to_owned());
        let text = text.unwrap_or_default();
        if text.len() > MAX_BYTES {
            return Err(broken("the query is too long"));
        }
        let mut known = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if known.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(broken("a parameter stands twice"));
            }
        }
        Ok(Self(known))
    }

    /// A parameter's value; an empty one is none (RFC 6749 §3.1).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_stands_once() {
        let query = Query::read(Some("a=b%2F&c=&d")).ok().unwrap();
        assert_eq!((query.get("a"), query.get("c"), query.get("d")), (Some("b/"), None, None));
        assert!(Query::read(Some("a=1&a=1")).is_err());
        assert!(Query::read(Some(&"a".repeat(9000))).is_err());
        assert_eq!(Query::read(None).ok().unwrap().get("a"), None);
    }
}
