//! Reads the committed documents. Knows YAML, none of its meaning.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

/// The repository's root.
pub fn root() -> Result<PathBuf> {
    gatehouse_xtask::repo::root()
}

/// Every document of a YAML file.
pub fn yaml(path: &str) -> Result<Vec<Value>> {
    let path = root()?.join(path);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    Yaml::load_from_str(&text)?.iter().map(json).collect()
}

/// A JSON file.
pub fn json_file(path: &str) -> Result<Value> {
    let path = root()?.join(path);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
}

/// The same value in JSON.
pub fn json(yaml: &Yaml<'_>) -> Result<Value> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => Value::from(*flag),
        Yaml::Value(Scalar::Integer(number)) => Value::from(*number),
        Yaml::Value(Scalar::FloatingPoint(number)) => Value::from(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => Value::from(text.as_ref()),
        Yaml::Sequence(items) => Value::Array(items.iter().map(json).collect::<Result<_>>()?),
        Yaml::Mapping(members) => {
            let mut object = Map::new();
            for (name, value) in members {
                let name = name.as_str().context("a key that is no string")?;
                object.insert(name.to_owned(), json(value)?);
            }
            Value::Object(object)
        }
        other => bail!("{other:?} has no JSON"),
    })
}

/// `value` with the member at `pointer` renamed, as a slip of the finger would.
pub fn misspelt(value: &Value, pointer: &str, name: &str, typed: &str) -> Result<Value> {
    let mut value = value.clone();
    let object = value
        .pointer_mut(pointer)
        .and_then(Value::as_object_mut)
        .with_context(|| format!("no object at {pointer}"))?;
    let member = object.remove(name).with_context(|| format!("no {name} at {pointer}"))?;
    object.insert(typed.to_owned(), member);
    Ok(value)
}
