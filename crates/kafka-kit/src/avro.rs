//! Payloads in Avro's single-object encoding: two bytes of marker, eight that name the schema by its CRC-64-AVRO
//! fingerprint, the record. A reader finds the schema among those that it has; it needs no registry.
//! Knows nothing of Kafka.

use std::collections::BTreeMap;

use apache_avro::{
    Schema, rabin::Rabin, reader::datum::GenericDatumReader, types::Value as Avro,
    writer::datum::GenericDatumWriter,
};
use gatehouse_events::Kind;
use serde_json::Value;

const MARKER: [u8; 2] = [0xc3, 0x01];

/// A payload that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what its schema says.
    #[error("the payload is not of the schema of {kind}")]
    Payload {
        /// Its kind.
        kind: Kind,
        /// Why.
        #[source]
        source: Box<apache_avro::Error>,
    },
    /// It is in no such encoding, or of a schema that is not known here.
    #[error("the payload is of no schema that is known here")]
    Unknown,
}

struct Known {
    kind: Kind,
    fingerprint: [u8; 8],
    schema: Schema,
}

/// The schemas of all kinds, parsed once.
pub struct Schemas(BTreeMap<Kind, Known>);

impl Schemas {
    /// Those of this build.
    ///
    /// # Errors
    /// Where one of them is no schema: a test keeps it from happening.
    pub fn new() -> Result<Self, Error> {
        let known = Kind::ALL.iter().map(|kind| {
            let schema = Schema::parse_str(kind.schema()).map_err(|error| broken(*kind, error))?;
            Ok((*kind, Known { kind: *kind, fingerprint: fingerprint(&schema), schema }))
        });
        known.collect::<Result<_, Error>>().map(Self)
    }

    /// Writes a message's value.
    ///
    /// # Errors
    /// Where it is not of the kind's schema.
    pub fn write(&self, kind: Kind, value: Value) -> Result<Vec<u8>, Error> {
        let known = self.0.get(&kind).ok_or(Error::Unknown)?;
        let write = || {
            let record = Avro::try_from(value)?.resolve(&known.schema)?;
            GenericDatumWriter::builder(&known.schema).build()?.write_value_to_vec(record)
        };
        let datum = write().map_err(|error| broken(kind, error))?;
        Ok([MARKER.as_slice(), &known.fingerprint, &datum].concat())
    }

    /// Reads one.
    ///
    /// # Errors
    /// Where this build has not written it.
    pub fn read(&self, bytes: &[u8]) -> Result<(Kind, Value), Error> {
        let rest = bytes.strip_prefix(&MARKER).ok_or(Error::Unknown)?;
        let (named, mut datum) = rest.split_first_chunk::<8>().ok_or(Error::Unknown)?;
        let known = self.0.values().find(|known| known.fingerprint == *named);
        let known = known.ok_or(Error::Unknown)?;
        let mut read = || {
            let reader = GenericDatumReader::builder(&known.schema).build()?;
            Value::try_from(reader.read_value(&mut datum)?)
        };
        Ok((known.kind, read().map_err(|error| broken(known.kind, error))?))
    }
}

/// Of a schema's canonical form: what its documentation says does not count.
pub fn fingerprint(schema: &Schema) -> [u8; 8] {
    let mut bytes = [0; 8];
    let found = schema.fingerprint::<Rabin>().bytes;
    bytes.iter_mut().zip(found).for_each(|(to, from)| *to = from);
    bytes
}

fn broken(kind: Kind, source: apache_avro::Error) -> Error {
    Error::Payload { kind, source: Box::new(source) }
}
